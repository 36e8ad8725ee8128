"""The ops coco_box_iou, coco_match and coco_accumulate against slow, obvious references."""

import numpy as np
import pytest
import torch

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)

ops = torch.ops.detectron2
FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2
AREA_RANGES = [[0.0, 1e10], [0.0, 300.0], [300.0, 900.0]]
IOU_THRESHOLDS = [0.5, 0.75, 0.0, 1.0]


def random_groups(seed, num_groups=60):
    """Inputs of coco_box_iou and coco_match: 1000 boxes or so, empty groups among them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 9, (2, num_groups)) * (rng.uniform(size=(2, num_groups)) < 0.8)
    dt_offsets, gt_offsets = np.pad(np.cumsum(sizes, axis=1), ((0, 0), (1, 0)))

    def boxes(count):
        # Whole numbers, so that equal IoUs and areas at the end of a range are common.
        return rng.integers(0, [12, 12, 40, 40], (count, 4)).astype(np.float64)

    dt_boxes, gt_boxes = boxes(dt_offsets[-1]), boxes(gt_offsets[-1])
    return {
        "dt_boxes": torch.from_numpy(dt_boxes),
        "gt_boxes": torch.from_numpy(gt_boxes),
        "dt_areas": torch.from_numpy(dt_boxes[:, 2] * dt_boxes[:, 3]),
        "gt_areas": torch.from_numpy(gt_boxes[:, 2] * gt_boxes[:, 3]),
        "gt_crowd": torch.from_numpy(rng.uniform(size=len(gt_boxes)) < 0.2),
        "gt_ignore": torch.from_numpy(rng.uniform(size=len(gt_boxes)) < 0.3),
        "dt_offsets": torch.from_numpy(dt_offsets),
        "gt_offsets": torch.from_numpy(gt_offsets),
    }


def iou_args(groups):
    return [groups[k] for k in ("dt_boxes", "gt_boxes", "gt_crowd", "dt_offsets", "gt_offsets")]


def match_args(groups, return_matches=True):
    keys = ("dt_areas", "gt_areas", "gt_crowd", "gt_ignore", "dt_offsets", "gt_offsets")
    return [
        ops.coco_box_iou(*iou_args(groups)),
        *[groups[key] for key in keys],
        torch.tensor(AREA_RANGES, dtype=torch.float64),
        torch.tensor(IOU_THRESHOLDS, dtype=torch.float64),
        return_matches,
    ]


def accumulate_args(seed, num_dt=200, num_gt=80, num_categories=5):
    rng = np.random.default_rng(seed)

    def offsets(total):
        cuts = np.sort(rng.integers(0, total + 1, num_categories - 1))
        return torch.from_numpy(np.concatenate([[0], cuts, [total]]))

    return [
        torch.from_numpy(rng.integers(0, 3, (2, 3, num_dt)).astype(np.uint8)),
        torch.from_numpy(rng.uniform(size=(2, num_gt)) < 0.5),
        torch.from_numpy(rng.integers(0, 30, num_dt) / 30),
        torch.from_numpy(rng.integers(0, 12, num_dt)),
        offsets(num_dt),
        offsets(num_gt),
        torch.tensor([0.0, 0.7, 0.05, 1.0, 0.3], dtype=torch.float64),
        torch.tensor([1, 5, 100]),
    ]


def reference_iou(dt, gt, crowd):
    width = max(0.0, min(dt[0] + dt[2], gt[0] + gt[2]) - max(dt[0], gt[0]))
    height = max(0.0, min(dt[1] + dt[3], gt[1] + gt[3]) - max(dt[1], gt[1]))
    intersection = width * height
    union = dt[2] * dt[3] + (0 if crowd else gt[2] * gt[3] - intersection)
    return intersection / union if intersection else 0.0


def reference_match(ious, dt_areas, gt_areas, crowd, ignore, area_range, threshold):
    """Status and matched position of each detection of one group."""

    def outside(area):
        return not area_range[0] <= area <= area_range[1]

    ignored = [bool(i) or outside(a) for i, a in zip(ignore, gt_areas, strict=True)]
    free = set(range(len(ignored)))
    status, matches = [], []
    for row, area in zip(ious, dt_areas, strict=True):
        reached = [g for g in free if row[g] >= min(threshold, 1 - 1e-10)]
        if reached:
            best = max(reached, key=lambda g: (not ignored[g], row[g], g))
            matches.append(best)
            status.append(IGNORED if ignored[best] else TRUE_POSITIVE)
            if not crowd[best]:
                free.remove(best)
        else:
            matches.append(-1)
            status.append(IGNORED if outside(area) else FALSE_POSITIVE)
    return status, matches, ignored


def reference_curve(status, scores, ranks, num_positives, recall_thresholds, max_dets):
    """Precision and score at each recall threshold, and the final recall, of one category."""
    if num_positives == 0:
        return [-1] * len(recall_thresholds), [-1] * len(recall_thresholds), -1
    order = sorted(range(len(scores)), key=lambda d: -scores[d])
    order = [d for d in order if ranks[d] < max_dets]
    points, true, false = [], 0, 0
    for d in order:
        true += status[d] == TRUE_POSITIVE
        false += status[d] == FALSE_POSITIVE
        points.append((true / num_positives, true / max(true + false, 1), scores[d]))
    precisions, at_scores = [], []
    for threshold in recall_thresholds:
        reached = [point for point in points if point[0] >= threshold]
        precisions.append(max((p for _, p, _ in reached), default=0))
        at_scores.append(reached[0][2] if reached else 0)
    return precisions, at_scores, true / num_positives


def test_box_iou_of_known_boxes():
    dt = torch.tensor([[0, 0, 10, 10], [5, 0, 10, 10], [30, 30, 5, 5], [3, 3, 0, 4]]).double()
    gt = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 20]]).double()
    offsets = torch.tensor([0, 4]), torch.tensor([0, 2])
    ious = ops.coco_box_iou(dt, gt, torch.tensor([False, True]), *offsets).reshape(4, 2)
    wanted = [[1, 1], [50 / 150, 50 / 100], [0, 0], [0, 0]]
    torch.testing.assert_close(ious, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_box_iou_equals_reference(seed):
    groups = random_groups(seed)
    dt_boxes, gt_boxes, crowd, dt_offsets, gt_offsets = (x.tolist() for x in iou_args(groups))
    wanted = [
        reference_iou(dt_boxes[d], gt_boxes[g], crowd[g])
        for n in range(len(dt_offsets) - 1)
        for d in range(dt_offsets[n], dt_offsets[n + 1])
        for g in range(gt_offsets[n], gt_offsets[n + 1])
    ]
    ious = ops.coco_box_iou(*iou_args(groups))
    torch.testing.assert_close(ious, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_match_equals_reference(seed):
    groups = random_groups(seed)
    args = match_args(groups)
    status, ignored, matches = (x.numpy() for x in ops.coco_match(*args))
    ious, dt_areas, gt_areas, crowd, ignore, dt_offsets, gt_offsets = (x.numpy() for x in args[:7])
    assert status.shape == matches.shape == (3, 4, len(dt_areas))
    pairs = 0
    for n in range(len(dt_offsets) - 1):
        dt, gt = slice(*dt_offsets[n : n + 2]), slice(*gt_offsets[n : n + 2])
        num_dt, num_gt = dt.stop - dt.start, gt.stop - gt.start
        group_ious = ious[pairs : pairs + num_dt * num_gt].reshape(num_dt, num_gt)
        pairs += num_dt * num_gt
        for a, area_range in enumerate(AREA_RANGES):
            for t, threshold in enumerate(IOU_THRESHOLDS):
                wanted = reference_match(
                    group_ious,
                    dt_areas[dt],
                    gt_areas[gt],
                    crowd[gt],
                    ignore[gt],
                    area_range,
                    threshold,
                )
                assert status[a, t, dt].tolist() == wanted[0]
                got = matches[a, t, dt]
                assert np.where(got < 0, -1, got - gt.start).tolist() == wanted[1]
                assert ignored[a, gt].tolist() == wanted[2]
    assert {FALSE_POSITIVE, TRUE_POSITIVE, IGNORED} == set(status.ravel().tolist())


def test_match_rules():
    """One group: what each detection takes, at threshold 0.5."""
    ious = torch.tensor(
        [
            [0.6, 0.6, 0.9, 0.0],  # equal IoUs: the later; 2 is ignored and comes after both
            [0.5, 0.9, 0.0, 0.0],  # 1 is taken: 0, exactly at the threshold
            [0.9, 0.9, 0.7, 0.8],  # 0 and 1 are taken: the better of the ignored, a crowd
            [0.0, 0.0, 0.0, 0.8],  # the crowd again
            [0.9, 0.9, 0.5 - 1e-9, 0.4],  # nothing is left
        ],
        dtype=torch.float64,
    )
    status, _, matches = ops.coco_match(
        ious.flatten(),
        torch.full((5,), 10.0).double(),
        torch.full((4,), 10.0).double(),
        torch.tensor([False, False, False, True]),
        torch.tensor([False, False, True, True]),
        torch.tensor([0, 5]),
        torch.tensor([0, 4]),
        torch.tensor([[0.0, 10.0]]).double(),
        torch.tensor([0.5]).double(),
        True,
    )
    assert matches.flatten().tolist() == [1, 0, 3, 3, -1]
    wanted = [TRUE_POSITIVE, TRUE_POSITIVE, IGNORED, IGNORED, FALSE_POSITIVE]
    assert status.flatten().tolist() == wanted


def test_match_without_matches():
    args = match_args(random_groups(0))
    status, ignored, matches = ops.coco_match(*args)
    got = ops.coco_match(*args[:-1], False)
    assert torch.equal(got[0], status)
    assert torch.equal(got[1], ignored)
    assert got[2].shape == (*matches.shape[:2], 0)


@pytest.mark.parametrize("seed", range(3))
def test_accumulate_equals_reference(seed):
    args = accumulate_args(seed)
    precision, recall, scores = ops.coco_accumulate(*args)
    status, ignored, dt_scores, ranks, dt_offsets, gt_offsets, recalls, limits = (
        x.numpy() for x in args
    )
    assert precision.shape == scores.shape == (3, 5, 5, 2, 3)
    assert recall.shape == (3, 5, 2, 3)
    for t, k, a, m in np.ndindex(*recall.shape):
        dt, gt = slice(*dt_offsets[k : k + 2]), slice(*gt_offsets[k : k + 2])
        wanted = reference_curve(
            status[a, t, dt],
            dt_scores[dt],
            ranks[dt],
            np.count_nonzero(~ignored[a, gt]),
            recalls,
            limits[m],
        )
        # The op, like the COCO API, adds 2.2e-16 to the number of detections.
        np.testing.assert_allclose(precision[t, :, k, a, m], wanted[0], rtol=0, atol=1e-15)
        np.testing.assert_array_equal(scores[t, :, k, a, m], wanted[1])
        assert recall[t, k, a, m] == wanted[2]


def test_accumulate_without_detections_or_ground_truths():
    status = torch.zeros((1, 1, 0), dtype=torch.uint8)
    empty = torch.zeros(0, dtype=torch.float64)
    for num_gt, wanted in ((0, -1), (2, 0)):
        outputs = ops.coco_accumulate(
            status,
            torch.zeros((1, num_gt), dtype=torch.bool),
            empty,
            empty.long(),
            torch.tensor([0, 0]),
            torch.tensor([0, num_gt]),
            torch.tensor([0.0, 1.0]).double(),
            torch.tensor([1]),
        )
        for output in outputs:
            assert output.flatten().unique().tolist() == [wanted]


def test_threads_do_not_change_results():
    args = match_args(random_groups(5, num_groups=3000))
    sums = accumulate_args(5, num_dt=5000, num_gt=2000, num_categories=40)
    outputs, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outputs.append([*ops.coco_match(*args), *ops.coco_accumulate(*sums)])
    finally:
        torch.set_num_threads(threads)
    for other in outputs[1:]:
        assert all(map(torch.equal, outputs[0], other))


def test_strided_inputs():
    groups = random_groups(6)
    args = iou_args(groups)
    wanted = ops.coco_box_iou(*args)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in args]
    assert not strided[0].is_contiguous()
    assert torch.equal(ops.coco_box_iou(*strided), wanted)


@pytest.mark.parametrize("op", ["coco_box_iou", "coco_match", "coco_accumulate"])
def test_opcheck(op):
    groups = random_groups(7, num_groups=5)
    args = {
        "coco_box_iou": iou_args(groups),
        "coco_match": match_args(groups),
        "coco_accumulate": accumulate_args(7),
    }[op]
    torch.library.opcheck(getattr(ops, op).default, tuple(args))


@pytest.mark.parametrize(
    ("op", "position", "change", "message"),
    [
        ("coco_box_iou", 0, lambda x: x.float(), "dt_boxes must be float64, got float32"),
        ("coco_box_iou", 0, lambda x: x[:, :3], r"dt_boxes must have the shape \(D, 4\), got"),
        ("coco_box_iou", 1, lambda x: x * torch.nan, "gt_boxes must not hold NaN, got one at 0"),
        ("coco_box_iou", 2, lambda x: x[1:], r"gt_crowd must have the shape \(G,\), got"),
        ("coco_box_iou", 3, lambda x: x + 1, "dt_offsets must run from 0 to"),
        ("coco_box_iou", 3, lambda x: x[:0], "dt_offsets must have one element more"),
        ("coco_box_iou", 4, lambda x: x[1:], "gt_offsets must have one element more"),
        ("coco_match", 0, lambda x: x[1:], r"ious must have the shape .* got"),
        ("coco_match", 1, lambda x: x[1:], "dt_offsets must run from 0 to"),
        ("coco_match", 4, lambda x: x.to(torch.uint8), "gt_ignore must be bool, got"),
        ("coco_match", 7, lambda x: x.flatten(), r"area_ranges must have the shape \(A, 2\)"),
        ("coco_match", 8, lambda x: x * torch.nan, "iou_thresholds must not hold NaN"),
        ("coco_accumulate", 1, lambda x: x[:1], r"gt_ignored must have the shape \(A, G\)"),
        ("coco_accumulate", 2, lambda x: x[1:], r"dt_scores must have the shape \(D,\)"),
        ("coco_accumulate", 2, lambda x: x * torch.nan, "dt_scores must not hold NaN"),
        ("coco_accumulate", 3, lambda x: x.int(), "dt_ranks must be int64, got int32"),
        ("coco_accumulate", 4, lambda x: x.flip(0), "dt_category_offsets must run from 0 to"),
        ("coco_accumulate", 5, lambda x: x[[0, 2, 1, 3, 4, 5]], "must not decrease, got"),
        ("coco_accumulate", 6, lambda x: x * torch.nan, "recall_thresholds must not hold NaN"),
    ],
)
def test_bad_inputs_are_named(op, position, change, message):
    groups = random_groups(8)
    args = {
        "coco_box_iou": iou_args(groups),
        "coco_match": match_args(groups),
        "coco_accumulate": accumulate_args(8),
    }[op]
    args[position] = change(args[position])
    with pytest.raises(RuntimeError, match=f"{op}: .*{message}|{op}: {message}"):
        getattr(ops, op)(*args)
