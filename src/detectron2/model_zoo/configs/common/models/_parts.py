# Parts that several models are made of.

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNOutputLayers

FPN_WIDTH = 256
PYRAMID = ["p2", "p3", "p4", "p5"]  # p6 has anchors, but no RoI is pooled from it
ASPECT_RATIOS = [0.5, 1.0, 2.0]


def resnet50(out_features):
    norm = "FrozenBN"
    stem = L(BasicStem)(in_channels=3, out_channels=64, norm=norm)
    stages = L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm=norm)
    return L(ResNet)(stem=stem, stages=stages, out_features=out_features)


def resnet50_fpn():
    return L(FPN)(
        bottom_up=resnet50(["res2", "res3", "res4", "res5"]),
        in_features="${.bottom_up.out_features}",
        out_channels=FPN_WIDTH,
        top_block=L(LastLevelMaxPool)(),
    )


def box_deltas(x, y, width, height):
    return L(Box2BoxTransform)(weights=[x, y, width, height])


def rpn(in_features, channels, sizes, strides, pre_nms_topk, post_nms_topk):
    return L(RPN)(
        in_features=in_features,
        head=L(StandardRPNHead)(
            in_channels=channels, num_anchors=len(sizes[0]) * len(ASPECT_RATIOS)
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=sizes, aspect_ratios=ASPECT_RATIOS, strides=strides, offset=0.0
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=box_deltas(1.0, 1.0, 1.0, 1.0),
        batch_size_per_image=256,
        positive_fraction=0.5,
        # In training, in testing.
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        nms_thresh=0.7,
    )


def fpn_rpn():
    return rpn(
        in_features=[*PYRAMID, "p6"],
        channels=FPN_WIDTH,
        sizes=[[32], [64], [128], [256], [512]],
        strides=[4, 8, 16, 32, 64],
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
    )


def roi_matcher(iou=0.5):
    return L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)


def roi_pooler(output_size, strides=(4, 8, 16, 32)):
    return L(ROIPooler)(
        output_size=output_size,
        scales=tuple(1.0 / stride for stride in strides),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    )


def pooled_shape(side):
    return ShapeSpec(channels=FPN_WIDTH, height=side, width=side)


def box_predictor(input_shape, num_classes="${..num_classes}"):
    return L(FastRCNNOutputLayers)(
        input_shape=input_shape,
        num_classes=num_classes,
        box2box_transform=box_deltas(10, 10, 5, 5),
        test_score_thresh=0.05,
    )
