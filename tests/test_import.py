"""The public names, how they are called, and what importing the package costs."""

import importlib
import inspect
import subprocess
import sys

import pytest

PUBLIC_NAMES = {
    "detectron2": ["__version__", "setup_environment"],
    "detectron2.evaluation": [
        "COCOEvaluator",
        "COCOPanopticEvaluator",
        "CityscapesInstanceEvaluator",
        "CityscapesSemSegEvaluator",
        "DatasetEvaluator",
        "DatasetEvaluators",
        "LVISEvaluator",
        "PascalVOCDetectionEvaluator",
        "RotatedCOCOEvaluator",
        "SemSegEvaluator",
        "cityscapes_evaluation",
        "coco_evaluation",
        "evaluator",
        "fast_eval_api",
        "inference_context",
        "inference_on_dataset",
        "lvis_evaluation",
        "panoptic_evaluation",
        "pascal_voc_evaluation",
        "print_csv_format",
        "rotated_coco_evaluation",
        "sem_seg_evaluation",
        "testing",
        "verify_results",
    ],
    "detectron2.evaluation.cityscapes_evaluation": [
        "CityscapesEvaluator",
        "CityscapesInstanceEvaluator",
        "CityscapesSemSegEvaluator",
        "DatasetEvaluator",
        "MetadataCatalog",
    ],
    "detectron2.evaluation.evaluator": [
        "DatasetEvaluator",
        "DatasetEvaluators",
        "get_world_size",
        "inference_context",
        "inference_on_dataset",
        "is_main_process",
        "log_every_n_seconds",
    ],
    "detectron2.evaluation.panoptic_evaluation": [
        "COCOPanopticEvaluator",
        "DatasetEvaluator",
        "MetadataCatalog",
    ],
    "detectron2.evaluation.pascal_voc_evaluation": [
        "DatasetEvaluator",
        "MetadataCatalog",
        "PascalVOCDetectionEvaluator",
        "parse_rec",
        "voc_ap",
        "voc_eval",
    ],
    "detectron2.evaluation.sem_seg_evaluation": [
        "DatasetCatalog",
        "DatasetEvaluator",
        "MetadataCatalog",
        "SemSegEvaluator",
        "all_gather",
        "is_main_process",
        "load_image_into_numpy_array",
        "synchronize",
    ],
    "detectron2.evaluation.testing": ["flatten_results_dict", "print_csv_format", "verify_results"],
    "detectron2.data.transforms": [
        "AugInput",
        "Augmentation",
        "AugmentationList",
        "BlendTransform",
        "ColorTransform",
        "CropTransform",
        "ExtentTransform",
        "FixedSizeCrop",
        "GridSampleTransform",
        "HFlipTransform",
        "MinIoURandomCrop",
        "NoOpTransform",
        "PILColorTransform",
        "PadTransform",
        "RandomApply",
        "RandomBrightness",
        "RandomContrast",
        "RandomCrop",
        "RandomCrop_CategoryAreaConstraint",
        "RandomExtent",
        "RandomFlip",
        "RandomLighting",
        "RandomResize",
        "RandomRotation",
        "RandomSaturation",
        "Resize",
        "ResizeScale",
        "ResizeShortestEdge",
        "ResizeTransform",
        "RotationTransform",
        "ScaleTransform",
        "StandardAugInput",
        "Transform",
        "TransformGen",
        "TransformList",
        "VFlipTransform",
        "apply_augmentations",
        "apply_transform_gens",
        "augmentation",
        "augmentation_impl",
        "transform",
    ],
    "detectron2.data.transforms.augmentation": [
        "AugInput",
        "Augmentation",
        "AugmentationList",
        "StandardAugInput",
        "TransformGen",
        "apply_augmentations",
        "apply_transform_gens",
    ],
    "detectron2.data.transforms.augmentation_impl": [
        "Augmentation",
        "Boxes",
        "ExtentTransform",
        "FixedSizeCrop",
        "MinIoURandomCrop",
        "RandomApply",
        "RandomBrightness",
        "RandomContrast",
        "RandomCrop",
        "RandomCrop_CategoryAreaConstraint",
        "RandomExtent",
        "RandomFlip",
        "RandomLighting",
        "RandomResize",
        "RandomRotation",
        "RandomSaturation",
        "Resize",
        "ResizeScale",
        "ResizeShortestEdge",
        "ResizeTransform",
        "RotationTransform",
        "pairwise_iou",
    ],
    "detectron2.data.transforms.transform": [
        "ColorTransform",
        "ExtentTransform",
        "HFlip_rotated_box",
        "PILColorTransform",
        "ResizeTransform",
        "Resize_rotated_box",
        "RotationTransform",
        "Transform",
    ],
    "detectron2.data.catalog": [
        "DatasetCatalog",
        "Metadata",
        "MetadataCatalog",
        "log_first_n",
    ],
    "detectron2.data.check": [
        "DatasetReport",
        "check_dataset",
    ],
    "detectron2.data.datasets": [
        "builtin",
        "builtin_meta",
        "cityscapes",
        "cityscapes_panoptic",
        "coco",
        "coco_panoptic",
        "convert_to_coco_json",
        "get_lvis_instances_meta",
        "load_coco_json",
        "load_lvis_json",
        "load_sem_seg",
        "load_voc_instances",
        "lvis",
        "lvis_v0_5_categories",
        "lvis_v1_categories",
        "lvis_v1_category_image_count",
        "pascal_voc",
        "register_coco",
        "register_coco_instances",
        "register_coco_panoptic",
        "register_coco_panoptic_separated",
        "register_lvis_instances",
        "register_pascal_voc",
    ],
    "detectron2.data.datasets.builtin": [
        "ADE20K_SEM_SEG_CATEGORIES",
        "DatasetCatalog",
        "MetadataCatalog",
        "get_lvis_instances_meta",
        "load_cityscapes_instances",
        "load_cityscapes_semantic",
        "load_sem_seg",
        "register_all_ade20k",
        "register_all_cityscapes",
        "register_all_cityscapes_panoptic",
        "register_all_coco",
        "register_all_lvis",
        "register_all_pascal_voc",
        "register_coco_instances",
        "register_coco_panoptic",
        "register_coco_panoptic_separated",
        "register_lvis_instances",
        "register_pascal_voc",
    ],
    "detectron2.data.datasets.builtin_meta": [
        "ADE20K_SEM_SEG_CATEGORIES",
        "CITYSCAPES_CATEGORIES",
        "COCO_CATEGORIES",
        "COCO_PERSON_KEYPOINT_FLIP_MAP",
        "COCO_PERSON_KEYPOINT_NAMES",
        "KEYPOINT_CONNECTION_RULES",
        "_get_builtin_metadata",
        "_get_coco_instances_meta",
    ],
    "detectron2.data.datasets.cityscapes": [
        "BoxMode",
        "get_world_size",
        "load_cityscapes_instances",
        "load_cityscapes_semantic",
        "main",
        "setup_logger",
    ],
    "detectron2.data.datasets.cityscapes_panoptic": [
        "CITYSCAPES_CATEGORIES",
        "DatasetCatalog",
        "MetadataCatalog",
        "get_cityscapes_panoptic_files",
        "load_cityscapes_panoptic",
        "register_all_cityscapes_panoptic",
    ],
    "detectron2.data.datasets.coco": [
        "BoxMode",
        "Boxes",
        "DatasetCatalog",
        "MetadataCatalog",
        "PolygonMasks",
        "RotatedBoxes",
        "convert_to_coco_dict",
        "convert_to_coco_json",
        "load_coco_json",
        "load_sem_seg",
        "main",
        "register_coco_instances",
    ],
    "detectron2.data.datasets.coco_panoptic": [
        "DatasetCatalog",
        "MetadataCatalog",
        "load_coco_json",
        "load_coco_panoptic_json",
        "load_sem_seg",
        "merge_to_panoptic",
        "register_coco_panoptic",
        "register_coco_panoptic_separated",
    ],
    "detectron2.data.datasets.lvis": [
        "BoxMode",
        "DatasetCatalog",
        "LVIS_V0_5_CATEGORIES",
        "LVIS_V1_CATEGORIES",
        "LVIS_V1_CATEGORY_IMAGE_COUNT",
        "MetadataCatalog",
        "get_lvis_instances_meta",
        "load_lvis_json",
        "main",
        "register_lvis_instances",
    ],
    "detectron2.data.datasets.lvis_v0_5_categories": [
        "LVIS_CATEGORIES",
    ],
    "detectron2.data.datasets.lvis_v1_categories": [
        "LVIS_CATEGORIES",
    ],
    "detectron2.data.datasets.lvis_v1_category_image_count": [
        "LVIS_CATEGORY_IMAGE_COUNT",
    ],
    "detectron2.data.datasets.pascal_voc": [
        "BoxMode",
        "CLASS_NAMES",
        "DatasetCatalog",
        "MetadataCatalog",
        "load_voc_instances",
        "register_pascal_voc",
    ],
    "detectron2.data.datasets.register_coco": [
        "register_coco_instances",
        "register_coco_panoptic_separated",
    ],
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
    "detectron2.model_zoo": [
        "get",
        "get_checkpoint_url",
        "get_config",
        "get_config_file",
        "model_zoo",
    ],
    "detectron2.model_zoo.model_zoo": [
        "CfgNode",
        "DetectionCheckpointer",
        "LazyConfig",
        "build_model",
        "get",
        "get_cfg",
        "get_checkpoint_url",
        "get_config",
        "get_config_file",
        "instantiate",
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
    "detectron2.tracking": [
        "BBoxIOUTracker",
        "BaseHungarianTracker",
        "BaseTracker",
        "IOUWeightedHungarianBBoxIOUTracker",
        "TRACKER_HEADS_REGISTRY",
        "VanillaHungarianBBoxIOUTracker",
        "base_tracker",
        "bbox_iou_tracker",
        "build_tracker_head",
        "create_prediction_pairs",
        "hungarian_tracker",
        "iou_weighted_hungarian_bbox_iou_tracker",
        "utils",
        "vanilla_hungarian_bbox_iou_tracker",
    ],
    "detectron2.tracking.base_tracker": [
        "BaseTracker",
        "CfgNode_",
        "Instances",
        "build_tracker_head",
        "configurable",
    ],
    "detectron2.tracking.bbox_iou_tracker": [
        "BBoxIOUTracker",
        "BaseTracker",
        "Boxes",
        "CfgNode_",
        "Instances",
        "configurable",
        "pairwise_iou",
    ],
    "detectron2.tracking.hungarian_tracker": [
        "BaseHungarianTracker",
        "BaseTracker",
        "Boxes",
        "CfgNode_",
        "Instances",
        "configurable",
    ],
    "detectron2.tracking.iou_weighted_hungarian_bbox_iou_tracker": [
        "CfgNode_",
        "IOUWeightedHungarianBBoxIOUTracker",
        "VanillaHungarianBBoxIOUTracker",
        "configurable",
    ],
    "detectron2.tracking.utils": ["Instances", "LARGE_COST_VALUE", "create_prediction_pairs"],
    "detectron2.tracking.vanilla_hungarian_bbox_iou_tracker": [
        "BaseHungarianTracker",
        "CfgNode_",
        "Instances",
        "LARGE_COST_VALUE",
        "VanillaHungarianBBoxIOUTracker",
        "configurable",
        "create_prediction_pairs",
        "pairwise_iou",
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
    "detectron2.data.transforms.AugInput": "image *boxes= *sem_seg=",
    "detectron2.data.transforms.ExtentTransform": "src_rect output_size interp= fill=",
    "detectron2.data.transforms.FixedSizeCrop": "crop_size pad= pad_value= seg_pad_value=",
    "detectron2.data.transforms.MinIoURandomCrop": (
        "min_ious= min_crop_size= mode_trials= crop_trials="
    ),
    "detectron2.data.transforms.RandomCrop_CategoryAreaConstraint": (
        "crop_type crop_size single_category_max_area= ignored_category="
    ),
    "detectron2.data.transforms.RandomFlip": "prob= *horizontal= *vertical=",
    "detectron2.data.transforms.RandomRotation": "angle expand= center= sample_style= interp=",
    "detectron2.data.transforms.ResizeScale": (
        "min_scale max_scale target_height target_width interp="
    ),
    "detectron2.data.transforms.ResizeShortestEdge": (
        "short_edge_length max_size= sample_style= interp="
    ),
    "detectron2.data.transforms.ResizeTransform": "h w new_h new_w interp=",
    "detectron2.data.transforms.RotationTransform": "h w angle expand= center= interp=",
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
    "detectron2.model_zoo.get": "config_path trained= device=",
    "detectron2.model_zoo.get_checkpoint_url": "config_path",
    "detectron2.model_zoo.get_config": "config_path trained=",
    "detectron2.model_zoo.get_config_file": "config_path",
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
