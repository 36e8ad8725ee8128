"""Helpers for tests of models and of what they are exported to."""

import io
import os
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils.torch_version_utils import min_torch_version

# Models, data and configuration are needed by few of these helpers.
__getattr__ = lazy_attributes(
    __name__,
    {
        "CfgNode": "detectron2.config",
        "DatasetCatalog": "detectron2.data",
        "LazyConfig": "detectron2.config",
        "build_model": "detectron2.modeling",
        "instantiate": "detectron2.config",
        "read_image": "detectron2.data.detection_utils",
    },
)

_SAMPLE_IMAGE_DATASET = "coco_2017_val_100"
_SAMPLE_IMAGE_URL = "http://images.cocodataset.org/val2017/000000439715.jpg"

skipIfOnCPUCI = unittest.skipIf(  # noqa: N816
    bool(os.environ.get("CI")) and not torch.cuda.is_available(),
    "too slow for continuous integration without a GPU",
)
"""Decorator of tests that take too long on a CI machine (variable ``CI``) without a GPU."""


def get_model_no_weights(config_path: str) -> nn.Module:
    """Build a model of the zoo with random weights, on CUDA if there is any.

    Args:
        config_path: such as ``"COCO-Detection/retinanet_R_50_FPN_1x.yaml"``.
    """
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config(config_path)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


def random_boxes(
    num_boxes: int, max_coord: float = 100, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Draw boxes, (N, 4) float32 xyxy.

    The corner nearest to the origin, and both sides, lie in [1, ``max_coord`` / 2].
    """
    boxes = (torch.rand(num_boxes, 4, device=device) * (max_coord * 0.5)).clamp_(min=1.0)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def get_sample_coco_image(tensor: bool = True) -> torch.Tensor | np.ndarray:
    """Read a photograph from COCO, downloading it where the data set is not at hand.

    Args:
        tensor: whether to return a tensor, (3, H, W), rather than an array, (H, W, 3).

    Returns:
        BGR, uint8.
    """
    from detectron2.data import DatasetCatalog
    from detectron2.data.detection_utils import read_image
    from detectron2.utils.file_io import PathManager

    try:
        path = DatasetCatalog.get(_SAMPLE_IMAGE_DATASET)[0]["file_name"]
        found = PathManager.exists(path)
    except FileNotFoundError:
        found = False
    image = read_image(path if found else _SAMPLE_IMAGE_URL, format="BGR")
    return torch.from_numpy(image.transpose(2, 0, 1).copy()) if tensor else image


def convert_scripted_instances(instances: Any) -> Instances:
    """Make ``Instances`` of those that a scripted model returned; fields that are not set go."""
    converted = Instances(instances.image_size)
    for name in instances._field_names:
        value = getattr(instances, f"_{name}", None)
        if value is not None:
            converted.set(name, value)
    return converted


def _assert_same_field(got: Any, wanted: Any, rtol: float, where: str) -> None:
    if isinstance(wanted, Boxes | ROIMasks):
        got, wanted = got.tensor, wanted.tensor
    if not isinstance(wanted, torch.Tensor):
        raise ValueError(f"{where}: cannot compare a {type(wanted).__name__}")
    if got.shape != wanted.shape:
        raise AssertionError(f"{where}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}")
    if wanted.is_floating_point():
        # The largest value sets the scale: coordinates near 0 come from sums of larger numbers.
        scale = wanted.abs().max().item() if wanted.numel() else 0.0
        close = torch.allclose(got, wanted, rtol=rtol, atol=scale * rtol)
    else:
        close = torch.equal(got, wanted)
    if not close:
        difference = (got.double() - wanted.double()).abs().max().item()
        raise AssertionError(f"{where}: values differ by up to {difference:g}")


def assert_instances_allclose(
    input: Instances,
    other: Instances,
    *,
    rtol: float = 1e-5,
    msg: str = "",
    size_as_tensor: bool = False,
) -> None:
    """Assert that two ``Instances`` hold the same fields, with values that are nearly the same.

    Args:
        input: tensors, ``Boxes`` and ``ROIMasks`` in its fields.
        other: what it is compared with.
        rtol: tolerance of floating point values, relative to each and to the largest magnitude
            of the field; others must be equal.
        msg: text that errors begin with.
        size_as_tensor: whether the image sizes are tensors, as those of exported models are.

    Raises:
        AssertionError: they differ.
        ValueError: a field has another type.
    """
    prefix = f"{msg}: " if msg else ""
    sizes = input.image_size, other.image_size
    if size_as_tensor:
        sizes = tuple(tuple(torch.as_tensor(size).tolist()) for size in sizes)
    if sizes[0] != sizes[1]:
        raise AssertionError(f"{prefix}image_size {sizes[0]}, not {sizes[1]}")
    got, wanted = input.get_fields(), other.get_fields()
    if got.keys() != wanted.keys():
        raise AssertionError(f"{prefix}fields {sorted(got)}, not {sorted(wanted)}")
    for name in wanted:
        _assert_same_field(got[name], wanted[name], rtol, f"{prefix}field {name!r}")


def reload_script_model(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Save a scripted module and load it again."""
    return torch.jit.load(io.BytesIO(module.save_to_buffer()))


def reload_lazy_config(cfg: Any) -> Any:
    """Save a lazy configuration and load it again."""
    from detectron2.config import LazyConfig

    with tempfile.TemporaryDirectory(prefix="detectron2") as folder:
        path = os.path.join(folder, "config.yaml")
        LazyConfig.save(cfg, path)
        return LazyConfig.load(path)


def has_dynamic_axes(onnx_model: Any) -> bool:
    """Whether each input of an ONNX model has an axis whose size has a name instead of a value."""
    return all(
        any(axis.dim_param for axis in value.type.tensor_type.shape.dim)
        for value in onnx_model.graph.input
    )


def register_custom_op_onnx_export(
    opname: str, symbolic_fn: Callable, opset_version: int, min_version: str
) -> None:
    """Tell the ONNX exporter how to export an operator, where PyTorch does not know that itself.

    Args:
        opname: such as ``"::repeat_interleave"`` or ``"my::op"``.
        symbolic_fn: the symbolic function.
        opset_version: the opset that it is for.
        min_version: the PyTorch from which on nothing is to be done, such as ``"1.12"``.
    """
    if not min_torch_version(min_version):
        torch.onnx.register_custom_op_symbolic(opname, symbolic_fn, opset_version)


def unregister_custom_op_onnx_export(opname: str, opset_version: int, min_version: str) -> None:
    """Undo :func:`register_custom_op_onnx_export` with the same arguments."""
    if not min_torch_version(min_version):
        torch.onnx.unregister_custom_op_symbolic(opname, opset_version)


def skipIfUnsupportedMinOpsetVersion(  # noqa: N802
    min_opset_version: int, current_opset_version: int | None = None
) -> Callable:
    """Make a decorator that skips a test below an ONNX opset.

    Args:
        min_opset_version: the lowest opset that the test works with.
        current_opset_version: the opset in use; None means the exporter's default.
    """
    if current_opset_version is None:
        from torch.onnx._constants import ONNX_DEFAULT_OPSET

        current_opset_version = ONNX_DEFAULT_OPSET
    return unittest.skipIf(
        current_opset_version < min_opset_version,
        f"needs ONNX opset {min_opset_version}, this is {current_opset_version}",
    )


def skipIfUnsupportedMinTorchVersion(min_version: str) -> Callable:  # noqa: N802
    """Make a decorator that skips a test below a version of PyTorch, such as ``"2.10"``."""
    return unittest.skipIf(
        not min_torch_version(min_version),
        f"needs PyTorch {min_version}, this is {torch.__version__}",
    )


# Upstream replaces two symbolic functions of PyTorch 1.11 by these; later versions do without.


def _pytorch1111_symbolic_opset9_to(g: Any, self: Any, *args: Any) -> Any:
    """PyTorch's own symbolic function of ``Tensor.to``."""
    from torch.onnx import symbolic_opset9

    return symbolic_opset9.to(g, self, *args)


def _pytorch1111_symbolic_opset9_repeat_interleave(
    g: Any, self: Any, repeats: Any, dim: Any = None, output_size: Any = None
) -> Any:
    """PyTorch's own symbolic function of ``repeat_interleave``."""
    from torch.onnx import symbolic_opset9

    return symbolic_opset9.repeat_interleave(g, self, repeats, dim, output_size)
