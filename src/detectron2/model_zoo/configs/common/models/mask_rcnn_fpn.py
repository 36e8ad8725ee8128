from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)

from ..data.constants import constants
from ._parts import (
    PYRAMID,
    box_predictor,
    fpn_rpn,
    pooled_shape,
    resnet50_fpn,
    roi_matcher,
    roi_pooler,
)

_roi_heads = L(StandardROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=roi_matcher(),
    box_in_features=PYRAMID,
    box_pooler=roi_pooler(7),
    box_head=L(FastRCNNConvFCHead)(input_shape=pooled_shape(7), conv_dims=[], fc_dims=[1024, 1024]),
    box_predictor=box_predictor(ShapeSpec(channels=1024)),
    mask_in_features=PYRAMID,
    mask_pooler=roi_pooler(14),
    # Four convolutions of this width, and a deconvolution.
    mask_head=L(MaskRCNNConvUpsampleHead)(
        input_shape=pooled_shape(14), num_classes="${..num_classes}", conv_dims=[256] * 5
    ),
)

model = L(GeneralizedRCNN)(
    backbone=resnet50_fpn(),
    proposal_generator=fpn_rpn(),
    roi_heads=_roi_heads,
    input_format="BGR",
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
)
