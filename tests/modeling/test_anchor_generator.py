"""Anchors, against loops over locations in float64."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import (
    BufferList,
    DefaultAnchorGenerator,
    RotatedAnchorGenerator,
    build_anchor_generator,
)
from detectron2.structures import Boxes, RotatedBoxes


def maps(*sizes):
    return [torch.zeros(2, 1, *size) for size in sizes]


def expected_anchors(size, sizes, ratios, stride, offset, angles=None):
    rows = []
    for y in range(size[0]):
        for x in range(size[1]):
            cx, cy = (x + offset) * stride, (y + offset) * stride
            for s in sizes:
                for ratio in ratios:
                    w = math.sqrt(s * s / ratio)
                    h = w * ratio
                    if angles is None:
                        rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
                    else:
                        rows.extend((cx, cy, w, h, angle) for angle in angles)
    return np.array(rows)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_default(offset):
    generator = DefaultAnchorGenerator(
        sizes=[[32, 48.5], [64]], aspect_ratios=[[0.5, 2]], strides=[8, 16], offset=offset
    )
    anchors = generator(maps((3, 4), (2, 5)))
    assert generator.num_anchors == generator.num_cell_anchors == [4, 2]
    assert generator.box_dim == 4
    for boxes, size, sizes, stride in zip(
        anchors, [(3, 4), (2, 5)], [[32, 48.5], [64]], [8, 16], strict=True
    ):
        assert type(boxes) is Boxes
        np.testing.assert_allclose(
            boxes.tensor, expected_anchors(size, sizes, [0.5, 2], stride, offset), atol=1e-5
        )


def test_rotated():
    generator = RotatedAnchorGenerator(
        sizes=[16, 40], aspect_ratios=[0.5], strides=[8, 4], angles=[[-90, 0, 30.5]]
    )
    anchors = generator(maps((3, 2), (1, 2)))
    assert generator.num_anchors == [6, 6]
    assert generator.box_dim == 5
    for boxes, size, stride in zip(anchors, [(3, 2), (1, 2)], [8, 4], strict=True):
        assert type(boxes) is RotatedBoxes
        wanted = expected_anchors(size, [16, 40], [0.5], stride, 0.5, [-90, 0, 30.5])
        np.testing.assert_allclose(boxes.tensor, wanted, atol=1e-5)


def test_subclass_that_sets_all_itself():
    class Own(DefaultAnchorGenerator):
        def __init__(self):
            super(DefaultAnchorGenerator, self).__init__()
            self.strides, self.num_features, self.offset = [4], 1, 0.5
            self.cell_anchors = BufferList([torch.tensor([[-1.0, -2, 1, 2]])])

    (anchors,) = Own()(maps((1, 2)))
    assert anchors.tensor.tolist() == [[1, 0, 3, 4], [5, 0, 7, 4]]


def test_of_empty_maps():
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4])
    assert generator(maps((0, 3)))[0].tensor.shape == (0, 4)


def test_anchors_are_kept_and_follow_the_module():
    generator = DefaultAnchorGenerator(sizes=[[8, 16]], aspect_ratios=[[1.0]], strides=[4])
    features = maps((3, 4))
    first = generator(features)[0].tensor
    assert generator(features)[0].tensor.data_ptr() == first.data_ptr()
    for height in range(1, 20):
        assert len(generator(maps((height, 2)))[0]) == height * 4
    assert len(generator._cache._entries) < 19

    with torch.inference_mode():
        made_in_inference = generator(maps((7, 7)))[0].tensor
    assert not made_in_inference.is_inference()
    generator.double()
    generator.cell_anchors = BufferList([torch.tensor([[-1.0, -1, 1, 1]])])
    assert generator(features)[0].tensor.shape == (12, 4)


def test_anchors_that_someone_changed_are_made_anew():
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4])
    wanted = generator(maps((3, 4)))[0].tensor.clone()
    generator(maps((3, 4)))[0].scale(2, 2)
    assert torch.equal(generator(maps((3, 4)))[0].tensor, wanted)


@pytest.mark.parametrize("inference", [False, True])
def test_made_in_inference_mode(inference):
    with torch.inference_mode():
        generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4])
    with torch.inference_mode(inference):
        wanted = generator(maps((3, 4)))[0].tensor.clone()
        generator(maps((3, 4)))[0].scale(2, 2)
        assert torch.equal(generator(maps((3, 4)))[0].tensor, wanted)


def test_a_subclass_makes_cells_of_the_strides():
    class Scaled(DefaultAnchorGenerator):
        def generate_cell_anchors(self, sizes, aspect_ratios):
            cell = super().generate_cell_anchors(sizes, aspect_ratios)
            return cell * max(self.strides) / self.num_features

    generator = Scaled(sizes=[[8], [16]], aspect_ratios=[[1.0]], strides=[4, 8])
    assert [cell.tolist() for cell in generator.cell_anchors] == [
        [[-16, -16, 16, 16]],
        [[-32, -32, 32, 32]],
    ]


def test_copies_and_pickles():
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4])
    features = maps((3, 4))
    wanted = generator(features)[0].tensor
    for other in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert torch.equal(other(features)[0].tensor, wanted)


def test_no_state():
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4, 8])
    assert generator.state_dict() == {}
    assert [name for name, _ in generator.named_buffers()] == ["cell_anchors.0", "cell_anchors.1"]
    assert len(generator.cell_anchors) == 2
    assert all(cell.shape == (1, 4) for cell in generator.cell_anchors)


def test_config():
    cfg = get_cfg()
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=16)])
    assert type(generator) is DefaultAnchorGenerator
    assert generator.strides == [16]
    assert generator.offset == 0.0
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    assert build_anchor_generator(cfg, [ShapeSpec(stride=8)] * 2).num_anchors == [45, 45]


@pytest.mark.parametrize(
    "arguments",
    [
        {"offset": 1.0},
        {"offset": -0.1},
        {"sizes": [[1], [2], [3]]},
        {"aspect_ratios": []},
        {"sizes": 8},
    ],
)
def test_bad_arguments(arguments):
    good = {"sizes": [[8]], "aspect_ratios": [[1.0]], "strides": [4, 8], "offset": 0.0}
    with pytest.raises(AssertionError):
        DefaultAnchorGenerator(**{**good, **arguments})


def test_maps_for_other_levels():
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4, 8])
    with pytest.raises(AssertionError, match="2 feature maps, got 1"):
        generator(maps((3, 4)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_script():
    generator = DefaultAnchorGenerator(sizes=[[8, 9]], aspect_ratios=[[1.0]], strides=[4, 8])
    script = torch.jit.script(generator)
    for features in (maps((3, 4), (2, 2)), maps((1, 1), (0, 2))):
        for a, b in zip(script(features), generator(features), strict=True):
            assert torch.equal(a.tensor, b.tensor)


def test_compile():
    generator = DefaultAnchorGenerator(sizes=[[8, 9]], aspect_ratios=[[1.0]], strides=[4])
    graph = torch.compile(
        lambda x: generator([x])[0].tensor, backend="eager", fullgraph=True, dynamic=True
    )
    for size in ((3, 4), (5, 6), (7, 2)):
        (x,) = maps(size)
        assert torch.equal(graph(x), generator([x])[0].tensor)
