"""Samplers, against the sequences that PyTorch's generators give."""

import itertools
from collections import Counter

import pytest
import torch
from torch.utils.data import SequentialSampler

from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm


def take(sampler, count):
    return list(itertools.islice(iter(sampler), count))


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def test_epochs_are_permutations_of_one_generator():
    generator = torch.Generator().manual_seed(7)
    expected = torch.cat([torch.randperm(5, generator=generator) for _ in range(3)]).tolist()
    assert take(TrainingSampler(5, seed=7), 15) == expected
    assert take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_processes_take_turns(monkeypatch):
    everything = take(TrainingSampler(7, seed=1), 30)
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        assert take(TrainingSampler(7, seed=1), 10) == everything[rank::3]


def test_without_a_seed_orders_differ():
    assert take(TrainingSampler(1000), 20) != take(TrainingSampler(1000), 20)


@pytest.mark.parametrize("make", [TrainingSampler, InferenceSampler])
@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), ("3", TypeError)])
def test_sizes_that_are_none(make, size, error):
    with pytest.raises(error, match=str(size)):
        make(size)


def test_the_state_of_a_sampler_is_its_order():
    for make in (
        lambda seed: TrainingSampler(50, seed=seed),
        lambda seed: RandomSubsetTrainingSampler(50, 0.5, seed_shuffle=seed, seed_subset=seed),
        lambda seed: RepeatFactorTrainingSampler(torch.full((50,), 1.5), seed=seed),
    ):
        one, other = make(1), make(2)
        assert take(one, 60) != take(other, 60)
        other.load_state_dict(one.state_dict())
        assert take(one, 60) == take(other, 60)


def test_random_subset_stays_the_same():
    sampler = RandomSubsetTrainingSampler(20, 0.35, seed_shuffle=3, seed_subset=4)
    subset = torch.randperm(20, generator=torch.Generator().manual_seed(4))[:7].tolist()
    indices = take(sampler, 28)
    for epoch in range(4):
        assert sorted(indices[epoch * 7 : epoch * 7 + 7]) == sorted(subset)
    with pytest.raises(ValueError, match=r"0\.01 of 20"):
        RandomSubsetTrainingSampler(20, 0.01)
    with pytest.raises(ValueError, match=r"1\.5 of 20"):
        RandomSubsetTrainingSampler(20, 1.5)


def test_repeat_factors_hold_on_average():
    factors = torch.tensor([0.0, 0.25, 1.0, 2.5])
    counts = Counter(take(RepeatFactorTrainingSampler(factors, seed=0), 3750))
    shares = torch.tensor([counts[i] / 1000 for i in range(4)])
    assert torch.allclose(shares, factors, atol=0.05)


def test_repeat_factors_follow_from_the_rarest_category():
    records = [
        {"annotations": [{"category_id": c} for c in categories]}
        for categories in ([0, 0], [0, 1], [0], [], [0, 1, 2], [0], [0], [0])
    ]
    get = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    factors = get(records, 0.5)
    assert factors.dtype == torch.float32
    # Category 1 is in 2 of 8 images, category 2 in 1 of 8.
    assert factors.tolist() == pytest.approx([1, 2**0.5, 1, 1, 2, 1, 1, 1])
    assert get(records, 0.5, sqrt=False).tolist() == pytest.approx([1, 2, 1, 1, 4, 1, 1, 1])


@pytest.mark.parametrize("factors", [[1.0, float("nan")], [-1.0], [0.0, 0.0], [[1.0]]])
def test_repeat_factors_that_are_none(factors):
    with pytest.raises(ValueError, match="repeat_factors"):
        RepeatFactorTrainingSampler(torch.tensor(factors))


def test_inference_covers_everything_once(monkeypatch):
    for size, world_size in [(10, 3), (2, 4), (8, 4), (1, 1)]:
        parts = []
        for rank in range(world_size):
            as_rank(monkeypatch, rank, world_size)
            sampler = InferenceSampler(size)
            assert len(sampler) == len(list(sampler))
            parts.append(list(sampler))
        assert list(itertools.chain.from_iterable(parts)) == list(range(size))
        lengths = [len(part) for part in parts]
        assert lengths == sorted(lengths, reverse=True)
        assert max(lengths) - min(lengths) <= 1


def test_batches_of_one_group():
    groups = [0, 1, 0, 0, 1, 1, 0, 1, 0]
    batches = list(GroupedBatchSampler(SequentialSampler(groups), groups, 2))
    assert batches == [[0, 2], [1, 4], [3, 6], [5, 7]]
    with pytest.raises(TypeError, match="Sampler"):
        GroupedBatchSampler([1, 2], groups, 2)
    with pytest.raises(ValueError, match="batch_size"):
        GroupedBatchSampler(SequentialSampler(groups), groups, 0)
