from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, Res5ROIHeads

from ..data.constants import constants
from ._parts import box_predictor, resnet50, roi_matcher, roi_pooler, rpn

# The last stage of the ResNet works on each RoI.
_res5 = L(ResNet.make_stage)(
    block_class=BottleneckBlock,
    num_blocks=3,
    stride_per_block=[2, 1, 1],
    stride_in_1x1=True,
    in_channels=1024,
    bottleneck_channels=512,
    out_channels=2048,
    norm="FrozenBN",
)

_roi_heads = L(Res5ROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=roi_matcher(),
    in_features=["res4"],
    pooler=roi_pooler(14, strides=(16,)),
    res5=_res5,
    box_predictor=box_predictor(
        L(ShapeSpec)(channels="${...res5.out_channels}", height=1, width=1)
    ),
    mask_head=L(MaskRCNNConvUpsampleHead)(
        input_shape=L(ShapeSpec)(
            channels="${...res5.out_channels}",
            height="${...pooler.output_size}",
            width="${...pooler.output_size}",
        ),
        num_classes="${..num_classes}",
        conv_dims=[256],
    ),
)

model = L(GeneralizedRCNN)(
    backbone=resnet50(["res4"]),
    proposal_generator=rpn(
        in_features=["res4"],
        channels=1024,
        sizes=[[32, 64, 128, 256, 512]],
        strides=[16],
        pre_nms_topk=(12000, 6000),
        post_nms_topk=(2000, 1000),
    ),
    roi_heads=_roi_heads,
    input_format="BGR",
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
)
