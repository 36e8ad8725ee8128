from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
)

from ._parts import box_deltas, pooled_shape, roi_matcher
from .mask_rcnn_fpn import model

# Each stage's IoU for foreground; the better the boxes, the smaller the deltas that are left.
_stages = [(0.5, (10, 10, 5, 5)), (0.6, (20, 20, 10, 10)), (0.7, (30, 30, 15, 15))]

for _name in ("box_head", "box_predictor", "proposal_matcher"):
    del model.roi_heads[_name]

model.roi_heads.update(
    _target_=CascadeROIHeads,
    box_heads=[
        L(FastRCNNConvFCHead)(input_shape=pooled_shape(7), conv_dims=[], fc_dims=[1024, 1024])
        for _ in _stages
    ],
    # Written out: an interpolation in a list has no relative path to num_classes.
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=ShapeSpec(channels=1024),
            num_classes=80,
            cls_agnostic_bbox_reg=True,
            box2box_transform=box_deltas(*weights),
            test_score_thresh=0.05,
        )
        for _, weights in _stages
    ],
    proposal_matchers=[roi_matcher(iou) for iou, _ in _stages],
)
