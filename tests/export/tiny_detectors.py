"""Detectors of few and narrow layers, whose random weights detect something."""

import functools

import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.export import export_program
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes

SIZES = [(64, 80), (100, 75), (96, 131)]
"""The first is the example's."""

FIELDS_OF_MASK_RCNN = {
    "proposal_boxes": Boxes,
    "objectness_logits": torch.Tensor,
    "pred_boxes": Boxes,
    "scores": torch.Tensor,
    "pred_classes": torch.Tensor,
    "pred_masks": torch.Tensor,
}
"""For `scripting_with_instances`."""

_NAMES = ["p2", "p3", "p4"]


class TinyPyramid(Backbone):
    """Maps of stride 4, 8 and 16."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)]
        )

    def forward(self, x):
        features = {}
        for i, conv in enumerate(self.convs):
            x = torch.relu(conv(x))
            features[f"p{i + 2}"] = x
        return features

    def output_shape(self):
        return {name: ShapeSpec(channels=8, stride=4 * 2**i) for i, name in enumerate(_NAMES)}

    @property
    def size_divisibility(self):
        return 16


@BACKBONE_REGISTRY.register()
def build_tiny_pyramid(cfg, input_shape):
    return TinyPyramid()


def _config(kind):
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.BACKBONE.NAME = "build_tiny_pyramid"
    model.PIXEL_STD = [58.0, 57.0, 57.5]
    model.ANCHOR_GENERATOR.SIZES = [[16], [32], [48]]
    model.RPN.IN_FEATURES = model.ROI_HEADS.IN_FEATURES = _NAMES
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = 100, 30
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.NUM_CLASSES = model.RETINANET.NUM_CLASSES = 3
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.2
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.FC_DIM = 1, 16
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 4
    model.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    model.ROI_MASK_HEAD.NUM_CONV, model.ROI_MASK_HEAD.CONV_DIM = 1, 8
    model.ROI_MASK_HEAD.POOLER_RESOLUTION = 4
    model.ROI_KEYPOINT_HEAD.CONV_DIMS = [8]
    model.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION = 4
    model.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 4
    model.SEM_SEG_HEAD.IN_FEATURES, model.SEM_SEG_HEAD.CONVS_DIM = _NAMES, 8
    model.SEM_SEG_HEAD.NUM_CLASSES, model.SEM_SEG_HEAD.NORM = 5, ""
    model.RETINANET.IN_FEATURES, model.RETINANET.NUM_CONVS = _NAMES, 1
    model.RETINANET.SCORE_THRESH_TEST, model.RETINANET.TOPK_CANDIDATES_TEST = 0.01, 40
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    model.MASK_ON = kind in ("mask", "panoptic")
    model.KEYPOINT_ON = kind == "keypoint"
    if kind == "panoptic":
        model.META_ARCHITECTURE = "PanopticFPN"
    elif kind == "proposals":
        model.META_ARCHITECTURE = "ProposalNetwork"
    elif kind == "retinanet":
        model.META_ARCHITECTURE = "RetinaNet"
    return cfg


def _fcos():
    head = FCOSHead(
        input_shape=[ShapeSpec(channels=8)] * 3, num_classes=3, conv_dims=[8], prior_prob=0.3
    )
    return FCOS(
        backbone=TinyPyramid(),
        head=head,
        head_in_features=_NAMES,
        num_classes=3,
        pixel_mean=[103.0, 116, 123],
        pixel_std=[58.0, 57, 57.5],
        test_score_thresh=0.2,
        test_topk_candidates=40,
        max_detections_per_image=20,
    )


def make_detector(kind, seed=0):
    """``kind``: faster, mask, keypoint, panoptic, proposals, retinanet or fcos."""
    torch.manual_seed(seed)
    model = _fcos() if kind == "fcos" else build_model(_config(kind))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Those of predictors are so small that all predictions are alike.
            if parameter.dim() > 1 and "convs" not in name:
                fan_in = parameter[0].numel()
                parameter.normal_(
                    std=(0.3 if "bbox" in name or "deltas" in name else 2) / fan_in**0.5
                )
    return model.eval()


@functools.lru_cache
def exported_detector(kind, device="cpu"):
    """A detector and its program, which takes one image: made once, and not to be changed."""
    model = make_detector(kind).to(device)
    return model, export_program(model, [{"image": image(SIZES[0]).to(device)}])


def image(size, seed=0):
    """Coarse random blocks ``(3, H, W)``."""
    generator = torch.Generator().manual_seed(1000 * size[0] + size[1] + seed)
    height, width = size
    blocks = torch.rand(3, height // 8 + 1, width // 8 + 1, generator=generator) * 255
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()


def assert_alike(leaves, wanted, atol=2e-3):
    """Flat outputs, equal to tolerance in shape and value."""
    assert len(leaves) == len(wanted)
    for x, y in zip(leaves, wanted, strict=True):
        assert x.shape == y.shape
        torch.testing.assert_close(x.float(), y.float(), atol=atol, rtol=1e-3)
