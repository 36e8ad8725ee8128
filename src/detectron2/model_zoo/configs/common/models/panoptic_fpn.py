from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

from ._parts import PYRAMID
from .mask_rcnn_fpn import model

model._target_ = PanopticFPN
# COCO's 53 kinds of stuff, and all things as one class.
model.sem_seg_head = L(SemSegFPNHead)(
    num_classes=54,
    ignore_value=255,
    input_shape={
        name: L(ShapeSpec)(channels="${....backbone.out_channels}", stride=4 * 2**level)
        for level, name in enumerate(PYRAMID)
    },
    conv_dims=128,
    common_stride=4,
    norm="GN",
    loss_weight=0.5,
)
