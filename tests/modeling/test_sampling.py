"""Budgets of the sampling, and that all choices are equally likely."""

import pytest
import torch

from detectron2.modeling.sampling import subsample_labels, subsample_masks

BG = 80


def labels(ignored=10, background=30, foreground=50):
    values = torch.tensor([-1] * ignored + [BG] * background + [3] * foreground)
    return values[torch.randperm(len(values))]


def expected_counts(positives, negatives, num_samples, fraction):
    num_positives = min(positives, int(num_samples * fraction))
    return num_positives, min(negatives, num_samples - num_positives)


CASES = [(0, 0.5), (1, 0.5), (20, 0.25), (20, 1.0), (60, 0.1), (1000, 0.5), (64, 0.0)]


@pytest.mark.parametrize(("num_samples", "fraction"), CASES)
@pytest.mark.parametrize(("background", "foreground"), [(30, 50), (0, 50), (30, 0), (0, 0)])
def test_budgets(num_samples, fraction, background, foreground):
    values = labels(10, background, foreground)
    wanted = expected_counts(foreground, background, num_samples, fraction)
    positives, negatives = subsample_labels(values, num_samples, fraction, BG)
    assert (len(positives), len(negatives)) == wanted
    assert len(set(positives.tolist())) == len(positives)
    assert len(set(negatives.tolist())) == len(negatives)
    assert (values[positives] == 3).all()
    assert (values[negatives] == BG).all()

    positives, negatives = subsample_masks(values, num_samples, fraction, BG)
    assert (positives.sum(), negatives.sum()) == wanted
    assert (values[positives] == 3).all()
    assert (values[negatives] == BG).all()


@pytest.mark.parametrize(("num_samples", "fraction"), CASES)
def test_rows_have_budgets_of_their_own(num_samples, fraction):
    counts = [(3, 40), (40, 3), (0, 43), (43, 0)]
    rows = torch.stack([labels(5, negatives, positives) for positives, negatives in counts])
    positives, negatives = subsample_masks(rows, num_samples, fraction, BG)
    for i, (num_positives, num_negatives) in enumerate(counts):
        wanted = expected_counts(num_positives, num_negatives, num_samples, fraction)
        assert (positives[i].sum(), negatives[i].sum()) == wanted
    assert not (positives & (rows != 3)).any()
    assert not (negatives & (rows != BG)).any()


@pytest.mark.parametrize("function", [subsample_labels, subsample_masks])
def test_all_are_equally_likely(function):
    values = labels(2, 6, 4)
    times = torch.zeros(12)
    for _ in range(3000):
        for chosen in function(values, 6, 0.5, BG):
            times[chosen] += 1
    assert not times[values == -1].any()
    # Of 4 positives 3, of 6 negatives 3. Within 6 standard deviations.
    assert (times[values == 3] - 2250).abs().max() < 6 * (3000 * 0.75 * 0.25) ** 0.5
    assert (times[values == BG] - 1500).abs().max() < 6 * (3000 * 0.5 * 0.5) ** 0.5


@pytest.mark.parametrize("function", [subsample_labels, subsample_masks])
def test_the_seed_decides(function):
    values = labels()
    first, again, other = (
        [torch.manual_seed(seed), *function(values, 20, 0.5, BG)][1:] for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_nothing():
    for chosen in subsample_labels(torch.zeros(0, dtype=torch.int64), 5, 0.5, BG):
        assert chosen.shape == (0,)
    for shape in ((0,), (3, 0), (0, 7)):
        for mask in subsample_masks(torch.zeros(shape, dtype=torch.int8), 5, 0.5, 0):
            assert mask.shape == shape
