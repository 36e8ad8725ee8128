"""Small models of the library's own modules, whose inference CUDA graphs can replay."""

import torch

from detectron2.config import get_cfg
from detectron2.modeling import (
    FPN,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
    build_backbone,
    build_model,
)
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

_FPN = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 100),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14),
]
_DENSE = [
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
    *("MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0),
]
_SMALL = [
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", 20),
    *(
        "MODEL.RESNETS.DEPTH",
        18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS",
        64,
        "MODEL.FPN.OUT_CHANNELS",
        32,
    ),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (32,), "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
]
_OPTIONS = {
    "mask": [*_FPN, "MODEL.MASK_ON", True],
    "keypoint": [*_FPN, "MODEL.KEYPOINT_ON", True, "MODEL.ROI_HEADS.NUM_CLASSES", 1],
    "cascade": [
        *_FPN,
        *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
    ],
    "panoptic": [*_FPN, "MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.MASK_ON", True],
    "retinanet": [*_DENSE, "MODEL.META_ARCHITECTURE", "RetinaNet"],
}


def _make_vit():
    net = ViT(
        img_size=128,
        embed_dim=64,
        depth=3,
        num_heads=4,
        window_size=4,
        window_block_indexes=[0, 1],
        residual_block_indexes=[],
        use_rel_pos=True,
        out_feature="last_feat",
    )
    scales = (4.0, 2.0, 1.0, 0.5)
    return SimpleFeaturePyramid(
        net, "last_feat", 32, scales, top_block=LastLevelMaxPool(), norm="LN", square_pad=128
    )


def _make_swin():
    net = SwinTransformer(embed_dim=32, depths=[2, 2, 2, 2], num_heads=[2, 2, 4, 4], window_size=4)
    return FPN(net, ("p0", "p1", "p2", "p3"), 32, top_block=LastLevelMaxPool())


_BACKBONES = {"vit": _make_vit, "swin": _make_swin}
KINDS = [*_OPTIONS, "fcos", *_BACKBONES]


def make_model(kind, device):
    """A model of random weights in evaluation mode."""
    cfg = get_cfg()
    like = "retinanet" if kind == "fcos" else "mask" if kind in _BACKBONES else kind
    cfg.merge_from_list([*_SMALL, *_OPTIONS[like]])
    torch.manual_seed(0)
    model = _make_fcos(cfg) if kind == "fcos" else build_model(cfg)
    if kind in _BACKBONES:
        model.backbone = _BACKBONES[kind]()
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name.startswith(("head.", "proposal_generator.", "roi_heads.")) and x.dim() > 1:
                x.normal_(std=0.5 * x[0].numel() ** -0.5)
            if "fpn_lateral" in name or ".p6." in name:
                x.mul_(0.005)  # Frozen norms that were not trained let features grow.
    return model.eval().to(device)


def _make_fcos(cfg):
    backbone = build_backbone(cfg)
    levels = list(backbone.output_shape().values())
    return FCOS(
        backbone=backbone,
        head=FCOSHead(input_shape=levels, num_classes=5, conv_dims=[32]),
        num_classes=5,
        test_score_thresh=0.0,
        max_detections_per_image=20,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


def make_inputs(seed=0, size=(96, 128), count=1):
    """Images of noise for a model."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    return [{"image": image, "height": 2 * size[0], "width": 2 * size[1]} for image in images]


def as_tensors(results):
    """All tensors of a model's results, in order."""
    tensors = []
    for result in results:
        for value in result.values():
            if isinstance(value, torch.Tensor):
                tensors.append(value)
            elif isinstance(value, tuple):
                tensors.append(value[0])
            else:
                fields = value.get_fields()
                tensors += [getattr(fields[k], "tensor", fields[k]) for k in sorted(fields)]
    return tensors
