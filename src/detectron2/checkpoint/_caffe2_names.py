"""From the names of Caffe2 blobs, as Detectron and its ImageNet models have them, to names here.

Each table is a list of ``(pattern, replacement)``, applied to a name from first to last.
"""

import re
from collections.abc import Iterable

_BASIC_RULES = [
    (r"^pred_([bw])$", r"linear_\1"),
    (r"_", r"."),
    (r"\.b$", r".bias"),
    (r"\.w$", r".weight"),
    # Batch norms, by the names that several writers gave to their four tensors.
    (r"bn\.s$", r"norm.weight"),
    (r"bn\.bias$", r"norm.bias"),
    (r"bn\.rm", r"norm.running_mean"),
    (r"bn\.running\.mean$", r"norm.running_mean"),
    (r"bn\.(riv|running\.var)$", r"norm.running_var"),
    (r"bn\.gamma$", r"norm.weight"),
    (r"bn\.beta$", r"norm.bias"),
    # Group norms
    (r"gn\.s$", r"norm.weight"),
    (r"gn\.bias$", r"norm.bias"),
    # ResNets
    (r"^res\.conv1\.norm\.", r"conv1.norm."),
    (r"^conv1\.", r"stem.conv1."),
    (r"\.branch1\.", r".shortcut."),
    (r"\.branch2a\.", r".conv1."),
    (r"\.branch2b\.", r".conv2."),
    (r"\.branch2c\.", r".conv3."),
    # DensePose
    (r"^body\.conv\.fcn", r"body_conv_fcn"),
    (r"AnnIndex\.lowres", r"ann_index_lowres"),
    (r"Index\.UV\.lowres", r"index_uv_lowres"),
    (r"U\.lowres", r"u_lowres"),
    (r"V\.lowres", r"v_lowres"),
]

_DETECTOR_RULES = [
    # RPN
    (r"conv\.rpn(\.fpn2)?", r"proposal_generator.rpn_head.conv"),
    (r"rpn\.bbox\.pred(\.fpn2)?", r"proposal_generator.rpn_head.anchor_deltas"),
    (r"rpn\.cls\.logits(\.fpn2)?", r"proposal_generator.rpn_head.objectness_logits"),
    # Box head
    (r"^bbox\.pred", r"bbox_pred"),
    (r"^cls\.score", r"cls_score"),
    (r"^fc6\.", r"box_head.fc1."),
    (r"^fc7\.", r"box_head.fc2."),
    (r"^head\.conv", r"box_head.conv"),
    # FPN: of what follows the stage, only the norm and the tensor's own name are kept.
    (r"^fpn\.inner\.res(\d+)(?:\..*)?(\.norm)\..*?([^.]+)$", r"fpn_lateral\1\2.\3"),
    (r"^fpn\.inner\.res(\d+)(?:\..*)?\.([^.]+)$", r"fpn_lateral\1.\2"),
    (r"^fpn\.res(\d+)(?:\..*)?(\.norm)\..*?([^.]+)$", r"fpn_output\1\2.\3"),
    (r"^fpn\.res(\d+)(?:\..*)?\.([^.]+)$", r"fpn_output\1.\2"),
    # Mask head
    (r"\.\[mask\]\.fcn", r"mask_head.mask_fcn"),
    (r"^\.mask\.fcn", r"mask_head.mask_fcn"),
    (r"mask\.fcn\.logits", r"mask_head.predictor"),
    (r"conv5\.mask", r"mask_head.deconv"),
    # Keypoint head
    (r"conv\.fcn", r"roi_heads.keypoint_head.conv_fcn"),
    (r"kps\.score\.lowres", r"roi_heads.keypoint_head.score_lowres"),
    (r"kps\.score\.", r"roi_heads.keypoint_head.score."),
]


def _applied(rules: Iterable[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def backbone_name(caffe2_name: str) -> str:
    """The name of a blob of a backbone: ``res2_0_branch2a_w`` is ``res2.0.conv1.weight``."""
    return _applied(_BASIC_RULES, caffe2_name)


def detector_name(caffe2_name: str) -> str:
    """The name of any blob of a detector: ``fc6_w`` is ``box_head.fc1.weight``.

    It is the end of the name in a model, from some dot on.
    """
    return _applied(_DETECTOR_RULES, backbone_name(caffe2_name))
