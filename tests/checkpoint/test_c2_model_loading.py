"""Weights under Caffe2's names, and under the ends of their names."""

import logging

import numpy as np
import pytest
import torch

from detectron2.checkpoint.c2_model_loading import (
    _longest_common_prefix_str,
    align_and_update_state_dicts,
    convert_basic_c2_names,
    convert_c2_detectron_names,
)

RPN, KEYPOINT = "proposal_generator.rpn_head", "roi_heads.keypoint_head"

BACKBONE_NAMES = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_s": "stem.conv1.norm.weight",
    "res_conv1_bn_b": "stem.conv1.norm.bias",
    "conv1_gn_s": "stem.conv1.norm.weight",
    "conv1_gn_b": "stem.conv1.norm.bias",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res2_0_branch1_bn_s": "res2.0.shortcut.norm.weight",
    "res3_2_branch2a_w": "res3.2.conv1.weight",
    "res4_22_branch2b_bn_riv": "res4.22.conv2.norm.running_var",
    "res4_22_branch2b_bn_rm": "res4.22.conv2.norm.running_mean",
    "res5_1_branch2c_bn_running_mean": "res5.1.conv3.norm.running_mean",
    "res5_1_branch2c_bn_running_var": "res5.1.conv3.norm.running_var",
    "res5_1_branch2c_bn_gamma": "res5.1.conv3.norm.weight",
    "res5_1_branch2c_bn_beta": "res5.1.conv3.norm.bias",
    "pred_w": "linear.weight",
    "pred_b": "linear.bias",
    "body_conv_fcn1_w": "body_conv_fcn1.weight",
    "AnnIndex_lowres_w": "ann_index_lowres.weight",
    "Index_UV_lowres_w": "index_uv_lowres.weight",
    "U_lowres_w": "u_lowres.weight",
    "V_lowres_b": "v_lowres.bias",
}
DETECTOR_NAMES = {
    "conv_rpn_fpn2_w": f"{RPN}.conv.weight",
    "conv_rpn_w": f"{RPN}.conv.weight",
    "rpn_cls_logits_fpn2_b": f"{RPN}.objectness_logits.bias",
    "rpn_cls_logits_b": f"{RPN}.objectness_logits.bias",
    "rpn_bbox_pred_fpn2_w": f"{RPN}.anchor_deltas.weight",
    "rpn_bbox_pred_w": f"{RPN}.anchor_deltas.weight",
    "bbox_pred_w": "bbox_pred.weight",
    "cls_score_b": "cls_score.bias",
    "fc6_w": "box_head.fc1.weight",
    "fc7_b": "box_head.fc2.bias",
    "head_conv1_w": "box_head.conv1.weight",
    "head_conv1_gn_s": "box_head.conv1.norm.weight",
    "fpn_inner_res5_2_sum_w": "fpn_lateral5.weight",
    "fpn_inner_res4_5_sum_lateral_w": "fpn_lateral4.weight",
    "fpn_inner_res3_3_sum_lateral_gn_s": "fpn_lateral3.norm.weight",
    "fpn_res2_2_sum_b": "fpn_output2.bias",
    "fpn_res2_2_sum_gn_b": "fpn_output2.norm.bias",
    "_[mask]_fcn1_w": "mask_head.mask_fcn1.weight",
    "_mask_fcn1_gn_s": "mask_head.mask_fcn1.norm.weight",
    "mask_fcn_logits_w": "mask_head.predictor.weight",
    "conv5_mask_b": "mask_head.deconv.bias",
    "conv_fcn1_w": f"{KEYPOINT}.conv_fcn1.weight",
    "kps_score_lowres_w": f"{KEYPOINT}.score_lowres.weight",
    "kps_score_w": f"{KEYPOINT}.score.weight",
}


def test_names_of_backbones():
    assert convert_basic_c2_names(list(BACKBONE_NAMES)) == list(BACKBONE_NAMES.values())


@pytest.mark.parametrize(("old", "new"), [*BACKBONE_NAMES.items(), *DETECTOR_NAMES.items()])
def test_names_of_detectors(old, new):
    weights, originals = convert_c2_detectron_names({old: np.zeros(8)})
    assert list(weights) == [new]
    assert originals == {new: old}


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_the_background_class_moves(make):
    old = {
        "cls_score_b": make([0, 1, 2]),
        "cls_score_w": make([[0, 0], [1, 1], [2, 2]]),
        "bbox_pred_b": make(list(range(12))),
        "mask_fcn_logits_b": make([0, 1, 2]),
        "fc6_b": make([0, 1]),
    }
    new, _ = convert_c2_detectron_names(old)
    assert new["cls_score.bias"].tolist() == [1, 2, 0]
    assert new["cls_score.weight"].tolist() == [[1, 1], [2, 2], [0, 0]]
    assert new["bbox_pred.bias"].tolist() == list(range(4, 12))
    assert new["mask_head.predictor.bias"].tolist() == [1, 2]
    assert new["box_head.fc1.bias"].tolist() == [0, 1]
    assert old["cls_score_b"].tolist() == [0, 1, 2]


def test_two_blobs_of_one_name_are_an_error():
    with pytest.raises(ValueError, match=r"'conv_rpn_fpn2_w'.*'conv_rpn_w'"):
        convert_c2_detectron_names({"conv_rpn_w": np.zeros(1), "conv_rpn_fpn2_w": np.zeros(1)})


def filled(value, *shape):
    return torch.full(shape, float(value))


def align(model, checkpoint, c2_conversion=False):
    aligned = align_and_update_state_dicts(
        {name: torch.zeros(shape) for name, shape in model.items()}, checkpoint, c2_conversion
    )
    return {name: value.reshape(-1)[0].item() for name, value in aligned.items()}


def test_the_longest_end_is_taken():
    model = {"net.body.res2.conv1.weight": (2,), "net.body.conv1.weight": (2,)}
    checkpoint = {"conv1.weight": filled(1, 2), "res2.conv1.weight": filled(2, 2)}
    assert align(model, checkpoint) == {
        "net.body.res2.conv1.weight": 2,
        "net.body.conv1.weight": 1,
    }


def test_ends_are_of_whole_components():
    model = {"net.my_conv1.weight": (2,), "net.conv1.weight": (2,)}
    assert align(model, {"conv1.weight": filled(1, 2)}) == {"net.conv1.weight": 1}


def test_what_is_not_matched_keeps_its_name():
    assert align({"a.w": (2,)}, {"w": filled(1, 2), "x.w": filled(2, 2)}) == {"a.w": 1, "x.w": 2}


def test_nothing_matched_gives_the_checkpoint_back(caplog):
    assert align({"a.w": (2,)}, {"v": filled(1, 2)}) == {"v": 1}
    assert "None of the 1 names" in caplog.text


def test_other_shapes_are_not_matched(caplog):
    model = {"a.w": (3,), "a.b": (3,)}
    checkpoint = {"w": filled(1, 2), "b": filled(2, 3)}
    assert align(model, checkpoint) == {"a.b": 2, "w": 1}
    assert "a.w is not loaded from w" in caplog.text
    assert "(2,) in the checkpoint and (3,) in the model" in caplog.text


def test_a_tensor_with_two_places_is_an_error():
    model = {"head.0.cls_score.weight": (2,), "head.1.cls_score.weight": (2,)}
    with pytest.raises(ValueError, match=r"'cls_score.weight'.*head\.0\.cls.*head\.1\.cls"):
        align(model, {"cls_score.weight": filled(1, 2)})


def test_one_of_two_places_with_the_shape_is_taken():
    model = {"head.0.w": (2,), "head.1.w": (3,)}
    assert align(model, {"w": filled(1, 2)}) == {"head.0.w": 1}


def test_caffe2_names_are_converted_first():
    model = {"backbone.res2.0.conv1.weight": (2,), "roi_heads.box_predictor.cls_score.bias": (2,)}
    checkpoint = {"res2_0_branch2a_w": filled(1, 2), "cls_score_b": torch.tensor([5.0, 6.0])}
    assert align(model, checkpoint, c2_conversion=True) == {
        "backbone.res2.0.conv1.weight": 1,
        "roi_heads.box_predictor.cls_score.bias": 6,
    }


def test_the_table_of_matches(caplog):
    model = {
        f"backbone.bottom_up.{name}": (2,)
        for name in ("res2.0.conv1.weight", "res2.0.conv1.norm.bias", "res2.0.conv1.norm.weight")
    }
    old = ("res2_0_branch2a_w", "res2_0_branch2a_bn_b", "res2_0_branch2a_bn_s")
    with caplog.at_level(logging.INFO):
        align(model, {name: filled(1, 2) for name in old}, c2_conversion=True)
    title, *rows = caplog.messages[-1].splitlines()
    assert title.startswith("Matched 3 names")
    assert "'backbone.bottom_up.res2.0.conv1'" in title
    assert [row.split() for row in rows[1:]] == [
        ["norm.{bias,weight}", "res2_0_branch2a_bn_{b,s}", "(2,)", "(2,)"],
        ["weight", "res2_0_branch2a_w", "(2,)"],
    ]


def test_longest_common_prefix():
    assert _longest_common_prefix_str(["res2_a", "res2_b", "res22"]) == "res2"
    assert _longest_common_prefix_str(["same", "same"]) == "same"
    assert _longest_common_prefix_str(["a", "b"]) == ""
