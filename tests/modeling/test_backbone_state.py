"""Names, shapes, dtypes and order of the state dicts of the published models' backbones."""

import functools
import hashlib

import pytest
import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.modeling import (
    FPN,
    MViT,
    ResNet,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
    build_backbone,
)
from detectron2.modeling.backbone import BasicStem, RegNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

STAGES = ["res2", "res3", "res4", "res5"]


def from_config(pyramid="", in_features=STAGES, fpn_norm="", **options):
    cfg = get_cfg()
    if pyramid:
        cfg.MODEL.BACKBONE.NAME = f"build_{pyramid}_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = in_features
        cfg.MODEL.FPN.NORM = fpn_norm
    for name, value in options.items():
        setattr(cfg.MODEL.RESNETS, name, value)
    return build_backbone(cfg)


resnet_fpn = functools.partial(from_config, "resnet_fpn")
retinanet = functools.partial(from_config, "retinanet_resnet_fpn", STAGES[1:])

X101 = {"DEPTH": 101, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "STRIDE_IN_1X1": False}
DC5 = {"OUT_FEATURES": ["res5"], "RES5_DILATION": 2}
DEFORM = {"DEFORM_ON_PER_STAGE": [False, True, True, True]}
LN = functools.partial(nn.LayerNorm, eps=1e-6)


def fcos():
    stages = ResNet.make_default_stages(50, stride_in_1x1=True, norm="FrozenBN")
    bottom_up = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=STAGES[1:])
    return FPN(bottom_up, STAGES[1:], 256, top_block=LastLevelP6P7(256, 256, "p5"))


def resnet101_syncbn():
    stages = ResNet.make_default_stages(101, stride_in_1x1=False, norm="SyncBN")
    bottom_up = ResNet(BasicStem(norm="SyncBN"), stages, out_features=STAGES)
    return FPN(bottom_up, STAGES, 256, norm="SyncBN", top_block=LastLevelMaxPool())


def regnet(norm, fpn_norm="", **options):
    names = ["s1", "s2", "s3", "s4"]
    bottom_up = RegNet(
        stem_class=SimpleStem,
        stem_width=32,
        block_class=ResBottleneckBlock,
        w_0=96,
        norm=norm,
        out_features=names,
        **options,
    )
    return FPN(bottom_up, names, 256, norm=fpn_norm, top_block=LastLevelMaxPool())


X4GF = {"depth": 23, "w_a": 38.65, "w_m": 2.43, "group_width": 40}
Y4GF = {"depth": 22, "w_a": 31.41, "w_m": 2.24, "group_width": 64, "se_ratio": 0.25}


def mvit(norm="", **options):
    names = ["scale2", "scale3", "scale4", "scale5"]
    return FPN(MViT(norm_layer=LN, **options), names, 256, norm, LastLevelMaxPool())


MVIT = {
    "t": {"depth": 10, "last_block_indexes": (0, 2, 7, 9)},
    "s": {"depth": 16, "last_block_indexes": (0, 2, 13, 15)},
    "b": {"depth": 24, "last_block_indexes": (1, 4, 20, 23)},
    "l": {"depth": 48, "embed_dim": 144, "num_heads": 2, "last_block_indexes": (1, 7, 43, 47)},
    "h": {"depth": 80, "embed_dim": 192, "num_heads": 3, "last_block_indexes": (3, 11, 71, 79)},
}


def swin(embed_dim, first_heads):
    heads = [first_heads * 2**i for i in range(4)]
    bottom_up = SwinTransformer(embed_dim=embed_dim, depths=(2, 2, 18, 2), num_heads=heads)
    return FPN(bottom_up, ["p0", "p1", "p2", "p3"], 256, "LN", LastLevelMaxPool(), square_pad=1024)


def vitdet(embed_dim, depth, num_heads):
    every = depth // 4
    net = ViT(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        norm_layer=LN,
        use_rel_pos=True,
        window_size=14,
        window_block_indexes=[i for i in range(depth) if (i + 1) % every],
    )
    scales = (4.0, 2.0, 1.0, 0.5)
    return SimpleFeaturePyramid(net, "last_feat", 256, scales, LastLevelMaxPool(), square_pad=1024)


# How many tensors there are, and a digest of the lines "name [sizes] dtype".
MODELS = {
    "R50 C4": (from_config, 215, "d4a3c5dac23c"),
    "R101 C4": (lambda: from_config(DEPTH=101), 470, "c68734680a90"),
    "R50 DC5": (lambda: from_config(**DC5), 265, "62a2b655201a"),
    "R101 DC5": (lambda: from_config(DEPTH=101, **DC5), 520, "37164dd56180"),
    "R18 FPN": (lambda: resnet_fpn(DEPTH=18, RES2_OUT_CHANNELS=64), 116, "be33776a2263"),
    "R34 FPN": (lambda: resnet_fpn(DEPTH=34, RES2_OUT_CHANNELS=64), 196, "6d9704ece935"),
    "R50 FPN": (resnet_fpn, 281, "d13f04a0f519"),
    "R101 FPN": (lambda: resnet_fpn(DEPTH=101), 536, "4aafc53502d4"),
    "X101 FPN": (lambda: resnet_fpn(**X101), 536, "9ec6d5401a81"),
    "R50 FPN, GN there": (lambda: resnet_fpn(fpn_norm="GN"), 289, "b79bab1100a8"),
    "R50 FPN, BN": (lambda: resnet_fpn(NORM="BN"), 334, "d96ab5aa9e97"),
    "R50 FPN, GN": (lambda: resnet_fpn(fpn_norm="GN", NORM="GN"), 183, "a5e61db9c306"),
    "R50 FPN, SyncBN": (lambda: resnet_fpn(fpn_norm="SyncBN", NORM="SyncBN"), 366, "67e91e208ff3"),
    "R101 FPN, SyncBN": (resnet101_syncbn, 672, "a356e8a56a3f"),
    "R50 FPN, deformable": (lambda: resnet_fpn(**DEFORM), 307, "2b21ae9e3fee"),
    "R50 FPN, deformable in groups": (
        lambda: resnet_fpn(DEFORM_NUM_GROUPS=2, **DEFORM),
        307,
        "873405873b6b",
    ),
    "R101 FPN, GN, deformable": (
        lambda: resnet_fpn(fpn_norm="GN", DEPTH=101, NORM="GN", **DEFORM),
        396,
        "4ad004be9200",
    ),
    "X152 FPN, deformable": (
        lambda: resnet_fpn(**{**X101, "DEPTH": 152}, **DEFORM),
        885,
        "67f4a5d6ad2e",
    ),
    "R50 RetinaNet": (retinanet, 281, "180924ec48b9"),
    "R101 RetinaNet": (lambda: retinanet(DEPTH=101), 536, "fbf6797a5ccc"),
    "R50 RetinaNet, BN there": (lambda: retinanet(fpn_norm="BN"), 305, "23423fab079d"),
    "FCOS": (fcos, 281, "e0fa8755ca54"),
    "RegNetX": (lambda: regnet("FrozenBN", freeze_at=2, **X4GF), 386, "22e5227fc606"),
    "RegNetX, SyncBN": (lambda: regnet("SyncBN", "SyncBN", **X4GF), 492, "43e9ec66699a"),
    "RegNetY": (lambda: regnet("FrozenBN", freeze_at=2, **Y4GF), 459, "08b352ee1a4c"),
    "RegNetY, SyncBN": (lambda: regnet("SyncBN", "SyncBN", **Y4GF), 562, "4e57f5f4060f"),
    "MViTv2-T": (lambda: mvit(**MVIT["t"]), 262, "47b75a2c8ea3"),
    "MViTv2-S": (lambda: mvit(**MVIT["s"]), 400, "bae5123a65e5"),
    "MViTv2-B": (lambda: mvit(**MVIT["b"]), 584, "3af48c611122"),
    "MViTv2-L": (lambda: mvit(**MVIT["l"]), 1136, "33260b5b5622"),
    "MViTv2-H": (lambda: mvit(**MVIT["h"]), 1872, "f313961ff226"),
    "MViTv2-B, LN": (lambda: mvit("LN", **MVIT["b"]), 592, "bb2927530440"),
    "Swin-B": (lambda: swin(128, 4), 381, "e82502b34bae"),
    "Swin-L": (lambda: swin(192, 6), 381, "f3cda98c890b"),
    "ViTDet-B": (lambda: vitdet(768, 12, 12), 203, "94daf0375a77"),
    "ViTDet-L": (lambda: vitdet(1024, 24, 16), 371, "4b7a9c15e60d"),
    "ViTDet-H": (lambda: vitdet(1280, 32, 16), 483, "d95e979999be"),
}


@pytest.mark.parametrize("name", MODELS)
def test_state_dict(name):
    make, count, digest = MODELS[name]
    with torch.device("meta"):
        state = make().state_dict()
    assert len(state) == count
    lines = [
        f"{name} {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state.items()
    ]
    assert hashlib.sha1("\n".join(lines).encode()).hexdigest()[:12] == digest
