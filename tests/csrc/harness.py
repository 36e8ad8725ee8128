"""What the tests of native operators share: inputs, layouts, and checks that hold for every one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

# Marks a test to run on both devices, by its argument `device`.
on_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that operators compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def strided(tensor: Tensor) -> Tensor:
    """The same values, with gaps in memory between them and the dimensions in reverse order."""
    reverse = tuple(reversed(range(tensor.dim())))
    storage = tensor.new_zeros([2 * size + 1 for size in reversed(tensor.shape)])
    view = storage[tuple(slice(1, None, 2) for _ in reverse)].permute(reverse)
    view.copy_(tensor)
    assert tensor.numel() < 2 or not view.is_contiguous()
    return view


def random_boxes(count: int, seed: int = 0, extent: float = 100.0, largest: float = 40.0) -> Tensor:
    """``(count, 5)`` float32 rotated boxes with centres in [0, extent) and sides up to ``largest``.

    Values are multiples of 1/4 below 256 and so exact in float32; in half precision they round.
    """
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(0, extent, (count, 2)),
        rng.uniform(1, largest, (count, 2)),
        rng.uniform(-180, 180, (count, 1)),
    ]
    return torch.from_numpy(np.round(np.concatenate(columns, axis=1) * 4) / 4).float()


def interpolate(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear, of an image (C, H, W) with pixel centres at whole numbers; 0 beyond its border."""
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(image.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * image[:, top, left] + dx * image[:, top, right]
    lower = (1 - dx) * image[:, bottom, left] + dx * image[:, bottom, right]
    return (1 - dy) * upper + dy * lower


def check_traceable(op: Any, arguments: tuple[Any, ...]) -> None:
    """Schema, fake kernel, autograd registration and AOT dispatch, as PyTorch itself tests them."""
    torch.library.opcheck(op.default, arguments)


def check_compiled(function: Callable[..., Tensor], *argument_sets: tuple[Tensor, ...]) -> None:
    """One graph, without a break and without compiling anew for later shapes, equal to eager."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for number, arguments in enumerate(argument_sets):
        with torch.compiler.set_stance("default" if number == 0 else "fail_on_recompile"):
            actual = compiled(*arguments)
        torch.testing.assert_close(actual, function(*arguments), rtol=0, atol=0)


def check_raises(message: str, function: Callable[..., Any], *arguments: Any) -> None:
    """A Python exception whose text matches ``message``, which names what was given."""
    with pytest.raises(RuntimeError, match=message):
        function(*arguments)
