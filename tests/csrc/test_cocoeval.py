"""The ops coco_* against slow, obvious references."""

import json

import numpy as np
import pycocotools.mask
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
        "dt_ignore": torch.from_numpy(rng.uniform(size=len(dt_boxes)) < 0.1),
        "gt_crowd": torch.from_numpy(rng.uniform(size=len(gt_boxes)) < 0.2),
        "gt_ignore": torch.from_numpy(rng.uniform(size=len(gt_boxes)) < 0.3),
        "dt_offsets": torch.from_numpy(dt_offsets),
        "gt_offsets": torch.from_numpy(gt_offsets),
    }


def iou_args(groups):
    return [groups[k] for k in ("dt_boxes", "gt_boxes", "gt_crowd", "dt_offsets", "gt_offsets")]


def match_args(groups, return_matches=True):
    keys = (
        "dt_areas",
        "gt_areas",
        "dt_ignore",
        "gt_crowd",
        "gt_ignore",
        "dt_offsets",
        "gt_offsets",
    )
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
        True,
    ]


def reference_iou(dt, gt, crowd):
    width = max(0.0, min(dt[0] + dt[2], gt[0] + gt[2]) - max(dt[0], gt[0]))
    height = max(0.0, min(dt[1] + dt[3], gt[1] + gt[3]) - max(dt[1], gt[1]))
    intersection = width * height
    union = dt[2] * dt[3] + (0 if crowd else gt[2] * gt[3] - intersection)
    return intersection / union if intersection else 0.0


def reference_match(ious, dt_areas, gt_areas, dt_ignore, crowd, ignore, area_range, threshold):
    """Status and matched position of each detection of one group."""

    def outside(area):
        return not area_range[0] <= area <= area_range[1]

    ignored = [bool(i) or outside(a) for i, a in zip(ignore, gt_areas, strict=True)]
    free = set(range(len(ignored)))
    status, matches = [], []
    for row, area, unmatched_ignored in zip(ious, dt_areas, dt_ignore, strict=True):
        reached = [g for g in free if row[g] >= min(threshold, 1 - 1e-10)]
        if reached:
            best = max(reached, key=lambda g: (not ignored[g], row[g], g))
            matches.append(best)
            status.append(IGNORED if ignored[best] else TRUE_POSITIVE)
            if not crowd[best]:
                free.remove(best)
        else:
            matches.append(-1)
            status.append(IGNORED if unmatched_ignored or outside(area) else FALSE_POSITIVE)
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
        # With the COCO API's epsilon.
        precision = true / (true + false + np.spacing(1))
        points.append((true / num_positives, precision, scores[d]))
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
    ious, dt_areas, gt_areas, dt_ignore, crowd, ignore, dt_offsets, gt_offsets = (
        x.numpy() for x in args[:8]
    )
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
                    dt_ignore[dt],
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
            [0.0, 0.0, 0.4, 0.4],  # nothing, but marked to be ignored then
        ],
        dtype=torch.float64,
    )
    status, _, matches = ops.coco_match(
        ious.flatten(),
        torch.full((6,), 10.0).double(),
        torch.full((4,), 10.0).double(),
        torch.tensor([False, True, False, False, False, True]),
        torch.tensor([False, False, False, True]),
        torch.tensor([False, False, True, True]),
        torch.tensor([0, 6]),
        torch.tensor([0, 4]),
        torch.tensor([[0.0, 10.0]]).double(),
        torch.tensor([0.5]).double(),
        True,
    )
    assert matches.flatten().tolist() == [1, 0, 3, 3, -1, -1]
    wanted = [TRUE_POSITIVE, TRUE_POSITIVE, IGNORED, IGNORED, FALSE_POSITIVE, IGNORED]
    assert status.flatten().tolist() == wanted


def test_a_threshold_of_one_leaves_room_for_rounding():
    one, no, pair = torch.ones(2, dtype=torch.float64), torch.tensor([False]), torch.tensor([0, 1])
    iou, ranges = 1 - torch.tensor([1e-11, 1e-9]).double(), torch.tensor([[0.0, 9.0]]).double()
    matched = [
        ops.coco_match(x, one[:1], one[:1], no, no, no, pair, pair, ranges, one[:1], True)[2].item()
        for x in iou.split(1)
    ]
    assert matched == [0, -1]


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
        x.numpy() for x in args[:-1]
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
        np.testing.assert_array_equal(precision[t, :, k, a, m], wanted[0])
        np.testing.assert_array_equal(scores[t, :, k, a, m], wanted[1])
        assert recall[t, k, a, m] == wanted[2]


def test_accumulate_without_scores():
    args = accumulate_args(1)
    wanted = ops.coco_accumulate(*args)
    precision, recall, scores = ops.coco_accumulate(*args[:-1], False)
    assert torch.equal(precision, wanted[0])
    assert torch.equal(recall, wanted[1])
    assert scores.numel() == 0


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
            True,
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


@pytest.mark.parametrize(
    "op",
    [
        "coco_box_iou",
        "coco_keypoint_similarity",
        "coco_encode_masks",
        "coco_mask_areas",
        "coco_mask_iou",
        "coco_match",
        "coco_accumulate",
        "coco_results_json",
    ],
)
def test_opcheck(op):
    groups = random_groups(7, num_groups=5)
    masks = coded(random_masks(7, 3))
    args = {
        "coco_box_iou": iou_args(groups),
        "coco_keypoint_similarity": keypoint_args(7),
        "coco_encode_masks": [random_masks(7, 3)],
        "coco_mask_areas": masks,
        "coco_mask_iou": [
            *masks,
            *masks,
            torch.zeros(3, dtype=torch.bool),
            torch.tensor([0, 1, 3]),
            torch.tensor([0, 1, 3]),
        ],
        "coco_match": match_args(groups),
        "coco_accumulate": accumulate_args(7),
        "coco_results_json": results_args([0.5, 0.25]),
    }[op]
    torch.library.opcheck(getattr(ops, op).default, tuple(args))


def random_masks(seed, count, height=37, width=150):
    """Blobs, noise, and what touches corners; the first is blank, the second full."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), bool)
    for n in range(1, count):
        centre, radius = rng.uniform([0, 0], [height, width]), rng.uniform(1, 60)
        masks[n] = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        if n % 3 == 0:
            masks[n] &= rng.uniform(size=masks[n].shape) < 0.5
    if count > 1:
        masks[1] = True
    return torch.from_numpy(masks)


def coded(masks):
    """The arguments of coco_mask_areas, and a side of coco_mask_iou."""
    codes, lengths = ops.coco_encode_masks(masks)
    end = lengths.cumsum(0)
    num_pixels = torch.full_like(end, masks[0].numel() if len(masks) else 0)
    return [codes, end - lengths, end, num_pixels]


@pytest.mark.parametrize("shape", [(37, 150), (8, 64), (1, 300), (300, 1), (64, 65), (130, 7)])
def test_encoded_masks_are_those_of_pycocotools(shape):
    masks = random_masks(sum(shape), 24, *shape)
    edges = torch.zeros(4, *shape, dtype=torch.bool)  # one pixel in each corner
    edges[0, 0, 0] = edges[1, 0, -1] = edges[2, -1, 0] = edges[3, -1, -1] = True
    masks = torch.cat([masks, edges, ~edges])
    wanted = pycocotools.mask.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy(), np.uint8))
    codes, begin, end, num_pixels = coded(masks)
    got = [codes[b:e].numpy().tobytes() for b, e in zip(begin, end, strict=True)]
    assert got == [rle["counts"] for rle in wanted]
    areas = ops.coco_mask_areas(codes, begin, end, num_pixels)
    assert areas.tolist() == masks.flatten(1).sum(1).tolist()


@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_encoded_masks_without_pixels(shape):
    codes, begin, end, num_pixels = coded(torch.zeros(shape, dtype=torch.bool))
    assert ops.coco_mask_areas(codes, begin, end, num_pixels).tolist() == [0.0] * shape[0]
    assert codes.numpy().tobytes() == b"0" * shape[0]


def test_run_lengths_of_large_masks():
    """Runs that need several characters, differences of both signs, and empty runs."""
    rng = np.random.default_rng(0)
    for runs in ([2**30 - 7, 7], [0, 1, 2**20, 5, 0, 100_000, 3], rng.integers(0, 1 << 17, 40)):
        runs = np.asarray(runs)
        rle = {"size": [int(runs.sum()), 1], "counts": runs.tolist()}
        code = np.frombuffer(
            bytearray(pycocotools.mask.frPyObjects(rle, *rle["size"])["counts"]), np.uint8
        )
        args = torch.from_numpy(code), *map(torch.tensor, ([0], [len(code)], [int(runs.sum())]))
        assert ops.coco_mask_areas(*args).tolist() == [runs[1::2].sum()]


def test_mask_iou_equals_that_of_pixels():
    dt, gt = random_masks(1, 30), random_masks(2, 20)
    gt[15] = dt[12]
    crowd = torch.arange(20) % 4 == 0
    offsets = torch.tensor([0, 0, 9, 9, 30]), torch.tensor([0, 3, 10, 10, 20])
    ious = ops.coco_mask_iou(*coded(dt), *coded(gt), crowd, *offsets)
    wanted = []
    for n in range(4):
        for d in range(offsets[0][n], offsets[0][n + 1]):
            for g in range(offsets[1][n], offsets[1][n + 1]):
                shared = int((dt[d] & gt[g]).sum())
                union = int((dt[d] if crowd[g] else dt[d] | gt[g]).sum())
                wanted.append(shared / union if shared else 0.0)
    assert len(wanted) > 200
    assert ious.tolist() == wanted
    assert ious.max() == 1


@pytest.mark.parametrize(
    "code", [b"", b"5", b"Z", b"_", b"0/", b"@N", b"o" * 30, b"30", b"P" * 13 + b"2"]
)
def test_malformed_run_lengths_are_named(code):
    args = [
        torch.tensor(list(b"4" + code), dtype=torch.uint8),
        torch.tensor([0, 1]),
        torch.tensor([1, 1 + len(code)]),
        torch.tensor([4, 4]),
    ]
    with pytest.raises(RuntimeError, match="mask 1 is not the run lengths of 4 pixels"):
        ops.coco_mask_areas(*args)
    side = [args[0], args[1][1:], args[2][1:], args[3][1:]]
    one = torch.tensor([0, 1])
    with pytest.raises(RuntimeError, match="not the run lengths"):
        ops.coco_mask_iou(*side, *side, torch.tensor([False]), one, one)


def test_masks_beyond_their_characters_are_named():
    with pytest.raises(RuntimeError, match="mask 0 must lie within the 2 characters, got 1 to 3"):
        ops.coco_mask_areas(torch.zeros(2, dtype=torch.uint8), *map(torch.tensor, ([1], [3], [4])))


def keypoint_args(seed, count=7):
    rng = np.random.default_rng(seed)
    dt, gt = (rng.uniform(0, 60, (n, count, 3)) for n in (12, 9))
    dt[:4], dt[4:6] = gt[:4], gt[4:6] + rng.normal(0, 2, (2, count, 3))
    gt[..., 2] = rng.integers(0, 3, gt.shape[:2])
    gt[::3, :, 2] = 0  # none is labelled
    return [
        torch.from_numpy(dt),
        torch.from_numpy(gt),
        torch.from_numpy(rng.uniform(0, 30, (9, 4))),
        torch.from_numpy(rng.uniform(0, 2000, 9)),
        torch.from_numpy(rng.uniform(0.02, 0.2, count)),
        torch.tensor([0, 6, 6, 12]),
        torch.tensor([0, 6, 8, 9]),
    ]


def reference_oks(dt, gt, box, area, sigmas):
    x, y, w, h = box
    similarities = []
    for (dt_x, dt_y, _), (gt_x, gt_y, visible), sigma in zip(dt, gt, sigmas, strict=True):
        if not (gt[:, 2] > 0).any():
            # The distance to the box from (x - w, y - h) to (x + 2 w, y + 2 h).
            gt_x, gt_y = np.clip(dt_x, x - w, x + 2 * w), np.clip(dt_y, y - h, y + 2 * h)
        elif visible == 0:
            continue
        squared = (dt_x - gt_x) ** 2 + (dt_y - gt_y) ** 2
        similarities.append(np.exp(-squared / (2 * area * (2 * sigma) ** 2)))
    return np.mean(similarities)


def test_keypoint_similarity_equals_reference():
    args = keypoint_args(3)
    dt, gt, boxes, areas, sigmas, dt_offsets, gt_offsets = (x.numpy() for x in args)
    wanted = [
        reference_oks(dt[d], gt[g], boxes[g], areas[g], sigmas)
        for n in range(len(dt_offsets) - 1)
        for d in range(*dt_offsets[n : n + 2])
        for g in range(*gt_offsets[n : n + 2])
    ]
    got = ops.coco_keypoint_similarity(*args).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-15)
    assert got.max() == 1


def test_keypoint_similarity_beside_an_object_without_area():
    args = keypoint_args(3)
    args[3] = torch.zeros_like(args[3])
    got = ops.coco_keypoint_similarity(*args)
    assert sorted(got.unique().tolist())[-1] == 1  # of the detections that are the ground truth
    assert got.isfinite().all()


def test_keypoint_similarity_over_the_range_of_exp():
    """One keypoint at a distance of which the exponent goes from 0 to beyond the smallest float."""
    exponents = np.concatenate(
        [[0], np.logspace(-18, 2.9, 500), np.linspace(700, 760, 61), [1e300]]
    )
    dt = np.zeros((len(exponents), 1, 3))
    dt[:, 0, 0] = np.sqrt(exponents)
    got = ops.coco_keypoint_similarity(
        torch.from_numpy(dt),
        torch.tensor([[[0.0, 0.0, 2.0]]], dtype=torch.float64),
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([2.0], dtype=torch.float64),
        torch.tensor([0.25], dtype=torch.float64),
        torch.tensor([0, len(exponents)]),
        torch.tensor([0, 1]),
    ).numpy()
    squared = dt[:, 0, 0] ** 2 / 0.25 / (2 + np.spacing(1)) / 2
    np.testing.assert_allclose(got, np.exp(-squared), rtol=4e-16, atol=1e-307)


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
        ("coco_keypoint_similarity", 0, lambda x: x[..., :2], r"must have the shape \(D, K, 3\)"),
        ("coco_keypoint_similarity", 3, lambda x: x[1:], r"gt_areas must have the shape \(G,\)"),
        ("coco_keypoint_similarity", 4, lambda x: x * 0, "sigmas must be positive, got 0 at 0"),
        ("coco_encode_masks", 0, lambda x: x.byte(), "masks must be bool, got"),
        ("coco_encode_masks", 0, lambda x: x[0], r"masks must have the shape \(N, H, W\)"),
        ("coco_match", 0, lambda x: x[1:], r"ious must have the shape .* got"),
        ("coco_match", 1, lambda x: x[1:], r"dt_ignore must have the shape \(D,\)"),
        ("coco_match", 6, lambda x: x + 1, "dt_offsets must run from 0 to"),
        ("coco_match", 5, lambda x: x.to(torch.uint8), "gt_ignore must be bool, got"),
        ("coco_match", 8, lambda x: x.flatten(), r"area_ranges must have the shape \(A, 2\)"),
        ("coco_match", 9, lambda x: x * torch.nan, "iou_thresholds must not hold NaN"),
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
        "coco_keypoint_similarity": keypoint_args(8),
        "coco_encode_masks": [random_masks(8, 2)],
        "coco_match": match_args(groups),
        "coco_accumulate": accumulate_args(8),
    }[op]
    args[position] = change(args[position])
    with pytest.raises(RuntimeError, match=f"{op}: .*{message}|{op}: {message}"):
        getattr(ops, op)(*args)


def results_args(scores, boxes=None, keypoints=None, masks=None, images=None, ids=("1",)):
    count = len(scores)
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])])
    none = torch.zeros(count, 0, dtype=torch.float64)
    begin, end = (torch.zeros(0, dtype=torch.int64),) * 2
    codes, sizes = torch.zeros(0, dtype=torch.uint8), torch.zeros(0, 2, dtype=torch.int64)
    if masks is not None:
        codes, begin, end, _ = coded(masks)
        sizes = torch.tensor([masks.shape[1:]] * count)
    return [
        torch.tensor(list("".join(ids).encode()), dtype=torch.uint8),
        torch.from_numpy(offsets).long(),
        torch.zeros(count, dtype=torch.int64) if images is None else torch.tensor(images),
        torch.arange(count),
        none if boxes is None else boxes,
        torch.from_numpy(np.asarray(scores, np.float64)),
        codes,
        begin,
        end,
        sizes,
        none if keypoints is None else keypoints,
    ]


def read_results(text):
    assert text.numel() == 0 or text[-2:].numpy().tobytes() == b", "
    return json.loads(b"[" + text.numpy().tobytes()[:-2] + b"]")


def edge_numbers():
    tens, twos = 10.0 ** np.arange(-12, 24), 2.0 ** np.arange(-60, 80)
    exact = np.concatenate([tens, twos, [0.0, 5e-324, 2.2250738585072014e-308, 1.7e308]])
    return np.concatenate([exact, np.nextafter(exact, np.inf), np.nextafter(exact, 0), -exact])


@pytest.mark.parametrize("kind", ["edges", "float32", "float64", "any magnitude", "decimals"])
def test_numbers_read_back_the_same(kind):
    rng = np.random.default_rng(0)
    numbers = {
        "edges": edge_numbers,
        "float32": lambda: rng.uniform(0, 2000, 5000).astype(np.float32),
        "float64": lambda: rng.uniform(-1, 1, 5000),
        "any magnitude": lambda: rng.uniform(1, 10, 5000) * 10.0 ** rng.integers(-300, 300, 5000),
        "decimals": lambda: rng.integers(0, 10**7, 5000) / 10 ** rng.integers(0, 8, 5000),
    }[kind]().astype(np.float64)
    text = ops.coco_results_json(*results_args(numbers))
    got = np.array([result["score"] for result in read_results(text)], np.float64)
    assert np.array_equal(got.view(np.int64), numbers.view(np.int64))
    # Within the range of boxes and scores the text is the shortest, as Python's is.
    written = [part.split(b": ")[-1] for part in text.numpy().tobytes().split(b"}, ")[:-1]]
    for number, digits in zip(numbers.tolist(), written, strict=True):
        if number == 0 or 1e-4 <= abs(number) < 1e15:
            assert digits.decode() == repr(number)


def test_results_of_all_kinds():
    rng = np.random.default_rng(1)
    # Among the last are strings with a backslash, which JSON escapes.
    masks = random_masks(1, 40)[-5:]
    boxes, points = torch.from_numpy(rng.normal(0, 9, (5, 5))), torch.from_numpy(rng.random((5, 6)))
    args = results_args(rng.random(5), boxes, points, masks, [0, 2, 1, 1, 0], ['"a\\\\"', "7", "8"])
    codes, begin, end = args[6:9]
    image_ids = ["a\\", 7, 8]
    wanted = [
        {
            "image_id": image_ids[args[2][n]],
            "category_id": n,
            "bbox": boxes[n].tolist(),
            "score": args[5][n].item(),
            "segmentation": {
                "size": [37, 150],
                "counts": codes[begin[n] : end[n]].numpy().tobytes().decode(),
            },
            "keypoints": points[n].tolist(),
        }
        for n in range(5)
    ]
    assert any("\\" in result["segmentation"]["counts"] for result in wanted)
    assert read_results(ops.coco_results_json(*args)) == wanted
    assert ops.coco_results_json(*results_args([])).numel() == 0


def test_results_of_many_blocks():
    scores = np.arange(5000) / 8
    results = read_results(ops.coco_results_json(*results_args(scores)))
    assert [result["score"] for result in results] == scores.tolist()
    assert list(results[0]) == ["image_id", "category_id", "score"]


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (1, lambda x: x + 1, "image_id_offsets must run from 0 to 1, got 1 to 2"),
        (2, lambda x: x + 1, r"images must be in \[0, 1\), got 1 at 0"),
        (2, lambda x: x - 1, r"images must be in \[0, 1\), got -1 at 0"),
        (3, lambda x: x[1:], r"category_ids must have the shape \(D,\)"),
        (4, lambda x: x[1:], r"boxes must have the shape \(D, B\)"),
        (5, lambda x: x * torch.inf, "scores must be finite, got inf at 0"),
        (10, lambda x: torch.full((2, 3), torch.nan).double(), "keypoints must be finite, got nan"),
    ],
)
def test_bad_results_are_named(position, change, message):
    args = results_args([0.5, 0.25])
    args[position] = change(args[position])
    with pytest.raises(RuntimeError, match=f"coco_results_json: {message}"):
        ops.coco_results_json(*args)
