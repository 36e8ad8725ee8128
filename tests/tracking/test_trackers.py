"""Trackers, against their rules followed pair by pair."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest
import torch

from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.tracking import (
    BaseHungarianTracker,
    BaseTracker,
    BBoxIOUTracker,
    IOUWeightedHungarianBBoxIOUTracker,
    VanillaHungarianBBoxIOUTracker,
    build_tracker_head,
    create_prediction_pairs,
)
from detectron2.tracking.utils import LARGE_COST_VALUE

SIZE = {"video_height": 240, "video_width": 320}
A, B, C = [10.0, 10, 60, 60], [200.0, 100, 260, 160], [100.0, 150, 150, 200]
ALL = [BBoxIOUTracker, VanillaHungarianBBoxIOUTracker, IOUWeightedHungarianBBoxIOUTracker]

needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="Hungarian trackers need SciPy"
)
each_kind = pytest.mark.parametrize(
    "kind", [ALL[0], *(pytest.param(kind, marks=needs_scipy) for kind in ALL[1:])]
)


def frame(*boxes, **fields):
    instances = Instances((240, 320), pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    instances.scores = torch.ones(len(boxes))
    for name, value in fields.items():
        instances.set(name, value)
    return instances


def tracks(instances):
    return list(zip(instances.ID, instances.ID_period, instances.lost_frame_count, strict=True))


class SlowTracker:
    """A track is a dict; boxes are lists."""

    def __init__(self, kind, threshold, max_lost, min_period, min_dim):
        self.kind, self.threshold = kind, threshold
        self.max_lost, self.min_period, self.min_dim = max_lost, min_period, min_dim
        self.previous, self.new_ids = None, itertools.count()

    @staticmethod
    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        inner = max(width, 0) * max(height, 0)
        return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)

    def cost(self, a, b):
        iou = self.iou(a, b)
        if iou < self.threshold:
            return 100_000
        return -1 if self.kind is VanillaHungarianBBoxIOUTracker else -iou

    def first_fit(self, boxes):
        pairs = {}
        for i, j in itertools.product(range(len(boxes)), range(len(self.previous))):
            is_free = i not in pairs and j not in pairs.values()
            if is_free and self.iou(boxes[i], self.previous[j]["box"]) >= self.threshold:
                pairs[i] = j
        return pairs

    def total_cost(self, boxes, pairs):
        return sum(self.cost(boxes[i], self.previous[j]["box"]) for i, j in pairs)

    def least_cost(self, boxes):
        """Of every way to match as many as possible."""
        current, old = range(len(boxes)), range(len(self.previous))
        if len(current) <= len(old):
            ways = (
                zip(current, way, strict=True) for way in itertools.permutations(old, len(boxes))
            )
        else:
            ways = (zip(way, old, strict=True) for way in itertools.permutations(current, len(old)))
        return min(self.total_cost(boxes, way) for way in ways)

    def pairs_of(self, boxes, ids):
        """What a tracker has matched, checked to be right."""
        if self.previous is None:
            return {}
        old = [track["id"] for track in self.previous]
        pairs = {i: old.index(ids[i]) for i in range(len(boxes)) if ids[i] in old}
        if self.kind is BBoxIOUTracker:
            assert pairs == self.first_fit(boxes)
        else:
            # Several ways may cost the least.
            assert len(pairs) == min(len(boxes), len(old))
            assert self.total_cost(boxes, pairs.items()) == pytest.approx(
                self.least_cost(boxes), abs=1e-4
            )
        return pairs

    def update(self, boxes, ids):
        pairs = self.pairs_of(boxes, ids)
        current = []
        for i, box in enumerate(boxes):
            if i in pairs:
                old = self.previous[pairs[i]]
                current.append(
                    {"id": old["id"], "period": old["period"] + 1, "lost": 0, "box": box}
                )
            else:
                current.append({"id": None, "period": 1, "lost": 0, "box": box})
        for track in current:
            if track["id"] is None:
                track["id"] = next(self.new_ids)
        for j, old in enumerate(self.previous or []):
            shares = (old["box"][2] - old["box"][0]) / 320, (old["box"][3] - old["box"][1]) / 240
            is_kept = (
                min(shares) >= self.min_dim
                and old["lost"] < self.max_lost
                and old["period"] > self.min_period
            )
            if j not in pairs.values() and is_kept:
                current.append({**old, "lost": old["lost"] + 1})
        self.previous = current
        return current


def random_video(generator, frames=15, objects=4):
    """Boxes of objects that move, come, and are missed at times, in random order."""
    centers = generator.uniform(40, 200, (objects, 2))
    velocities = generator.uniform(-6, 6, (objects, 2))
    sizes = generator.uniform(4, 60, (objects, 2))
    for t in range(frames):
        seen = generator.permutation(np.flatnonzero(generator.random(objects) > 0.3))
        c = centers + t * velocities + generator.normal(0, 2, (objects, 2))
        yield np.concatenate([c - sizes / 2, c + sizes / 2], axis=1)[seen].tolist()


@each_kind
@pytest.mark.parametrize("seed", range(8))
def test_random_videos(kind, seed):
    generator = np.random.default_rng(seed)
    threshold, max_lost, min_period = [0.3, 0.6][seed % 2], seed % 4, seed % 3
    slow = SlowTracker(kind, threshold, max_lost, min_period, 0.05)
    tracker = kind(
        **SIZE,
        max_lost_frame_count=max_lost,
        min_instance_period=min_period,
        min_box_rel_dim=0.05,
        track_iou_threshold=threshold,
    )
    for boxes in random_video(generator):
        result = tracker.update(frame(*boxes))
        expected = slow.update(boxes, result.ID)
        assert tracks(result) == [(t["id"], t["period"], t["lost"]) for t in expected]
        np.testing.assert_allclose(
            result.pred_boxes.tensor, np.reshape([t["box"] for t in expected], (-1, 4)), rtol=1e-5
        )


@each_kind
def test_a_short_video(kind):
    tracker = kind(**SIZE, max_lost_frame_count=1)
    assert tracks(tracker.update(frame(A, B))) == [(0, 1, 0), (1, 1, 0)]
    assert tracks(tracker.update(frame(B, A))) == [(1, 2, 0), (0, 2, 0)]
    assert tracks(tracker.update(frame(B))) == [(1, 3, 0), (0, 2, 1)]
    assert tracks(tracker.update(frame(A, C, B))) == [(0, 3, 0), (2, 1, 0), (1, 4, 0)]
    # Seen once, C is not waited for; the others are, for a frame.
    assert tracks(tracker.update(frame())) == [(0, 3, 1), (1, 4, 1)]
    assert tracks(tracker.update(frame())) == []
    assert tracks(tracker.update(frame(A))) == [(3, 1, 0)]


@each_kind
def test_the_limit_holds_from_the_first_frame_on(kind):
    """Upstream follows all instances of the first frame."""
    tracker = kind(**SIZE, max_num_instances=2, max_lost_frame_count=5, min_instance_period=0)
    scores = torch.tensor([0.9, 0.2, 0.5])
    assert tracker.update(frame(A, B, C, scores=scores)).ID == [0, 1, 2]
    assert tracker.update(frame(A, B, C, scores=scores)).ID == [0, 3, 2]


def test_those_that_are_there_go_before_the_lost_ones():
    limits = {"max_num_instances": 2, "max_lost_frame_count": 5, "min_instance_period": 0}
    tracker = BBoxIOUTracker(**SIZE, **limits)
    scores = torch.tensor([0.9, 0.2, 0.5])
    tracker.update(frame(A, B, C, scores=scores))
    low = torch.tensor([0.1])
    assert tracks(tracker.update(frame(B, scores=low))) == [(3, 1, 0), (0, 1, 1), (2, 1, 1)]
    assert tracker.update(frame(A, B, C, scores=scores)).ID == [0, 3, 4]


def test_without_scores_the_first_are_followed():
    tracker = BBoxIOUTracker(**SIZE, max_num_instances=1)
    for expected in ([0, 1], [0, 2]):
        instances = frame(A, B)
        instances.remove("scores")
        ids = tracker.update(instances).ID
        assert ids == expected
    assert BBoxIOUTracker(**SIZE, max_num_instances=0).update(frame(A)).ID == [0]


def test_a_greedy_match_is_the_first_and_not_the_best():
    tracker = BBoxIOUTracker(**SIZE)
    tracker.update(frame([0.0, 0, 50, 50], [10.0, 0, 60, 50]))
    assert tracker.update(frame([9.0, 0, 59, 50], [1.0, 0, 51, 50])).ID == [0, 1]


@needs_scipy
def test_costs_are_not_truncated():
    """With upstream's integers every cost is 0, and the assignment is arbitrary."""
    boxes = [0.0, 0, 50, 50], [10.0, 0, 60, 50], [20.0, 0, 70, 50]
    moved = [[box[0] + 1, box[1], box[2] + 1, box[3]] for box in boxes]
    for order in itertools.permutations(range(3)):
        tracker = IOUWeightedHungarianBBoxIOUTracker(**SIZE, track_iou_threshold=0.3)
        tracker.update(frame(*boxes))
        ids = tracker.update(frame(*(moved[i] for i in order))).ID
        assert ids == list(order)
    pairs = [{"idx": 0, "prev_idx": 1, "IoU": 0.75}]
    costs = tracker.assign_cost_matrix_values(np.full((1, 2), LARGE_COST_VALUE), pairs)
    assert costs.tolist() == [[LARGE_COST_VALUE, -0.75]]


def test_cost_matrices():
    previous = frame(A, B)
    previous.ID, previous.ID_period = [7, 8], [2, 5]
    current = frame([10.0, 10, 60, 50], [300.0, 0, 310, 10])
    vanilla = VanillaHungarianBBoxIOUTracker(**SIZE).build_cost_matrix(current, previous)
    weighted = IOUWeightedHungarianBBoxIOUTracker(**SIZE).build_cost_matrix(current, previous)
    large = LARGE_COST_VALUE
    assert vanilla.tolist() == [[-1, large], [large, large]]
    np.testing.assert_allclose(weighted, [[-0.8, large], [large, large]])


@needs_scipy
def test_whatever_a_match_costs_it_is_made():
    tracker = VanillaHungarianBBoxIOUTracker(**SIZE)
    tracker.update(frame(A))
    assert tracks(tracker.update(frame(B))) == [(0, 2, 0)]


def test_pairs():
    previous = frame(A, B, C)
    previous.ID, previous.ID_period = [7, 8, 9], [2, 5, 1]
    iou = np.array([[0.5, 0.2, 0.9], [0.0, np.nan, 0.49]])
    expected = [
        {"idx": 0, "prev_idx": 0, "prev_id": 7, "IoU": 0.5, "prev_period": 2},
        {"idx": 0, "prev_idx": 2, "prev_id": 9, "IoU": 0.9, "prev_period": 1},
    ]
    for matrix in (iou, torch.from_numpy(iou)):
        assert create_prediction_pairs(frame(A, B), previous, matrix) == expected
    assert len(create_prediction_pairs(frame(A, B), previous, iou, threshold=0.2)) == 4
    with pytest.raises(ValueError, match=r"2 and 3 instances has the shape \(3, 2\)"):
        create_prediction_pairs(frame(A, B), previous, iou.T)


@each_kind
def test_lost_instances_keep_their_fields(kind):
    """Upstream their masks and classes turn into integers of 32 bits, and other fields are lost."""
    masks = torch.zeros(2, 240, 320, dtype=torch.bool)
    masks[1, 5] = True
    fields = {
        "pred_masks": masks,
        "pred_classes": torch.tensor([3, 4]),
        "scores": torch.tensor([0.25, 0.75]),
        "names": ["a", "b"],
    }
    if kind is BBoxIOUTracker:
        fields["pred_keypoints"] = torch.tensor([0.5, 1.5]).reshape(2, 1, 1).repeat(1, 2, 3)
    tracker = kind(**SIZE, max_lost_frame_count=2, min_instance_period=0)
    tracker.update(frame(A, B, **fields))
    # What the tracker remembers is its own.
    masks[1] = False
    one = {name: value[:1] for name, value in fields.items()}
    result = tracker.update(frame(A, **one))
    assert tracks(result) == [(0, 2, 0), (1, 1, 1)]
    assert result.pred_masks.dtype == torch.bool
    assert result.pred_masks[1].sum() == 320
    assert result.pred_classes.tolist() == [3, 4]
    assert result.pred_classes.dtype == torch.int64
    assert result.scores.tolist() == [0.25, 0.75]
    assert result.names == ["a", "b"]
    assert result.pred_boxes.tensor.tolist() == [A, B]
    if kind is BBoxIOUTracker:
        assert result.pred_keypoints[:, 0, 0].tolist() == [0.5, 1.5]


def test_hungarian_trackers_refuse_keypoints():
    tracker = VanillaHungarianBBoxIOUTracker(**SIZE)
    with pytest.raises(NotImplementedError, match="'pred_keypoints', or use BBoxIOUTracker"):
        tracker.update(frame(A, pred_keypoints=torch.zeros(1, 2, 3)))


def test_scipy_is_needed_by_hungarian_trackers_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    for kind in ALL:
        tracker = kind(**SIZE)
        tracker.update(frame(A))
        if kind is BBoxIOUTracker:
            tracker.update(frame(A))
        else:
            with pytest.raises(ImportError, match="pip install scipy"):
                tracker.update(frame(A))


@each_kind
def test_config(kind):
    cfg = CfgNode({"TRACKER_HEADS": {"TRACKER_NAME": kind.__name__, "VIDEO_HEIGHT": 240}})
    with pytest.raises(AttributeError, match="VIDEO_WIDTH"):
        build_tracker_head(cfg)
    cfg.TRACKER_HEADS.VIDEO_WIDTH = 320
    tracker = build_tracker_head(cfg)
    assert type(tracker) is kind
    explicit = kind(**SIZE)
    assert vars(tracker) == vars(explicit)
    given = {
        "MAX_NUM_INSTANCES": 3,
        "MAX_LOST_FRAME_COUNT": 4,
        "MIN_BOX_REL_DIM": 0.5,
        "MIN_INSTANCE_PERIOD": 6,
        "TRACK_IOU_THRESHOLD": 0.7,
    }
    cfg.TRACKER_HEADS.update(given)
    arguments = {name.lower(): value for name, value in given.items()}
    assert vars(build_tracker_head(cfg)) == vars(kind(**SIZE, **arguments))
    assert vars(explicit) != vars(kind(**SIZE, **arguments))
    target = kind.from_config(cfg)["_target_"]
    assert target == f"{kind.__module__}.{kind.__name__}"


def test_abstract_trackers():
    with pytest.raises(NotImplementedError, match="BaseTracker has no update"):
        BaseTracker().update(frame(A))
    with pytest.raises(NotImplementedError, match="BaseTracker has no from_config"):
        BaseTracker(CfgNode())
    tracker = BaseHungarianTracker(240, 320)
    tracker.update(frame(A))
    with pytest.raises(NotImplementedError, match="BaseHungarianTracker has no build_cost_matrix"):
        tracker.update(frame(A))


def test_arguments_that_make_no_sense():
    with pytest.raises(ValueError, match="positive, got 0 and 320"):
        BBoxIOUTracker(video_height=0, video_width=320)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        BBoxIOUTracker(**SIZE, max_num_instances=-1)


@pytest.mark.gpu
@each_kind
def test_on_the_gpu(kind):
    trackers = [kind(**SIZE, max_num_instances=3, max_lost_frame_count=2) for _ in range(2)]
    for boxes in random_video(np.random.default_rng(0)):
        on_cpu, on_gpu = (
            tracker.update(frame(*boxes).to(device))
            for tracker, device in zip(trackers, ("cpu", "cuda"), strict=True)
        )
        assert on_gpu.pred_boxes.device.type == "cuda"
        assert tracks(on_gpu) == tracks(on_cpu)
