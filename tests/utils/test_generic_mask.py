"""Masks in whichever form they come."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from detectron2.utils.visualizer import GenericMask

SQUARE = np.zeros((8, 9), np.uint8)
SQUARE[2:6, 3:7] = 1
RING = SQUARE.copy()
RING[3:5, 4:6] = 0


@pytest.mark.parametrize(
    "source",
    [
        SQUARE,
        SQUARE.astype(bool),
        torch.from_numpy(SQUARE),
        SQUARE * 200.0,
        coco_mask.encode(np.asfortranarray(SQUARE)),
        {"size": [8, 9], "counts": [26, 4, 4, 4, 4, 4, 4, 4, 18]},
        [[3, 2, 7, 2, 7, 6, 3, 6]],
    ],
)
def test_sources(source) -> None:
    mask = GenericMask(source, 8, 9)
    np.testing.assert_array_equal(mask.mask, SQUARE)
    assert mask.mask.dtype == np.uint8
    assert mask.area() == 16
    assert not mask.has_holes


def test_polygons_of_a_bitmap() -> None:
    mask = GenericMask(SQUARE, 8, 9)
    (polygon,) = mask.polygons
    x, y = polygon.reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (3.5, 6.5, 2.5, 5.5)
    assert len(x) == 12


def test_holes() -> None:
    mask = GenericMask(RING, 8, 9)
    assert mask.has_holes
    assert len(mask.polygons) == 2
    assert mask.area() == 12


def test_polygons_are_kept() -> None:
    polygons = [[0.0, 0, 5, 0, 5, 5], np.array([1, 1, 3, 1, 3, 3])]
    kept = GenericMask(polygons, 8, 9).polygons
    assert [polygon.tolist() for polygon in kept] == [[0, 0, 5, 0, 5, 5], [1, 1, 3, 1, 3, 3]]


def test_specks_are_no_polygons() -> None:
    specks = np.zeros((5, 9), bool)
    specks[1, 1] = specks[3, 4:6] = True
    mask = GenericMask(specks, 5, 9)
    assert mask.polygons == []
    assert mask.bbox().tolist() == [0, 0, 0, 0]
    assert mask.area() == 3


def test_box() -> None:
    assert GenericMask([[1, 2, 5, 2, 5, 6, 1, 6]], 8, 9).bbox().tolist() == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SQUARE.T, r"\(9, 8\)"),
        ("mask", "str"),
        ([[1, 2, 3, 4]], "4"),
        ([[1, 2, 3, 4, 5, 6, 7]], "7"),
        ({"size": [8, 9]}, "counts"),
    ],
)
def test_bad_sources(source, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenericMask(source, 8, 9)
