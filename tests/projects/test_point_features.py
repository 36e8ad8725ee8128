"""Points and what is sampled there, against loops."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks


def bilinear(image, x, y):
    """Of ``(H, W)``, whose pixels are 1 wide and have their values in the middle, at (x, y) in
    pixels; 0 outside."""
    height, width = image.shape
    left, top = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    total = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                total += share * float(image[row, column])
    return total


def test_point_sample():
    image, coords = torch.randn(2, 3, 5, 7), torch.rand(2, 11, 2)
    sampled = point_sample(image, coords, align_corners=False)
    assert sampled.shape == (2, 3, 11)
    for n, c, p in np.ndindex(2, 3, 11):
        x, y = (coords[n, p].numpy() * (7, 5)).tolist()
        assert sampled[n, c, p].item() == pytest.approx(bilinear(image[n, c], x, y), abs=1e-5)
    grid = coords[:, :6].view(2, 2, 3, 2)
    on_grid = point_sample(image, grid, align_corners=False)
    torch.testing.assert_close(on_grid, sampled[:, :, :6].reshape(2, 3, 2, 3))
    nearest = point_sample(image, coords, mode="nearest", align_corners=False)
    assert torch.isin(nearest, image).all()


def test_point_sample_in_half_precision():
    """Coordinates are as precise as they come."""
    image = torch.arange(2048.0).to(torch.float16).view(1, 1, 1, 2048)
    coords = (torch.arange(2048.0) + 0.5)[None, :, None] / 2048
    coords = torch.cat([coords, torch.full_like(coords, 0.5)], dim=2)
    sampled = point_sample(image, coords, align_corners=False)
    assert sampled.dtype == torch.float16
    torch.testing.assert_close(sampled, image[0], atol=0.5, rtol=0)


def test_point_sample_of_bad_points():
    with pytest.raises(ValueError, match=r"\[2, 11, 3\]"):
        point_sample(torch.zeros(2, 3, 5, 7), torch.rand(2, 11, 3))


def test_regular_grid():
    grid = generate_regular_grid_point_coords(3, 4, torch.device("cpu"))
    assert grid.shape == (3, 16, 2)
    expected = [[(x + 0.5) / 4, (y + 0.5) / 4] for y in range(4) for x in range(4)]
    assert grid.tolist() == [expected] * 3


def test_coords_in_image():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 1.0, 2.0]], requires_grad=True)
    coords = torch.tensor([[[0.0, 0.0], [0.5, 0.25]], [[1.0, 1.0], [0.5, 0.5]]])
    in_image = get_point_coords_wrt_image(boxes, coords)
    assert in_image.tolist() == [[[10, 20], [20, 30]], [[1, 2], [0.5, 1]]]
    assert not in_image.requires_grad


def test_uncertain_points_with_randomness():
    """Of what is drawn, the most uncertain ones; the others anywhere."""
    logits = torch.randn(4, 1, 6, 6)
    seen = []

    def uncertainty(at_points):
        seen.append(at_points)
        return -at_points.abs()

    coords = get_uncertain_point_coords_with_randomness(logits, uncertainty, 20, 3, 0.75)
    assert coords.shape == (4, 20, 2)
    (at_points,) = seen
    assert at_points.shape == (4, 1, 60)
    at_chosen = -point_sample(logits, coords[:, :15], align_corners=False)[:, 0].abs()
    best = (-at_points[:, 0].abs()).sort(dim=1, descending=True).values[:, :15]
    torch.testing.assert_close(at_chosen.sort(dim=1, descending=True).values, best)
    assert ((coords >= 0) & (coords < 1)).all()
    anywhere = coords[:, 15:].reshape(-1)
    assert 0.2 < anywhere.mean() < 0.8


@pytest.mark.parametrize(("importance", "all_uncertain"), [(0.0, False), (1.0, True)])
def test_only_random_or_only_uncertain_points(importance, all_uncertain):
    left_is_certain = torch.full((1, 1, 2, 2), 9.0)
    left_is_certain[..., 1] = 0.0
    coords = get_uncertain_point_coords_with_randomness(
        left_is_certain, lambda x: -x.abs(), 10, 8, importance
    )
    assert coords.shape == (1, 10, 2)
    assert bool((coords[0, :, 0] > 0.6).all()) == all_uncertain


@pytest.mark.parametrize(("oversample", "importance"), [(0.5, 0.5), (3, 1.5), (3, -0.1)])
def test_bad_ratios(oversample, importance):
    with pytest.raises(ValueError, match=f"got {oversample} and {importance}"):
        get_uncertain_point_coords_with_randomness(
            torch.zeros(1, 1, 2, 2), lambda x: x, 4, oversample, importance
        )


def test_uncertain_points_on_grid():
    uncertainty = torch.randn(3, 1, 4, 6)
    index, coords = get_uncertain_point_coords_on_grid(uncertainty, 5)
    assert index.shape == (3, 5)
    assert coords.dtype == torch.float32
    for r in range(3):
        values = uncertainty[r, 0].numpy()
        expected = np.argsort(-values.ravel())[:5]
        assert index[r].tolist() == expected.tolist()
        for p, i in enumerate(expected):
            row, column = np.unravel_index(i, (4, 6))
            assert coords[r, p].tolist() == pytest.approx([(column + 0.5) / 6, (row + 0.5) / 4])
    index, coords = get_uncertain_point_coords_on_grid(uncertainty, 100)
    assert sorted(index[0].tolist()) == list(range(24))
    assert coords.shape == (3, 24, 2)


@pytest.mark.parametrize("counts", [[3], [2, 0, 3], [0, 0], [1, 4]])
def test_fine_grained_features(counts):
    """Boxes in any number in each image, features of two strides."""
    images = len(counts)
    maps = [torch.randn(images, 2, 8, 12), torch.randn(images, 3, 4, 6, requires_grad=True)]
    boxes = [torch.rand(n, 4) * torch.tensor([20.0, 12.0, 20.0, 12.0]) for n in counts]
    boxes = [torch.cat([b[:, :2], b[:, :2] + b[:, 2:] + 2], dim=1) for b in boxes]
    coords = torch.rand(sum(counts), 5, 2)
    features, in_image = point_sample_fine_grained_features(
        maps, [1 / 4, 1 / 8], [Boxes(b) for b in boxes], coords
    )
    assert features.shape == (sum(counts), 5, 5)
    torch.testing.assert_close(in_image, get_point_coords_wrt_image(torch.cat(boxes), coords))
    image_of_box = [i for i, n in enumerate(counts) for _ in range(n)]
    for r, p in np.ndindex(sum(counts), 5):
        x, y = in_image[r, p].tolist()
        expected = [
            bilinear(m[image_of_box[r], c].detach(), x / stride, y / stride)
            for m, stride in zip(maps, (4, 8), strict=True)
            for c in range(m.shape[1])
        ]
        assert features[r, :, p].tolist() == pytest.approx(expected, abs=1e-4)
    features.sum().backward()
    assert maps[1].grad.isfinite().all()


def test_fine_grained_features_of_other_boxes():
    with pytest.raises(ValueError, match=r"features of \[2\] images, boxes of 1"):
        point_sample_fine_grained_features(
            [torch.zeros(2, 1, 4, 4)], [1.0], [Boxes(torch.zeros(1, 4))], torch.zeros(1, 3, 2)
        )


def bitmask_instances(counts, sizes):
    return [
        Instances(size, gt_masks=BitMasks(torch.rand(n, *size) > 0.5))
        for n, size in zip(counts, sizes, strict=True)
    ]


def test_point_labels():
    instances = bitmask_instances([2, 0, 3], [(9, 12), (4, 4), (7, 5)])
    # Some beyond the image.
    coords = torch.rand(5, 40, 2) * 16 - 2
    labels = sample_point_labels(instances, coords)
    assert labels.dtype == torch.float32
    masks = [mask for x in instances for mask in x.gt_masks.tensor]
    expected = [[bilinear(m, *xy) for xy in c.tolist()] for m, c in zip(masks, coords, strict=True)]
    np.testing.assert_allclose(labels, expected, atol=1e-5)
    # As grid_sample has them.
    first = instances[0]
    relative = 2 * coords[:2] / torch.tensor([12.0, 9.0]) - 1
    sampled = F.grid_sample(
        first.gt_masks.tensor[:, None].float(), relative[:, :, None], align_corners=False
    )
    torch.testing.assert_close(labels[:2], sampled[:, 0, :, 0], atol=1e-5, rtol=0)


def test_point_labels_of_nothing():
    instances = bitmask_instances([0], [(5, 5)])
    assert sample_point_labels(instances, torch.zeros(0, 4, 2)).shape == (0, 4)


def test_point_labels_need_bitmasks():
    instances = Instances((5, 5), gt_masks=PolygonMasks([[np.array([0.0, 0, 4, 0, 4, 4])]]))
    with pytest.raises(TypeError, match="PolygonMasks"):
        sample_point_labels([instances], torch.zeros(1, 4, 2))
