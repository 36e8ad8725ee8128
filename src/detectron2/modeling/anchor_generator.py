"""Anchors: the reference boxes that dense predictions are offsets from.

Every location of a feature map has the same few cell anchors, moved to that location. Anchors are
in absolute pixels of the input and are not clipped to it. Those of a map of H x W locations with A
cell anchors are ordered by row, then column, then cell anchor: number ``(y * W + x) * A + a``.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, move_device_like
from detectron2.modeling._cuda_graph import is_recording
from detectron2.structures import Boxes, RotatedBoxes
from detectron2.utils.registry import Registry

__all__ = [
    "ANCHOR_GENERATOR_REGISTRY",
    "BufferList",
    "DefaultAnchorGenerator",
    "RotatedAnchorGenerator",
    "build_anchor_generator",
]

ANCHOR_GENERATOR_REGISTRY = Registry("ANCHOR_GENERATOR")
ANCHOR_GENERATOR_REGISTRY.__doc__ = """
Modules that turn a list of feature maps, ``(N, C, H, W)`` each, into a list of boxes, one a map,
shared by the images of the batch. They are called with ``(cfg, input_shape: list[ShapeSpec])``.
"""

# Sets of grid sizes whose anchors are kept. Training with images of many sizes meets more of them;
# the anchors of one set for 800 x 1216 pixels take 4 MiB.
_MOST_CACHED = 8


class BufferList(nn.Module):
    """A list of tensors that move with the module but are not in its state dict."""

    def __init__(self, buffers: list[torch.Tensor]) -> None:
        super().__init__()
        for number, tensor in enumerate(buffers):
            self.register_buffer(f"{number}", tensor, persistent=False)

    # Without a return type: TorchScript knows no Iterator.
    def __iter__(self):
        yield from self.buffers()

    def __len__(self) -> int:
        return sum(1 for _ in self.buffers())


def _per_level(values: Any, num_levels: int, name: str) -> list[list[float]]:
    """One list a level, from a list that all levels share, or a list of one such list, or those."""
    assert isinstance(values, Sequence), f"anchors need a list of {name}, got {values!r}"
    assert len(values) > 0, f"anchors need {name}, got {values!r}"
    if not isinstance(values[0], Sequence):
        values = [values]
    if len(values) == 1:
        values = [values[0]] * num_levels
    assert len(values) == num_levels, (
        f"anchors on {num_levels} feature maps need {name} for each or for all, "
        f"got {len(values)} lists: {values!r}"
    )
    return [list(of_level) for of_level in values]


def _sides(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) for each size and, within, each aspect ratio."""
    sides = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            sides.append((width, ratio * width))
    return sides


def _centres(size: int, stride: int, offset: float, like: torch.Tensor) -> torch.Tensor:
    """Where the anchors lie along one axis, ``(size,)``, float32."""
    steps = torch.arange(size, dtype=torch.float32, device=like.device)
    return move_device_like(steps * stride + offset * stride, like)


class _AnchorCache:
    """Anchors for the last few sets of grid sizes.

    They are made anew when the module has got other cell anchors, by being moved, and when someone
    has changed them in place, as ``Boxes.scale`` does, which a tensor's version tells.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Any, tuple[list[torch.Tensor], list[int]]] = OrderedDict()

    def get(self, sizes: Any, cells: list[torch.Tensor]) -> list[torch.Tensor] | None:
        tensors, versions = self._entries.get(sizes, ([], []))
        is_valid = len(tensors) > 0 and all(a is b for a, b in zip(tensors, cells, strict=False))
        if not is_valid or [x._version for x in tensors] != versions:
            return None
        self._entries.move_to_end(sizes)
        return tensors[len(cells) :]

    def put(self, sizes: Any, cells: list[torch.Tensor], anchors: list[torch.Tensor]) -> None:
        tensors = cells + anchors
        # Tensors of inference mode do not tell whether they were changed.
        if any(x.is_inference() for x in tensors):
            return
        self._entries[sizes] = tensors, [x._version for x in tensors]
        self._entries.move_to_end(sizes)
        if len(self._entries) > _MOST_CACHED:
            self._entries.popitem(last=False)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Copies and pickles of a model start with an empty one.
        return _AnchorCache, ()


class _GridAnchors(nn.Module):
    """Cell anchors on the grids of several feature maps; what both generators share."""

    def __init__(
        self, strides: Sequence[int] | None = None, offset: float = 0.0, **per_level: Any
    ) -> None:
        """Args:
        strides: of each map; None where a subclass sets all itself, as if this were nn.Module's.
        offset: as for `DefaultAnchorGenerator`.
        **per_level: arguments of ``generate_cell_anchors``, by the names that errors give them.
        """
        super().__init__()
        self._cache = _AnchorCache()
        if strides is None:
            return
        assert 0.0 <= offset < 1.0, f"the anchors' offset must be in [0, 1), got {offset}"
        # Before the cells, which a subclass may make of them.
        self.strides = list(strides)
        self.num_features = len(self.strides)
        self.offset = offset
        arguments = [
            _per_level(values, self.num_features, name.replace("_", " "))
            for name, values in per_level.items()
        ]
        self.cell_anchors = BufferList(
            [self.generate_cell_anchors(*of_level) for of_level in zip(*arguments, strict=True)]
        )

    @property
    @torch.jit.unused
    def num_cell_anchors(self) -> list[int]:
        """Another name of :attr:`num_anchors`."""
        return self.num_anchors

    @property
    @torch.jit.unused
    def num_anchors(self) -> list[int]:
        """Anchors a location, for each feature map."""
        return [len(cell) for cell in self.cell_anchors]

    def _check_features(self, features: list[torch.Tensor]) -> None:
        assert len(features) == self.num_features, (
            f"there are anchors for {self.num_features} feature maps, got {len(features)}"
        )

    def _anchors(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """The anchors on each feature map, ``(H * W * A, box_dim)``."""
        self._check_features(features)
        if torch.jit.is_scripting():
            return self._make_anchors(features)
        # In graphs, grid sizes are symbols.
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._make_anchors(features)
        return self._cached_anchors(features)

    @torch.jit.unused
    def _cached_anchors(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes = tuple(x.shape[-2:] for x in features)
        cells = list(self.cell_anchors)
        is_captured = cells[0].is_cuda and torch.cuda.is_current_stream_capturing()
        # A CUDA graph of someone else's does not hold what it reads.
        is_held = not is_captured or is_recording()
        anchors = self._cache.get(sizes, cells) if is_held else None
        if anchors is None:
            # Inference tensors could not take part in a training that follows.
            with torch.inference_mode(False), torch.no_grad():
                anchors = self._make_anchors(features)
            if not is_captured:  # They are there when the graph is replayed, and not before.
                self._cache.put(sizes, cells, anchors)
        return anchors

    def _make_anchors(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        # TorchScript knows no other way to go through buffers.
        cells = [buffer for _, buffer in self.cell_anchors.named_buffers()]
        anchors: list[torch.Tensor] = []
        for feature, stride, cell in zip(features, self.strides, cells):  # noqa: B905
            x = _centres(feature.shape[-1], stride, self.offset, cell)
            y = _centres(feature.shape[-2], stride, self.offset, cell)
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            anchors.append(_at_centres(cell, grid_x[..., None], grid_y[..., None]))
        return anchors


def _at_centres(cell: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cell anchors ``(A, 4 or 5)`` moved to centres ``(H, W, 1)``: ``(H * W * A, 4 or 5)``."""
    if cell.size(1) == 4:
        moves = torch.stack([x, y, x, y], dim=-1)
    else:
        still = torch.zeros_like(x)
        moves = torch.stack([x, y, still, still, still], dim=-1)
    return (moves + cell).reshape(-1, cell.size(1))


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultAnchorGenerator(_GridAnchors):
    """Axis-aligned anchors of several sizes and aspect ratios.

    Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.1.
    """

    box_dim: torch.jit.Final[int] = 4
    """Numbers a box."""

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]] | Sequence[float],
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float],
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        """Args:
        sizes: square roots of the anchors' areas, in pixels: a list for each feature map, or one
            for all. On each map there is an anchor for every size and aspect ratio.
        aspect_ratios: height / width, likewise.
        strides: pixels between locations, for each feature map.
        offset: where the first anchor's centre is, in strides; 0.5 is the middle of the cell.
        """
        super().__init__(strides, offset, sizes=sizes, aspect_ratios=aspect_ratios)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        return {
            "sizes": cfg.MODEL.ANCHOR_GENERATOR.SIZES,
            "aspect_ratios": cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
        }

    @torch.jit.unused
    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> torch.Tensor:
        """The anchors of a location at the origin, ``(A, 4)``, XYXY; sizes outer, ratios inner."""
        cells = [(-w / 2, -h / 2, w / 2, h / 2) for w, h in _sides(sizes, aspect_ratios)]
        return torch.tensor(cells, dtype=torch.float32)

    def forward(self, features: list[torch.Tensor]) -> list[Boxes]:
        """Anchors for feature maps ``(N, C, H, W)``: ``H * W * A`` boxes for each map."""
        return [Boxes(x) for x in self._anchors(features)]


@ANCHOR_GENERATOR_REGISTRY.register()
class RotatedAnchorGenerator(_GridAnchors):
    """Rotated anchors of several sizes, aspect ratios and angles.

    Ma et al., "Arbitrary-Oriented Scene Text Detection via Rotation Proposals", 2018, section
    III-C.
    """

    box_dim: torch.jit.Final[int] = 5
    """Numbers a box."""

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]] | Sequence[float],
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float],
        strides: Sequence[int],
        angles: Sequence[Sequence[float]] | Sequence[float],
        offset: float = 0.5,
    ) -> None:
        """Args:
        sizes: square roots of the anchors' areas, in pixels: a list for each feature map, or one
            for all. On each map there is an anchor for every size, aspect ratio and angle.
        aspect_ratios: height / width at the angle 0, likewise.
        strides: pixels between locations, for each feature map.
        angles: in degrees, counter-clockwise; a list for each feature map, or one for all.
        offset: where the first anchor's centre is, in strides; 0.5 is the middle of the cell.
        """
        super().__init__(strides, offset, sizes=sizes, aspect_ratios=aspect_ratios, angles=angles)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        return {
            "sizes": cfg.MODEL.ANCHOR_GENERATOR.SIZES,
            "aspect_ratios": cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
            "angles": cfg.MODEL.ANCHOR_GENERATOR.ANGLES,
        }

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
        angles: Sequence[float] = (-90, -60, -30, 0, 30, 60, 90),
    ) -> torch.Tensor:
        """The anchors of a location at the origin, ``(A, 5)``, rows ``(0, 0, w, h, angle)``; sizes
        outer, then ratios, angles inner."""
        cells = [
            (0.0, 0.0, w, h, angle) for w, h in _sides(sizes, aspect_ratios) for angle in angles
        ]
        return torch.tensor(cells, dtype=torch.float32)

    def forward(self, features: list[torch.Tensor]) -> list[RotatedBoxes]:
        """Anchors for feature maps ``(N, C, H, W)``: ``H * W * A`` rotated boxes for each map."""
        return [RotatedBoxes(x) for x in self._anchors(features)]


def build_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """The generator that ``cfg.MODEL.ANCHOR_GENERATOR.NAME`` names.

    Args:
        cfg: the config.
        input_shape: of each feature map; only the strides count.
    """
    return ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME)(cfg, input_shape)
