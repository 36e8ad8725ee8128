"""torch.ops.detectron2.rasterize_polygons against pycocotools, pixel for pixel."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from .harness import check_compiled, check_raises, check_traceable

coco_mask = pytest.importorskip("pycocotools.mask")
rasterize_polygons = torch.ops.detectron2.rasterize_polygons

Instances = Sequence[Sequence[np.ndarray]]


def packed(instances: Instances) -> tuple[Tensor, Tensor, Tensor]:
    """Polygons ``(V, 2)`` of instances, as the operator takes them."""
    polygons = [polygon for instance in instances for polygon in instance]
    vertices = np.concatenate([np.zeros((0, 2)), *polygons])
    sizes = [0, *(len(polygon) for polygon in polygons)]
    counts = [0, *(len(instance) for instance in instances)]
    return (torch.from_numpy(vertices), torch.tensor(sizes).cumsum(0),
            torch.tensor(counts).cumsum(0))  # fmt: skip


def coco_masks(instances: Instances, height: int, width: int) -> Tensor:
    masks = torch.zeros(len(instances), height, width, dtype=torch.bool)
    for n, polygons in enumerate(instances):
        if len(polygons) > 0:
            flat = [polygon.reshape(-1).tolist() for polygon in polygons]
            runs = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
            masks[n] = torch.from_numpy(coco_mask.decode(runs)).bool()
    return masks


def polygon_of(kind: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image = np.array([width, height])
    count = int(rng.integers(3, 14))
    polygon = rng.uniform(-0.3, 1.3, (count, 2)) * image
    if kind == "star":
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        arms = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return rng.uniform(0, image) + arms * rng.uniform(1, 20, (count, 1))
    if kind == "tiny":
        return rng.uniform(0, image) + rng.uniform(-1.2, 1.2, (count, 2))
    if kind == "mostly outside":
        return rng.uniform(-3, 3, (count, 2)) * image
    if kind == "far outside":
        return polygon * rng.choice([30, 300])
    if kind == "on pixel borders":
        return polygon.round()
    if kind == "on pixel middles":
        return polygon.round() + 0.5
    if kind == "on the lattice":
        return (polygon * 5).round() / 5
    if kind == "between lattice points":
        return (polygon * 5).round() / 5 + 0.1
    if kind == "a box":
        x0, y0, x1, y1 = (rng.uniform(-5, 60, 4) * 4).round() / 4
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind == "a sliver":
        polygon[:, rng.integers(2)] = polygon[0, 0] + rng.uniform(-0.3, 0.3, count)
        return polygon
    if kind == "with doubled vertices":
        return np.repeat(polygon, 2, axis=0)
    if kind == "there and back":
        return np.concatenate([polygon, polygon[::-1]])
    if kind == "a point":
        return np.repeat(polygon[:1], 3, axis=0)
    return polygon  # crosses itself


# Of pycocotools under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = [
    "crossing itself", "star", "tiny", "mostly outside", "far outside", "on pixel borders",
    "on pixel middles", "on the lattice", "between lattice points", "a box", "a sliver",
    "with doubled vertices", "there and back", "a point",
]  # fmt: skip


def check_kind(kind: str, images: int) -> None:
    rng = np.random.default_rng(sum(kind.encode()))
    for _ in range(images):
        height, width = (int(side) for side in rng.integers(1, 64, 2))
        instances = [
            [polygon_of(kind, rng, height, width) for _ in range(rng.integers(0, 4))]
            for _ in range(10)
        ]
        masks = rasterize_polygons(*packed(instances), height, width)
        assert masks.dtype == torch.bool
        assert torch.equal(masks, coco_masks(instances, height, width))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_coco(kind: str) -> None:
    check_kind(kind, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_coco_at_length(kind: str) -> None:
    check_kind(kind, 3000)


def test_a_large_image() -> None:
    """Large enough for its memory to be advised on, and for several threads."""
    rng = np.random.default_rng(1)
    instances = [[polygon_of("star", rng, 700, 900) * 3 for _ in range(2)] for _ in range(12)]
    masks = rasterize_polygons(*packed(instances), 700, 900)
    assert torch.equal(masks, coco_masks(instances, 700, 900))
    assert torch.equal(masks, rasterize_polygons(*packed(instances), 700, 900))


def test_the_whole_image_and_more() -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    instances = [[square * 20], [square * 100 - 40], [square * 1e9 - 5e8], [square * 1e300 - 5e299]]
    masks = rasterize_polygons(*packed(instances), 20, 20)
    assert masks.sum((1, 2)).tolist() == [400] * 4


@pytest.mark.parametrize(("height", "width"), [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels(height: int, width: int) -> None:
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]])
    masks = rasterize_polygons(*packed([[square], []]), height, width)
    assert masks.shape == (2, height, width)


def test_no_instances() -> None:
    assert rasterize_polygons(*packed([]), 5, 6).shape == (0, 5, 6)


def test_strided_vertices() -> None:
    rng = np.random.default_rng(2)
    instances = [[polygon_of("star", rng, 40, 50)] for _ in range(5)]
    vertices, polygons, counts = packed(instances)
    strided = torch.stack([vertices, vertices * 0], dim=2)[..., 0]
    assert not strided.is_contiguous()
    masks = rasterize_polygons(strided, polygons.repeat_interleave(2)[::2], counts, 40, 50)
    assert torch.equal(masks, coco_masks(instances, 40, 50))


def test_errors_name_what_was_given() -> None:
    vertices, polygons, counts = packed([[np.zeros((3, 2))], [np.zeros((4, 2))]])
    check_raises("vertices must be float64, got float32",
                 rasterize_polygons, vertices.float(), polygons, counts, 9, 9)  # fmt: skip
    check_raises(r"vertices must have the shape \(V, 2\), got \(7, 1\)",
                 rasterize_polygons, vertices[:, :1], polygons, counts, 9, 9)  # fmt: skip
    for value in (math.nan, math.inf):
        bad = vertices.clone()
        bad[5, 1] = value
        check_raises(f"vertices must be finite, got {value} at 5",
                     rasterize_polygons, bad, polygons, counts, 9, 9)  # fmt: skip
    check_raises("polygon_offsets must go from 0 to 6",
                 rasterize_polygons, vertices[:6], polygons, counts, 9, 9)  # fmt: skip
    check_raises("polygon_offsets must cut runs of at least 3, got 0 and 2",
                 rasterize_polygons, vertices, torch.tensor([0, 2, 7]), counts, 9, 9)  # fmt: skip
    check_raises("instance_offsets must cut runs of at least 0, got 2 and 1 at 1",
                 rasterize_polygons, vertices, polygons,
                 torch.tensor([0, 2, 1, 2]), 9, 9)  # fmt: skip
    check_raises("instance_offsets must be int64, got int32",
                 rasterize_polygons, vertices, polygons, counts.int(), 9, 9)  # fmt: skip
    check_raises("from 0 to .*, got -1 and 9",
                 rasterize_polygons, vertices, polygons, counts, -1, 9)  # fmt: skip


def test_tracing() -> None:
    rng = np.random.default_rng(3)
    few, many = (
        packed([[polygon_of("star", rng, 40, 50) for _ in range(2)] for _ in range(count)])
        for count in (6, 9)
    )
    check_traceable(rasterize_polygons, (*few, 40, 50))
    check_compiled(
        lambda vertices, polygons, counts: (
            rasterize_polygons(vertices, polygons, counts, 40, 50) & True
        ),
        few,
        many,
    )
    assert not rasterize_polygons(few[0].requires_grad_(), *few[1:], 40, 50).requires_grad
