"""From pixel classes, centres and offsets to segments, against loops."""

import numpy as np
import pytest
import torch

from detectron2.projects.panoptic_deeplab._instances import instances_of_panoptic
from detectron2.projects.panoptic_deeplab.post_processing import (
    find_instance_center,
    get_instance_segmentation,
    get_panoptic_segmentation,
    group_pixels,
    merge_semantic_and_instance,
)

DIVISOR = 100


def slow_centers(heat, threshold, kernel):
    height, width = heat.shape
    reach = kernel // 2
    found = []
    for y, x in np.ndindex(height, width):
        window = heat[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if heat[y, x] > threshold and heat[y, x] == window.max():
            found.append([y, x])
    return found


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_centers(kernel):
    heat = np.random.rand(13, 17).astype(np.float32)
    # A plateau: both of its pixels are maxima.
    heat[4, 4:6] = 2
    expected = slow_centers(heat, 0.4, kernel)
    found = find_instance_center(torch.from_numpy(heat)[None], 0.4, kernel)
    assert found.tolist() == expected
    best = sorted(expected, key=lambda p: -heat[p[0], p[1]])[:5]
    top = find_instance_center(torch.from_numpy(heat)[None], 0.4, kernel, top_k=5)
    assert top.tolist() == sorted(best)


def test_top_k_is_k():
    heat = torch.zeros(1, 9, 9)
    heat[0, ::4, ::4] = torch.arange(1.0, 10).view(3, 3)
    assert find_instance_center(heat, top_k=2).tolist() == [[8, 4], [8, 8]]


def test_no_center_below_zero():
    assert len(find_instance_center(torch.full((1, 4, 4), -1.0), threshold=-2)) == 0


def test_bad_centers():
    with pytest.raises(ValueError, match="got 4"):
        find_instance_center(torch.zeros(1, 5, 5), nms_kernel=4)
    with pytest.raises(ValueError, match=r"\(1, H, W\)"):
        find_instance_center(torch.zeros(5, 5))


@pytest.mark.parametrize("at_once", [1 << 26, 50])
def test_group_pixels(monkeypatch, at_once):
    module = "detectron2.projects.panoptic_deeplab.post_processing"
    monkeypatch.setattr(f"{module}._DISTANCES_AT_ONCE", at_once)
    centers = torch.tensor([[2, 3], [8, 1], [5, 9]])
    offsets = 3 * torch.randn(2, 10, 12)
    groups = group_pixels(centers, offsets)
    assert groups.shape == (1, 10, 12)
    for y, x in np.ndindex(10, 12):
        target = np.array([y, x]) + offsets[:, y, x].numpy()
        distances = np.linalg.norm(centers.numpy() - target, axis=1)
        assert groups[0, y, x] == 1 + distances.argmin()


def test_group_pixels_of_a_large_image():
    """Squares of coordinates in float32 leave no pixel of difference here."""
    offsets = torch.zeros(2, 1, 4096)
    groups = group_pixels(torch.tensor([[0, 4000], [0, 4002]]), offsets)
    assert (groups[0, 0, :4001] == 1).all()
    assert (groups[0, 0, 4002:] == 2).all()


def test_group_pixels_in_half_precision():
    offsets = torch.zeros(2, 1, 4096, dtype=torch.float16)
    groups = group_pixels(torch.tensor([[0, 4001], [0, 4004]]), offsets)
    assert groups[0, 0, 4001:4005].tolist() == [1, 1, 2, 2]


def test_group_pixels_needs_centers():
    with pytest.raises(ValueError, match="K > 0"):
        group_pixels(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(2, 4, 4))


def slow_merge(sem_seg, ins_seg, thing_seg, thing_ids, stuff_area, void):
    panoptic = np.full_like(sem_seg, void)
    of_class = {}
    for instance in range(1, ins_seg.max() + 1):
        mask = (ins_seg == instance) & (thing_seg > 0)
        if mask.any():
            label = np.bincount(sem_seg[mask]).argmax()
            of_class[label] = of_class.get(label, 0) + 1
            panoptic[mask] = label * DIVISOR + of_class[label]
    for label in np.unique(sem_seg):
        mask = (sem_seg == label) & (ins_seg == 0)
        if label not in thing_ids and mask.sum() >= stuff_area:
            panoptic[mask] = label * DIVISOR
    return panoptic


@pytest.mark.parametrize("seed", range(8))
def test_merge(seed):
    generator = np.random.default_rng(seed)
    sem_seg = generator.integers(0, 6, (12, 14))
    ins_seg = generator.integers(0, 9, (12, 14))
    ins_seg[ins_seg == 4] = 0
    ins_seg[generator.random((12, 14)) < 0.5] = 0
    thing_seg = (generator.random((12, 14)) < 0.8).astype(np.int64)
    areas = np.bincount(sem_seg[ins_seg == 0], minlength=6)
    # Of as many pixels as stuff has to have, and of one fewer.
    stuff_area = int(areas[4]) + seed % 2
    merged = merge_semantic_and_instance(
        *(torch.from_numpy(x)[None] for x in (sem_seg, ins_seg, thing_seg)),
        label_divisor=DIVISOR,
        thing_ids=[1, 2, 3],
        stuff_area=stuff_area,
        void_label=-1,
    )
    expected = slow_merge(sem_seg, ins_seg, thing_seg, [1, 2, 3], stuff_area, -1)
    np.testing.assert_array_equal(merged[0], expected)
    assert (4 * DIVISOR in merged) == (seed % 2 == 0)


def scene():
    """Two things of a class side by side, one of another class, and stuff."""
    sem_seg = torch.zeros(1, 20, 30, dtype=torch.int64)
    heat, offsets = torch.zeros(1, 20, 30), torch.zeros(2, 20, 30)
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    boxes = [(2, 2, 9, 7), (2, 7, 9, 12), (10, 14, 19, 29)]
    for (top, left, bottom, right), label in zip(boxes, (2, 2, 3), strict=True):
        window = slice(top, bottom), slice(left, right)
        cy, cx = (top + bottom - 1) // 2, (left + right - 1) // 2
        sem_seg[0][window] = label
        heat[0, cy, cx] = 0.5 + 0.1 * label
        offsets[0][window] = (cy - y)[window]
        offsets[1][window] = (cx - x)[window]
    # Most of the third is of its class.
    sem_seg[0, 10:13, 14:29] = 2
    expected = torch.zeros(20, 30, dtype=torch.int64)
    for (top, left, bottom, right), label in zip(boxes, (201, 202, 301), strict=True):
        expected[top:bottom, left:right] = label
    return sem_seg, heat, offsets, expected


def test_panoptic_segmentation():
    sem_seg, heat, offsets, expected = scene()
    panoptic, centers = get_panoptic_segmentation(
        sem_seg, heat, offsets, [2, 3], DIVISOR, stuff_area=10, void_label=-1
    )
    assert panoptic.tolist() == [expected.tolist()]
    assert centers.tolist() == [[[5, 4], [5, 9], [14, 21]]]
    # Stuff that is too small; things may be.
    panoptic, _ = get_panoptic_segmentation(
        sem_seg, heat, offsets, [2, 3], DIVISOR, stuff_area=600, void_label=-1
    )
    assert (panoptic[0] == torch.where(expected == 0, -1, expected)).all()
    # Where there is no thing, whatever the classes say.
    foreground = (sem_seg > 0).to(torch.int64)
    foreground[0, 10:] = 0
    panoptic, _ = get_panoptic_segmentation(
        sem_seg, heat, offsets, [2, 3], DIVISOR, 10, -1, foreground_mask=foreground
    )
    assert set(panoptic[0, 10:].unique().tolist()) == {-1, 0}
    assert (panoptic[0, :10] == expected[:10]).all()


def test_no_centers():
    sem_seg, heat, offsets, _ = scene()
    panoptic, centers = get_panoptic_segmentation(
        sem_seg, 0 * heat, offsets, {2: 0, 3: 1}, DIVISOR, 10, -1
    )
    assert centers.shape == (1, 0, 2)
    assert (panoptic == torch.where(sem_seg > 0, -1, 0)).all()
    instances, _ = get_instance_segmentation(sem_seg, 0 * heat, offsets, None, [2, 3])
    assert not instances.any()


def test_instances_are_cut_to_things():
    sem_seg, heat, offsets, expected = scene()
    instances, _ = get_instance_segmentation(sem_seg, heat, offsets, None, [2, 3])
    assert ((instances > 0) == (sem_seg > 0)).all()
    everywhere = group_pixels(find_instance_center(heat), offsets)
    assert (instances[expected[None] > 0] == everywhere[expected[None] > 0]).all()


def test_bad_segmentation():
    sem_seg, heat, offsets, _ = scene()
    with pytest.raises(ValueError, match="sem_seg"):
        get_panoptic_segmentation(sem_seg[0], heat, offsets, [2], DIVISOR, 1, -1)
    with pytest.raises(ValueError, match="offsets"):
        get_panoptic_segmentation(sem_seg, heat, offsets[:1], [2], DIVISOR, 1, -1)


def test_instances_of_panoptic():
    _, _, _, panoptic = scene()
    panoptic = panoptic.clone()
    panoptic[0, :5] = -1
    logits, heat = 2 * torch.randn(4, 20, 30), torch.rand(1, 20, 30)
    instances = instances_of_panoptic(panoptic, logits, heat, [2, 3], DIVISOR)
    probability = logits.numpy().astype(np.float64)
    probability = np.exp(probability) / np.exp(probability).sum(0)
    assert instances.image_size == (20, 30)
    assert instances.pred_classes.tolist() == [2, 2, 3]
    for i, label in enumerate((201, 202, 301)):
        mask = panoptic.numpy() == label
        np.testing.assert_array_equal(instances.pred_masks[i], mask)
        ys, xs = mask.nonzero()
        center_heat = heat[0, int(ys.mean()), int(xs.mean())].item()
        expected = probability[label // DIVISOR][mask].mean() * center_heat
        assert instances.scores[i].item() == pytest.approx(expected, rel=1e-5)
        assert instances.pred_boxes.tensor[i].tolist() == [
            xs.min(),
            ys.min(),
            xs.max() + 1,
            ys.max() + 1,
        ]


def test_no_instances():
    panoptic = torch.zeros(5, 6, dtype=torch.int64)
    logits, heat = torch.zeros(4, 5, 6), torch.zeros(1, 5, 6)
    instances = instances_of_panoptic(panoptic, logits, heat, [2, 3], DIVISOR)
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, 5, 6)
    assert instances.pred_boxes.tensor.shape == (0, 4)
    assert instances.scores.shape == (0,)
