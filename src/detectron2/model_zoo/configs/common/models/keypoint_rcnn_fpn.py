from detectron2.config import LazyCall as L
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead

from ._parts import PYRAMID, pooled_shape, roi_pooler
from .mask_rcnn_fpn import model

for _name in ("mask_in_features", "mask_pooler", "mask_head"):
    del model.roi_heads[_name]

# One class, which is a person.
model.roi_heads.update(
    num_classes=1,
    keypoint_in_features=PYRAMID,
    keypoint_pooler=roi_pooler(14),
    keypoint_head=L(KRCNNConvDeconvUpsampleHead)(
        num_keypoints=17,
        loss_normalizer="visible",
        input_shape=pooled_shape(14),
        conv_dims=[512] * 8,
    ),
)

# Larger than 1,000, and a loss that is linear for small errors only, do better for one class.
model.proposal_generator.post_nms_topk = (1500, 1000)
model.roi_heads.box_predictor.smooth_l1_beta = 0.5
