"""Configurations of the projects' models, as small as they get where a test is not about sizes."""

import torch
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model


def set_values(cfg: CfgNode, values: dict) -> None:
    """Set values by the names of their keys, with dots."""
    for name, value in values.items():
        *path, key = name.split(".")
        node = cfg
        for part in path:
            node = node[part]
        node[key] = value


def make_config(add_keys, *all_values: dict) -> CfgNode:
    cfg = get_cfg()
    add_keys(cfg)
    for values in all_values:
        set_values(cfg, values)
    return cfg


def build_on_meta(cfg: CfgNode) -> nn.Module:
    """The model without memory for its parameters."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def head_shapes(model: nn.Module, prefix: str) -> dict[str, list[int]]:
    """Shapes of a head's state by name, but for the parts of norms."""
    return {
        name.removeprefix(prefix): list(value.shape)
        for name, value in model.state_dict().items()
        if name.startswith(prefix) and ".norm." not in name
    }


FPN_OF_R50 = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
}

DEEPLAB_ON_CITYSCAPES = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 128,
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.NORM": "SyncBN",
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [512, 1024],
}

SMALL_RESNET = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
}

SMALL_FPN = {
    **FPN_OF_R50,
    **SMALL_RESNET,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.FPN.NORM": "BN",
}


def check_training_step(model: nn.Module, batch: list[dict], names: set[str]) -> dict:
    """The losses have these names, and each changes some parameters, and all of them together all
    of the parameters."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = model(batch)
    assert set(losses) == names
    values = {name: loss.item() for name, loss in losses.items()}
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    optimizer.step()
    return values
