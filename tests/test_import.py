"""The public names, how they are called, and what importing the package costs."""

import importlib
import inspect
import subprocess
import sys

import pytest

PUBLIC_NAMES = {
    "detectron2": ["__version__", "setup_environment"],
    "detectron2.layers": [
        "ASPP",
        "BatchNorm2d",
        "CNNBlockBase",
        "Conv2d",
        "ConvTranspose2d",
        "CycleBatchNormList",
        "DeformConv",
        "DepthwiseSeparableConv2d",
        "FrozenBatchNorm2d",
        "Linear",
        "ModulatedDeformConv",
        "NaiveSyncBatchNorm",
        "ROIAlign",
        "ROIAlignRotated",
        "ShapeSpec",
        "aspp",
        "batch_norm",
        "batched_nms",
        "batched_nms_rotated",
        "blocks",
        "cat",
        "ciou_loss",
        "cross_entropy",
        "deform_conv",
        "diou_loss",
        "empty_input_loss_func_wrapper",
        "get_norm",
        "interpolate",
        "losses",
        "mask_ops",
        "move_device_like",
        "nms",
        "nms_rotated",
        "nonzero_tuple",
        "pairwise_iou_rotated",
        "paste_masks_in_image",
        "roi_align",
        "roi_align_rotated",
        "rotated_boxes",
        "shape_spec",
        "shapes_to_tensor",
        "wrappers",
    ],
    "detectron2.layers.aspp": ["ASPP", "Conv2d", "DepthwiseSeparableConv2d", "get_norm"],
    "detectron2.layers.batch_norm": ["LayerNorm", "get_norm"],
    "detectron2.layers.blocks": ["Conv2d", "FrozenBatchNorm2d", "get_norm"],
    "detectron2.layers.deform_conv": [
        "DeformConv",
        "ModulatedDeformConv",
        "create_dummy_class",
        "create_dummy_func",
        "deform_conv",
        "modulated_deform_conv",
    ],
    "detectron2.layers.losses": ["ciou_loss", "diou_loss"],
    "detectron2.layers.mask_ops": [
        "BYTES_PER_FLOAT",
        "GPU_MEM_LIMIT",
        "pad_masks",
        "paste_mask_in_image_old",
        "paste_masks_in_image",
        "scale_boxes",
    ],
    "detectron2.layers.nms": [
        "batched_nms",
        "batched_nms_rotated",
        "disable_torch_compiler",
        "nms_rotated",
    ],
    "detectron2.layers.roi_align": ["ROIAlign", "roi_align"],
    "detectron2.layers.roi_align_rotated": [
        "ROIAlignRotated",
        "disable_torch_compiler",
        "roi_align_rotated",
    ],
    "detectron2.layers.rotated_boxes": ["pairwise_iou_rotated"],
    "detectron2.modeling": [
        "BACKBONE_REGISTRY",
        "Backbone",
        "FPN",
        "MMDetBackbone",
        "MMDetDetector",
        "MViT",
        "ResNet",
        "ResNetBlockBase",
        "SimpleFeaturePyramid",
        "SwinTransformer",
        "ViT",
        "backbone",
        "build_backbone",
        "build_resnet_backbone",
        "get_vit_lr_decay_rate",
        "make_stage",
        "mmdet_wrapper",
    ],
    "detectron2.modeling.backbone": [
        "BACKBONE_REGISTRY",
        "Backbone",
        "BasicStem",
        "BottleneckBlock",
        "FPN",
        "MViT",
        "RegNet",
        "ResNet",
        "ResNetBlockBase",
        "SimpleFeaturePyramid",
        "SwinTransformer",
        "ViT",
        "backbone",
        "build",
        "build_backbone",
        "build_resnet_backbone",
        "fpn",
        "get_vit_lr_decay_rate",
        "make_stage",
        "mvit",
        "regnet",
        "resnet",
        "swin",
        "utils",
        "vit",
    ],
    "detectron2.modeling.backbone.backbone": [
        "Backbone",
        "ShapeSpec",
    ],
    "detectron2.modeling.backbone.build": [
        "BACKBONE_REGISTRY",
        "Backbone",
        "ShapeSpec",
        "build_backbone",
    ],
    "detectron2.modeling.backbone.fpn": [
        "BACKBONE_REGISTRY",
        "Backbone",
        "Conv2d",
        "FPN",
        "LastLevelMaxPool",
        "LastLevelP6P7",
        "ShapeSpec",
        "_assert_strides_are_log2_contiguous",
        "build_resnet_backbone",
        "build_resnet_fpn_backbone",
        "build_retinanet_resnet_fpn_backbone",
        "get_norm",
    ],
    "detectron2.modeling.backbone.mvit": [
        "Backbone",
        "MViT",
        "MultiScaleAttention",
        "MultiScaleBlock",
        "PatchEmbed",
        "add_decomposed_rel_pos",
        "attention_pool",
        "get_abs_pos",
        "window_partition",
        "window_unpartition",
    ],
    "detectron2.modeling.backbone.regnet": [
        "AnyNet",
        "AnyStage",
        "Backbone",
        "BasicTransform",
        "BottleneckTransform",
        "CNNBlockBase",
        "RegNet",
        "ResBasicBlock",
        "ResBottleneckBlock",
        "ResStem",
        "SE",
        "ShapeSpec",
        "SimpleStem",
        "VanillaBlock",
        "adjust_block_compatibility",
        "conv2d",
        "gap2d",
        "generate_regnet_parameters",
        "get_norm",
        "init_weights",
        "pool2d",
    ],
    "detectron2.modeling.backbone.resnet": [
        "BACKBONE_REGISTRY",
        "Backbone",
        "BasicBlock",
        "BasicStem",
        "BottleneckBlock",
        "CNNBlockBase",
        "Conv2d",
        "DeformBottleneckBlock",
        "DeformConv",
        "ModulatedDeformConv",
        "ResNet",
        "ResNetBlockBase",
        "ShapeSpec",
        "build_resnet_backbone",
        "get_norm",
        "make_stage",
    ],
    "detectron2.modeling.backbone.swin": [
        "Backbone",
        "BasicLayer",
        "Mlp",
        "PatchEmbed",
        "PatchMerging",
        "SwinTransformer",
        "SwinTransformerBlock",
        "WindowAttention",
        "window_partition",
        "window_reverse",
    ],
    "detectron2.modeling.backbone.utils": [
        "PatchEmbed",
        "add_decomposed_rel_pos",
        "get_abs_pos",
        "get_rel_pos",
        "window_partition",
        "window_unpartition",
    ],
    "detectron2.modeling.backbone.vit": [
        "Attention",
        "Backbone",
        "Block",
        "CNNBlockBase",
        "Conv2d",
        "PatchEmbed",
        "ResBottleneckBlock",
        "SimpleFeaturePyramid",
        "ViT",
        "add_decomposed_rel_pos",
        "get_abs_pos",
        "get_norm",
        "get_vit_lr_decay_rate",
        "window_partition",
        "window_unpartition",
    ],
    "detectron2.modeling.mmdet_wrapper": [
        "Backbone",
        "BitMasks",
        "Boxes",
        "ImageList",
        "Instances",
        "MMDetBackbone",
        "MMDetDetector",
        "ShapeSpec",
        "get_event_storage",
    ],
    "detectron2.structures": [
        "BitMasks",
        "BoxMode",
        "Boxes",
        "ImageList",
        "Instances",
        "Keypoints",
        "PolygonMasks",
        "ROIMasks",
        "RotatedBoxes",
        "boxes",
        "heatmaps_to_keypoints",
        "image_list",
        "instances",
        "keypoints",
        "masks",
        "pairwise_ioa",
        "pairwise_iou",
        "pairwise_iou_rotated",
        "pairwise_point_box_distance",
        "polygons_to_bitmask",
        "rotated_boxes",
    ],
    "detectron2.structures.boxes": [
        "BoxMode",
        "Boxes",
        "matched_pairwise_iou",
        "pairwise_intersection",
    ],
    "detectron2.structures.image_list": [
        "ImageList",
        "min_torch_version",
        "move_device_like",
        "shapes_to_tensor",
    ],
    "detectron2.structures.instances": ["Instances"],
    "detectron2.structures.keypoints": ["Keypoints", "heatmaps_to_keypoints"],
    "detectron2.structures.masks": [
        "BitMasks",
        "Boxes",
        "PolygonMasks",
        "ROIAlign",
        "ROIMasks",
        "polygon_area",
        "polygons_to_bitmask",
        "rasterize_polygons_within_box",
        "retry_if_cuda_oom",
    ],
    "detectron2.structures.rotated_boxes": [
        "Boxes",
        "RotatedBoxes",
        "pairwise_iou",
        "pairwise_iou_rotated",
    ],
    "detectron2.utils.collect_env": ["collect_env_info"],
    "detectron2.utils.comm": [
        "_LOCAL_PROCESS_GROUP",
        "all_gather",
        "create_local_process_group",
        "gather",
        "get_local_process_group",
        "get_local_rank",
        "get_local_size",
        "get_rank",
        "get_world_size",
        "is_main_process",
        "reduce_dict",
        "shared_random_seed",
        "synchronize",
    ],
    "detectron2.utils.develop": ["create_dummy_class", "create_dummy_func"],
    "detectron2.utils.env": ["DOC_BUILDING", "TORCH_VERSION", "seed_all_rng"],
    "detectron2.utils.memory": ["retry_if_cuda_oom"],
    "detectron2.utils.torch_version_utils": ["min_torch_version"],
}

# Parameters in order, with "=" after those that have a default and "*" before keyword-only ones.
SIGNATURES = {
    "detectron2.layers.ASPP": "in_channels out_channels dilations *norm *activation "
    "*pool_kernel_size= *dropout= *use_depthwise_separable_conv=",
    "detectron2.layers.CNNBlockBase": "in_channels out_channels stride",
    "detectron2.layers.CycleBatchNormList": "length bn_class= kwargs",
    "detectron2.layers.DepthwiseSeparableConv2d": "in_channels out_channels kernel_size= padding= "
    "dilation= *norm1= *activation1= *norm2= *activation2=",
    "detectron2.layers.FrozenBatchNorm2d": "num_features eps=",
    "detectron2.layers.NaiveSyncBatchNorm": "args *stats_mode= kwargs",
    "detectron2.layers.DeformConv": (
        "in_channels out_channels kernel_size stride= padding= dilation= groups= "
        "deformable_groups= bias= norm= activation="
    ),
    "detectron2.layers.DeformConv.forward": "self x offset",
    "detectron2.layers.ModulatedDeformConv": (
        "in_channels out_channels kernel_size stride= padding= dilation= groups= "
        "deformable_groups= bias= norm= activation="
    ),
    "detectron2.layers.ModulatedDeformConv.forward": "self x offset mask",
    "detectron2.layers.ROIAlign": "output_size spatial_scale sampling_ratio aligned=",
    "detectron2.layers.ROIAlignRotated": "output_size spatial_scale sampling_ratio",
    "detectron2.layers.ShapeSpec": "channels= height= width= stride=",
    "detectron2.layers.batched_nms": "boxes scores idxs iou_threshold",
    "detectron2.layers.batched_nms_rotated": "boxes scores idxs iou_threshold",
    "detectron2.layers.cat": "tensors dim=",
    "detectron2.layers.ciou_loss": "boxes1 boxes2 reduction= eps=",
    "detectron2.layers.cross_entropy": "input target *reduction= kwargs",
    "detectron2.layers.diou_loss": "boxes1 boxes2 reduction= eps=",
    "detectron2.layers.get_norm": "norm out_channels",
    "detectron2.layers.nms_rotated": "boxes scores iou_threshold",
    "detectron2.layers.pairwise_iou_rotated": "boxes1 boxes2",
    "detectron2.layers.mask_ops.pad_masks": "masks padding",
    "detectron2.layers.mask_ops.paste_mask_in_image_old": "mask box img_h img_w threshold",
    "detectron2.layers.mask_ops.scale_boxes": "boxes scale",
    "detectron2.layers.paste_masks_in_image": "masks boxes image_shape threshold=",
    "detectron2.layers.shapes_to_tensor": "x device=",
    "detectron2.structures.BitMasks": "tensor",
    "detectron2.structures.BitMasks.cat": "bitmasks_list",
    "detectron2.structures.BitMasks.crop_and_resize": "self boxes mask_size",
    "detectron2.structures.BitMasks.from_polygon_masks": "polygon_masks height width",
    "detectron2.structures.BitMasks.from_roi_masks": "roi_masks height width",
    "detectron2.structures.BoxMode.convert": "box from_mode to_mode",
    "detectron2.structures.Boxes": "tensor",
    "detectron2.structures.Boxes.cat": "boxes_list",
    "detectron2.structures.Boxes.clip": "self box_size",
    "detectron2.structures.Boxes.inside_box": "self box_size boundary_threshold=",
    "detectron2.structures.Boxes.nonempty": "self threshold=",
    "detectron2.structures.Boxes.scale": "self scale_x scale_y",
    "detectron2.structures.Boxes.to": "self device",
    "detectron2.structures.ImageList": "tensor image_sizes",
    "detectron2.structures.ImageList.from_tensors": (
        "tensors size_divisibility= pad_value= padding_constraints="
    ),
    "detectron2.structures.Instances": "image_size kwargs",
    "detectron2.structures.Instances.cat": "instance_lists",
    "detectron2.structures.Instances.set": "self name value",
    "detectron2.structures.Keypoints": "keypoints",
    "detectron2.structures.Keypoints.cat": "keypoints_list",
    "detectron2.structures.Keypoints.to_heatmap": "self boxes heatmap_size",
    "detectron2.structures.PolygonMasks": "polygons",
    "detectron2.structures.PolygonMasks.cat": "polymasks_list",
    "detectron2.structures.PolygonMasks.crop_and_resize": "self boxes mask_size",
    "detectron2.structures.ROIMasks.to_bitmasks": "self boxes height width threshold=",
    "detectron2.structures.RotatedBoxes.clip": "self box_size clip_angle_threshold=",
    "detectron2.structures.RotatedBoxes.to": "self device non_blocking=",
    "detectron2.structures.heatmaps_to_keypoints": "maps rois",
    "detectron2.structures.pairwise_point_box_distance": "points boxes",
    "detectron2.structures.polygons_to_bitmask": "polygons height width",
    "detectron2.utils.collect_env.detect_compute_compatibility": "CUDA_HOME so_file",
    "detectron2.utils.comm.all_gather": "data group=",
    "detectron2.utils.comm.gather": "data dst= group=",
    "detectron2.utils.comm.reduce_dict": "input_dict average=",
    "detectron2.utils.develop.create_dummy_class": "klass dependency message=",
    "detectron2.utils.env.fixup_module_metadata": "module_name namespace keys=",
}

NOT_NEEDED_TO_IMPORT = ["cv2", "fvcore", "iopath", "matplotlib", "pkg_resources", "scipy"]


@pytest.mark.parametrize("module_name", PUBLIC_NAMES)
def test_public_names(module_name):
    module = importlib.import_module(module_name)
    assert [name for name in PUBLIC_NAMES[module_name] if not hasattr(module, name)] == []
    assert [name for name in getattr(module, "__all__", []) if not hasattr(module, name)] == []


def resolve(path):
    parts = path.split(".")
    split = next(i for i, part in enumerate(parts) if part[0].isupper() or i == len(parts) - 1)
    target = importlib.import_module(".".join(parts[:split]))
    for part in parts[split:]:
        target = getattr(target, part)
    return target


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures(path):
    described = []
    for parameter in inspect.signature(resolve(path)).parameters.values():
        prefix = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        suffix = "" if parameter.default is parameter.empty else "="
        described.append(prefix + parameter.name + suffix)
    assert " ".join(described) == SIGNATURES[path]


def test_first_example():
    import torch

    from detectron2.structures.boxes import Boxes, pairwise_iou

    boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0]]))
    third = pytest.approx(1 / 3)
    assert pairwise_iou(boxes, boxes).tolist() == [[1, third], [third, 1]]


def test_functions_that_share_their_names_with_modules():
    import detectron2.layers
    import detectron2.layers.nms
    import detectron2.layers.roi_align
    import detectron2.layers.roi_align_rotated
    from detectron2.layers.nms import batched_nms

    assert batched_nms is detectron2.layers.batched_nms
    for name in ("nms", "roi_align", "roi_align_rotated"):
        assert inspect.isfunction(getattr(detectron2.layers, name))
        assert inspect.ismodule(sys.modules[f"detectron2.layers.{name}"])


def test_version():
    import detectron2

    assert detectron2.__version__ == "0.7.0"


def test_import_loads_no_more_than_it_needs():
    """Beside what torchvision loads by itself."""
    code = f"""
import sys
import torchvision
before = set(sys.modules)
import detectron2.layers, detectron2.structures
print(*(n for n in {NOT_NEEDED_TO_IMPORT} if n in sys.modules and n not in before))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []


def test_importing_the_package_loads_little_beyond_torch():
    code = """
import sys
import torch
before = set(sys.modules)
import detectron2
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == ["detectron2"]
