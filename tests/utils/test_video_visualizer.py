"""Colours of instances over the frames of a video."""

import types

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer, _DetectedInstance
from detectron2.utils.visualizer import ColorMode

HEIGHT, WIDTH = 120, 160
METADATA = types.SimpleNamespace(thing_classes=["cat", "dog"], stuff_classes=["sky", "sea"])
FRAME = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def at(x: float, label: int = 0, y: float = 20) -> _DetectedInstance:
    return _DetectedInstance(label, np.array([x, y, x + 40, y + 40]), None, None, 8)


def make_instances(boxes: list[list[float]], **fields) -> Instances:
    return Instances(
        (HEIGHT, WIDTH),
        pred_boxes=Boxes(torch.tensor(boxes)),
        scores=torch.full((len(boxes),), 0.9),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
        **fields,
    )


def same(first, second) -> bool:
    return tuple(first) == tuple(second)


def test_colors_follow_boxes() -> None:
    video = VideoVisualizer(METADATA)
    first, second = video._assign_colors([at(10), at(100)])
    assert not same(first, second)
    # They come in another order, a bit further on.
    moved = video._assign_colors([at(104), at(13)])
    assert same(moved[0], second)
    assert same(moved[1], first)


def test_another_class_or_place_has_another_color() -> None:
    video = VideoVisualizer(METADATA)
    (first,) = video._assign_colors([at(10)])
    assert not same(video._assign_colors([at(10, label=1)])[0], first)
    assert not same(video._assign_colors([at(90)])[0], first)


def test_overlap_is_that_of_corners() -> None:
    """Boxes side by side do not overlap, though they would, read as (x, y, w, h)."""
    video = VideoVisualizer(METADATA)
    (first,) = video._assign_colors([at(1000, y=1000)])
    assert not same(video._assign_colors([at(1050, y=1000)])[0], first)


@pytest.mark.parametrize(("frames", "is_kept"), [(7, True), (8, False)])
def test_colors_are_remembered_for_some_frames(frames: int, is_kept: bool) -> None:
    np.random.seed(0)
    video = VideoVisualizer(METADATA)
    video._assign_colors([at(10)])
    for _ in range(frames):
        video._assign_colors([at(100)])
    assert len(video._old_instances) == (2 if is_kept else 1)


def test_best_overlap_wins() -> None:
    video = VideoVisualizer(METADATA)
    first, second = video._assign_colors([at(10), at(18)])
    moved = video._assign_colors([at(17), at(11)])
    assert same(moved[0], second)
    assert same(moved[1], first)


def test_colors_by_id() -> None:
    video = VideoVisualizer(METADATA)
    assert video._max_num_instances == 74
    boxes = [[10.0, 10, 50, 50], [60, 10, 100, 50]]
    first, second = video._assign_colors_by_id(make_instances(boxes, ID=[3, 8]))
    again = video._assign_colors_by_id(make_instances(boxes, ID=[8, 4]))
    assert same(again[0], second)
    assert not same(again[1], second)
    assert len(video._color_pool) == 74 - 2
    assert not same(first, second)


@pytest.mark.parametrize("maximum", [1, 200])
def test_more_ids_than_colors(maximum: int) -> None:
    metadata = types.SimpleNamespace(max_num_instances=maximum)
    instances = make_instances([[10.0, 10, 50, 50]] * 80, ID=list(range(80)))
    assert len(VideoVisualizer(metadata)._assign_colors_by_id(instances)) == 80


def test_given_colors() -> None:
    masks = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 30:90, 30:90] = True
    instances = make_instances([[30.0, 30, 90, 90]], COLOR=[(1.0, 0, 0)], pred_masks=masks)
    picture = VideoVisualizer(METADATA).draw_instance_predictions(FRAME, instances).get_image()
    assert picture[85, 85].tolist() == [178, 50, 50]


def test_same_picture_twice() -> None:
    video = VideoVisualizer(METADATA)
    instances = make_instances([[10.0, 10, 50, 50], [60, 10, 100, 50]])
    first = video.draw_instance_predictions(FRAME, instances).get_image()
    assert (first != FRAME).any()
    np.testing.assert_array_equal(
        video.draw_instance_predictions(FRAME, instances).get_image(), first
    )


def test_hidden_until_tracked_for_long() -> None:
    instances = make_instances([[10.0, 10, 50, 50], [60, 10, 100, 50]], ID=[1, 2], ID_period=[1, 3])
    metadata = types.SimpleNamespace(period_threshold=2)
    picture = VideoVisualizer(metadata).draw_instance_predictions(FRAME, instances).get_image()
    assert (picture[:, :55] == 100).all()
    assert (picture[:, 56:] != 100).any()


def test_nothing_predicted() -> None:
    frame = FRAME.copy()
    frame[..., 0] = 220
    empty = make_instances([[1.0, 1, 2, 2]])[torch.zeros(1, dtype=torch.bool)]
    picture = VideoVisualizer(METADATA).draw_instance_predictions(frame, empty)
    np.testing.assert_array_equal(picture.get_image(), frame)
    grey = VideoVisualizer(METADATA, ColorMode.IMAGE_BW).draw_instance_predictions(frame, empty)
    assert (grey.get_image() == 140).all()


@pytest.mark.parametrize("mode", [ColorMode.IMAGE, ColorMode.IMAGE_BW])
def test_panoptic_and_semantic(mode: ColorMode) -> None:
    video = VideoVisualizer(METADATA, mode)
    segments = np.zeros((HEIGHT, WIDTH), int)
    segments[:50], segments[60:100, 20:80] = 1, 2
    infos = [
        {"id": 1, "isthing": False, "category_id": 1},
        {"id": 2, "isthing": True, "category_id": 0},
    ]
    pictures = [
        video.draw_panoptic_seg_predictions(FRAME, segments, infos).get_image() for _ in range(2)
    ]
    assert (pictures[0][10, 10] != 100).any()
    np.testing.assert_array_equal(pictures[0][60:100, 20:80], pictures[1][60:100, 20:80])
    assert (video.draw_sem_seg(FRAME, segments % 2).get_image() != 100).any()


def test_other_modes() -> None:
    with pytest.raises(ValueError, match="SEGMENTATION"):
        VideoVisualizer(METADATA, ColorMode.SEGMENTATION)
