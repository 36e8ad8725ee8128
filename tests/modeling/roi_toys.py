"""Small inputs for RoI heads and models."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks


def random_boxes(count: int, size: tuple[int, int] = (60, 80), smallest: int = 8) -> torch.Tensor:
    """``(count, 4)``, XYXY, inside an image of (height, width)."""
    height, width = size
    corners = torch.rand(count, 2) * torch.tensor([width - smallest, height - smallest])
    room = torch.tensor([width, height]) - corners
    sides = smallest + torch.rand(count, 2) * (room - smallest)
    return torch.cat([corners, corners + sides], dim=1)


def box_polygon(box: torch.Tensor) -> torch.Tensor:
    x0, y0, x1, y1 = box.tolist()
    return torch.tensor([x0, y0, x1, y0, x1, y1, x0, y1], dtype=torch.float64)


def targets(count: int, size: tuple[int, int] = (60, 80), num_classes: int = 5) -> Instances:
    """Ground truth of one image, with masks and three keypoints each."""
    boxes = random_boxes(count, size)
    points = boxes[:, None, :2] + torch.rand(count, 3, 2) * (boxes[:, 2:] - boxes[:, :2])[:, None]
    visibility = torch.full((count, 3, 1), 2.0)
    return Instances(
        size,
        gt_boxes=Boxes(boxes),
        gt_classes=torch.randint(num_classes, (count,)),
        gt_masks=PolygonMasks([[box_polygon(box)] for box in boxes]),
        gt_keypoints=Keypoints(torch.cat([points, visibility], dim=2)),
    )


def proposals(count: int, size: tuple[int, int] = (60, 80)) -> Instances:
    return Instances(
        size,
        proposal_boxes=Boxes(random_boxes(count, size)),
        objectness_logits=torch.rand(count),
    )


class OneMapBackbone(Backbone):
    """A strided convolution."""

    def __init__(self, channels: int = 8, stride: int = 8) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, channels, stride, stride=stride)
        self._stride = stride

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p": self.conv(x)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"p": ShapeSpec(channels=self.conv.out_channels, stride=self._stride)}

    @property
    def size_divisibility(self) -> int:
        return self._stride


def by_rows(transform: type) -> type:
    """The transform, which knows only rows of boxes, as downstream ones do."""

    class ByRows(transform):
        def get_deltas(self, src: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert src.dim() == target.dim() == 2
            assert len(src) == len(target)
            return super().get_deltas(src, target)

        def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            assert deltas.dim() == boxes.dim() == 2
            assert len(deltas) == len(boxes)
            return super().apply_deltas(deltas, boxes)

    return ByRows


@contextmanager
def recorded_waits() -> Iterator[list[str]]:
    """Where the CPU waits for the CUDA device meanwhile, a line of code each."""
    waits: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [
        f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)
    ]
