from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead

from ..data.constants import constants
from ._parts import ASPECT_RATIOS, FPN_WIDTH, box_deltas, resnet50

_levels = ["p3", "p4", "p5", "p6", "p7"]
# Three sizes an octave, and three aspect ratios.
_sizes = [[base, base * 2 ** (1.0 / 3), base * 2 ** (2.0 / 3)] for base in (32, 64, 128, 256, 512)]

_backbone = L(FPN)(
    bottom_up=resnet50(["res3", "res4", "res5"]),
    in_features=["res3", "res4", "res5"],
    out_channels=FPN_WIDTH,
    top_block=L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}"),
)

model = L(RetinaNet)(
    backbone=_backbone,
    head=L(RetinaNetHead)(
        input_shape=[ShapeSpec(channels=FPN_WIDTH) for _ in _levels],
        num_classes="${..num_classes}",
        num_anchors=9,
        conv_dims=[FPN_WIDTH] * 4,
        prior_prob=0.01,
    ),
    head_in_features=_levels,
    num_classes=80,
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=_sizes, aspect_ratios=ASPECT_RATIOS, strides=[8, 16, 32, 64, 128], offset=0.0
    ),
    anchor_matcher=L(Matcher)(
        thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    box2box_transform=box_deltas(1.0, 1.0, 1.0, 1.0),
    focal_loss_alpha=0.25,
    focal_loss_gamma=2.0,
    input_format="BGR",
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
)
