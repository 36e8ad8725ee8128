"""Weights under other names: those of Caffe2, and those that lack the outer modules' names."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from detectron2.checkpoint._caffe2_names import backbone_name, detector_name
from detectron2.checkpoint._name_matching import (
    NameMatch,
    common_prefix,
    match_names,
    match_table,
)

__all__ = [
    "align_and_update_state_dicts",
    "convert_basic_c2_names",
    "convert_c2_detectron_names",
]

# Leading rows, of the background class, that a prediction layer here does without.
_BACKGROUND_ROWS = {"bbox_pred.": 4, "mask_head.predictor.": 1}

_logger = logging.getLogger(__name__)


def convert_basic_c2_names(original_keys: Iterable[str]) -> list[str]:
    """Caffe2 names of a backbone's blobs in this library's form, in the same order.

    ``res2_0_branch2b_bn_riv`` becomes ``res2.0.conv2.norm.running_var``.
    """
    return [backbone_name(key) for key in original_keys]


def convert_c2_detectron_names(
    weights: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Weights of a Detectron model in this library's form.

    The background class, which Detectron has first, becomes the last of the class scores, and is
    left out of the box deltas and masks. Class-agnostic deltas and masks lose their leading rows
    as well.

    Args:
        weights: arrays or tensors by Caffe2 name.

    Returns:
        The weights by the ends of names in a model, and the Caffe2 names by these.

    Raises:
        ValueError: two blobs get the same name.
    """
    converted: dict[str, Any] = {}
    original_names: dict[str, str] = {}
    for original in sorted(weights):
        name = detector_name(original)
        if name in converted:
            raise ValueError(
                f"{original_names[name]!r} and {original!r} of the checkpoint both become {name!r}"
            )
        original_names[name] = original
        converted[name] = _without_background(name, weights[original])
    return converted, original_names


def _without_background(name: str, value: Any) -> Any:
    for prefix, rows in _BACKGROUND_ROWS.items():
        if name.startswith(prefix):
            return value[rows:]
    if name.startswith("cls_score."):
        join = torch.cat if isinstance(value, torch.Tensor) else np.concatenate
        return join([value[1:], value[:1]])
    return value


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, Any],
    c2_conversion: bool = True,
) -> dict[str, Any]:
    """Give the tensors of a checkpoint the names that they have in a model.

    A name in the model takes the longest name in the checkpoint that it ends with, whole
    components only: ``backbone.bottom_up.res2.0.conv1.weight`` takes ``res2.0.conv1.weight``. What
    was matched is logged as a table, and what has another shape than the model's as a warning.

    Args:
        model_state_dict: of the model.
        ckpt_state_dict: arrays or tensors by name; not changed.
        c2_conversion: whether names and values are first converted from Caffe2's form.

    Returns:
        The matched tensors under their names in the model, and the others under their own, in
        this library's form if converted.

    Raises:
        ValueError: two names in the model would take the same from the checkpoint.
    """
    aligned, match, shapes = align(model_state_dict, ckpt_state_dict, c2_conversion)
    for name, source in match.wrong_shape.items():
        _logger.warning(
            f"{name} is not loaded from {source}: the shape is {tuple(shapes[source])} in the "
            f"checkpoint and {tuple(model_state_dict[name].shape)} in the model"
        )
    return aligned


def align(
    model_state_dict: Mapping[str, torch.Tensor],
    ckpt_state_dict: Mapping[str, Any],
    c2_conversion: bool,
) -> tuple[dict[str, Any], NameMatch, dict[str, tuple[int, ...]]]:
    """As :func:`align_and_update_state_dicts`, without warnings of shapes.

    Returns:
        The aligned state dict, how names were matched, and the checkpoint's shapes by name.
    """
    original_names: dict[str, str] = {}
    weights = dict(ckpt_state_dict)
    if c2_conversion:
        weights, original_names = convert_c2_detectron_names(weights)
    model_shapes = {name: tuple(value.shape) for name, value in model_state_dict.items()}
    shapes = {name: tuple(np.shape(value)) for name, value in weights.items()}
    match = match_names(model_shapes, shapes)
    if not match.matched:
        _logger.warning(
            f"None of the {len(weights)} names of the checkpoint is the end of a name of the model"
            + (" with the same shape" if match.wrong_shape else "")
        )
        return weights, match, shapes
    _logger.info(match_table(match.matched, model_shapes, original_names))
    used = set(match.matched.values())
    aligned = {name: weights[source] for name, source in match.matched.items()}
    left = {name: value for name, value in weights.items() if name not in used}
    return {**aligned, **left}, match, shapes


def _longest_common_prefix_str(names: list[str]) -> str:
    return common_prefix(names)
