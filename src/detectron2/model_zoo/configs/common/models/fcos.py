from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

from .retinanet import model

# What RetinaNet has and FCOS has not, which is free of anchors.
for _name in ("anchor_generator", "anchor_matcher", "box2box_transform", "input_format"):
    del model[_name]
del model.head["num_anchors"]

model.update(_target_=FCOS, test_score_thresh=0.2, test_nms_thresh=0.6)
model.head.update(_target_=FCOSHead, norm="GN")
# The extra levels come from the pyramid's top, not from the backbone's.
model.backbone.top_block.update(in_channels=256, in_feature="p5")
