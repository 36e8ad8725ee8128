"""The models whose state dicts are known, and summaries of state dicts that fit into a small file.

A state dict is cut into parts, such as ``backbone.bottom_up.res2``, in the order of the tensors.
A digest of a part stands for its tensors: names, shapes, dtypes, order, and which are buffers.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import nn

from detectron2 import model_zoo
from detectron2.config import CfgNode, instantiate
from detectron2.data.detection_utils import get_fed_loss_cls_weights
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.modeling import MViT, SwinTransformer, build_model

# The part of the buffers that checkpoints do not have.
NOT_SAVED = "(not saved)"


class Part(NamedTuple):
    prefix: str
    tensors: list[str]
    """Name, dtype, shape, and "buffer" for what is no parameter."""
    elements: int

    def summary(self) -> tuple[str, str, int, int]:
        """Digest, prefix, number of tensors, number of elements."""
        text = "\n".join(self.tensors)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return digest, self.prefix, len(self.tensors), self.elements


def parts(model: nn.Module) -> Iterator[Part]:
    state = model.state_dict()
    buffers = dict(model.named_buffers())
    for prefix, group in itertools.groupby(state.items(), lambda item: _prefix(item[0])):
        yield _part(prefix, group, buffers)
    not_saved = [(name, tensor) for name, tensor in buffers.items() if name not in state]
    if not_saved:
        yield _part(NOT_SAVED, not_saved, buffers)


def _part(prefix: str, tensors: Any, buffers: dict[str, torch.Tensor]) -> Part:
    lines, elements = [], 0
    for name, tensor in tensors:
        kind = " buffer" if name in buffers else ""
        dtype = str(tensor.dtype).removeprefix("torch.")
        lines.append(f"{name} {dtype} {list(tensor.shape)}{kind}")
        elements += tensor.numel()
    return Part(prefix, lines, elements)


def _prefix(name: str) -> str:
    """``backbone.bottom_up.res2`` of ``backbone.bottom_up.res2.0.conv1.weight``."""
    components = name.split(".")
    depth = 3 if components[1] in ("bottom_up", "net") else 2
    # All lateral and output convolutions of a pyramid are one part.
    return re.sub(r"fpn_(lateral|output)\d$", "fpn", ".".join(components[:depth]))


def build(name: str) -> nn.Module:
    """Build a model on the meta device, where it takes no memory.

    Args:
        name: path of a config of the zoo, key of ``VARIANTS``, or path of a project's config.
    """
    # One config makes its model while it is loaded.
    with torch.device("meta"):
        if name.startswith(("ViTDet/", "MViTv2/")):
            return instantiate(_project_model(name))
        config, overrides = VARIANTS.get(name, (name, {}))
        cfg = model_zoo.get_config(config)
        if not isinstance(cfg, CfgNode):
            return instantiate(cfg.model)
        cfg.merge_from_list([item for pair in overrides.items() for item in pair])
        cfg.MODEL.DEVICE = "meta"
        return build_model(cfg)


_FASTER_RCNN = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
_RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
_MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"


def _rotated(*angles: int) -> dict[str, Any]:
    return {
        "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
        "MODEL.ANCHOR_GENERATOR.ANGLES": [[*angles]],
        "MODEL.PROPOSAL_GENERATOR.NAME": "RRPN",
        "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0] * 5,
        "MODEL.ROI_HEADS.NAME": "RROIHeads",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0, 1.0],
    }


# What no config of the zoo asks for.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "C4_cls_agnostic": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
        {
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
        },
    ),
    "R_18_FPN": (
        _FASTER_RCNN,
        {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64},
    ),
    "R_34_FPN": (
        _FASTER_RCNN,
        {"MODEL.RESNETS.DEPTH": 34, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64},
    ),
    "R_50_bn": (_FASTER_RCNN, {"MODEL.RESNETS.NORM": "BN"}),
    "R_50_deform_v1_groups2": (
        _FASTER_RCNN,
        {
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True],
            "MODEL.RESNETS.DEFORM_MODULATED": False,
            "MODEL.RESNETS.DEFORM_NUM_GROUPS": 2,
        },
    ),
    "box_cls_agnostic": (_FASTER_RCNN, {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}),
    "box_head_4conv1fc_gn": (
        _FASTER_RCNN,
        {
            "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
            "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
            "MODEL.ROI_BOX_HEAD.NORM": "GN",
        },
    ),
    "class_embed_fed_loss_lvis": (
        _MASK_RCNN,
        {
            "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
            "DATASETS.TRAIN": ["lvis_v1_train"],
        },
    ),
    "fpn_gn": (_FASTER_RCNN, {"MODEL.FPN.NORM": "GN"}),
    "freeze_at_0": (_FASTER_RCNN, {"MODEL.BACKBONE.FREEZE_AT": 0}),
    "freeze_at_5": (_FASTER_RCNN, {"MODEL.BACKBONE.FREEZE_AT": 5}),
    "keypoint_with_mask": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        {"MODEL.MASK_ON": True},
    ),
    "mask_cls_agnostic": (_MASK_RCNN, {"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True}),
    "resnet_only_retinanet_res5_p6": (_RETINANET, {"MODEL.FPN.NORM": "BN"}),
    "retinanet_bn_heads": (_RETINANET, {"MODEL.RETINANET.NORM": "BN"}),
    "retinanet_gn_heads": (_RETINANET, {"MODEL.RETINANET.NORM": "GN"}),
    "retinanet_syncbn_heads": (_RETINANET, {"MODEL.RETINANET.NORM": "SyncBN"}),
    "rotated_rcnn_R_50_FPN": (_FASTER_RCNN, _rotated(-90, 0, 90)),
    "rotated_rcnn_R_50_FPN_1angle": (_FASTER_RCNN, _rotated(0)),
    "rpn_conv_dims_2": (_FASTER_RCNN, {"MODEL.RPN.CONV_DIMS": [-1, -1]}),
}

# Width, depth, heads, and the blocks that attend globally.
_VIT = {
    "b": (768, 12, 12, (2, 5, 8, 11)),
    "l": (1024, 24, 16, (5, 11, 17, 23)),
    "h": (1280, 32, 16, (7, 15, 23, 31)),
}
# Width and heads of the first stage; each next one has twice as many.
_SWIN = {"b": (128, 4), "l": (192, 6)}
# Width, heads, depth, and the last blocks of the stages.
_MVIT = {
    "t": (96, 1, 10, [0, 2, 7, 9]),
    "s": (96, 1, 16, [0, 2, 13, 15]),
    "b": (96, 1, 24, [1, 4, 20, 23]),
    "l": (144, 2, 48, [1, 7, 43, 47]),
    "h": (192, 3, 80, [3, 11, 71, 79]),
}


def _project_model(name: str) -> DictConfig:
    """Detectors with transformers, by the path of a config of the projects ViTDet and MViTv2."""
    family, size = re.search(r"(vitdet|swin|mvitv2)_(\w)", name).groups()
    cascade = "cascade" in name
    model = _zoo_model("cascade_rcnn" if cascade else "mask_rcnn_fpn")
    if family == "vitdet":
        model.backbone = _zoo_model("mask_rcnn_vitdet").backbone
        width, depth, heads, global_blocks = _VIT[size]
        model.backbone.net.update(
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            window_block_indexes=[i for i in range(depth) if i not in global_blocks],
        )
    elif family == "swin":
        width, heads = _SWIN[size]
        model.backbone.bottom_up = {
            "_target_": SwinTransformer,
            "embed_dim": width,
            "depths": [2, 2, 18, 2],
            "num_heads": [heads, heads * 2, heads * 4, heads * 8],
        }
        model.backbone.in_features = ["p0", "p1", "p2", "p3"]
    else:
        width, heads, depth, last_blocks = _MVIT[size]
        model.backbone.bottom_up = {
            "_target_": MViT,
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "last_block_indexes": last_blocks,
            "residual_pooling": True,
            "out_features": ["scale2", "scale3", "scale4", "scale5"],
        }
        model.backbone.in_features = "${.bottom_up.out_features}"
    if name.startswith("ViTDet/"):
        model.backbone.update(norm="LN", square_pad=1024)
        _use_larger_heads(model, "LN")
    elif cascade:
        _use_larger_heads(model, lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"))
    if "/LVIS/" in name:
        _use_lvis_classes(model)
    return model


def _zoo_model(name: str) -> DictConfig:
    return model_zoo.get_config(f"common/models/{name}.py").model


def _use_larger_heads(model: DictConfig, norm: Any) -> None:
    heads = model.roi_heads
    model.proposal_generator.head.conv_dims = [-1, -1]
    for box_head in heads.box_heads if "box_heads" in heads else [heads.box_head]:
        box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm=norm)
    heads.mask_head.conv_norm = norm


def _use_lvis_classes(model: DictConfig) -> None:
    heads = model.roi_heads
    heads.num_classes = 1203
    for predictor in heads.box_predictors if "box_predictors" in heads else [heads.box_predictor]:
        predictor.update(
            num_classes=1203,
            use_sigmoid_ce=True,
            use_fed_loss=True,
            get_fed_loss_cls_weights=lambda: get_fed_loss_cls_weights("lvis_v1_train", 0.5),
        )
