# RegNets of 4 GFLOP: Radosavovic et al., "Designing Network Design Spaces", CVPR 2020.

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem


def regnetx_4gf(norm):
    return _regnet(norm, depth=23, w_a=38.65, w_0=96, w_m=2.43, group_width=40)


def regnety_4gf(norm):
    return _regnet(norm, depth=22, w_a=31.41, w_0=96, w_m=2.24, group_width=64, se_ratio=0.25)


def _regnet(norm, **widths):
    return L(RegNet)(
        stem_class=SimpleStem,
        stem_width=32,
        block_class=ResBottleneckBlock,
        norm=norm,
        out_features=["s1", "s2", "s3", "s4"],
        **widths,
    )


def use_regnet(model, bottom_up):
    model.backbone.bottom_up = bottom_up
    # Of RGB these are the deviations of ImageNet; the weights were trained with BGR.
    model.pixel_std = [57.375, 57.12, 58.395]
