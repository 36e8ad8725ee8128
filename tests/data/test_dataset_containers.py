"""Lists, mapped and sampled datasets, and their batches."""

import itertools
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils import data

from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
    set_default_dataset_from_list_serialize_method,
)
from detectron2.data.samplers import TrainingSampler


def records(count):
    return [{"i": i, "name": "x" * i, "a": np.arange(i)} for i in range(count)]


@pytest.mark.parametrize("serialize", [True, False])
def test_list_gives_copies(serialize):
    dataset = DatasetFromList(records(5), copy=True, serialize=serialize)
    assert len(dataset) == 5
    dataset[3]["i"] = 99
    dataset[3]["a"][:] = 7
    assert dataset[3]["i"] == 3
    assert dataset[3]["a"].tolist() == [0, 1, 2]
    assert dataset[-1]["name"] == "xxxx"
    assert [element["i"] for element in dataset] == [0, 1, 2, 3, 4]


def test_list_out_of_range():
    dataset = DatasetFromList(records(2))
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"{index} is out of range for 2"):
            dataset[index]
    assert len(DatasetFromList([])) == 0


def test_list_shares_its_bytes_when_sent_to_another_process():
    from multiprocessing.reduction import ForkingPickler

    from torch import multiprocessing

    multiprocessing.reductions.init_reductions()
    dataset = DatasetFromList([{"a": "y" * 1000} for _ in range(1000)])
    sent = bytes(ForkingPickler.dumps(dataset))
    # A handle of the memory travels, not its content.
    assert len(sent) < 10_000
    assert dataset._lst._bytes.is_shared()


def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        line = next(line for line in file if line.startswith("Private_Dirty:"))
    return int(line.split()[1]) * 1024


def read_everything(dataset, result):
    before = private_bytes()
    for index in range(len(dataset)):
        dataset[index]
    result.put(private_bytes() - before)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_forked_workers_take_no_copy_of_a_list():
    context = multiprocessing.get_context("fork")
    elements = [{"numbers": [float(i * j) for j in range(300)]} for i in range(4000)]
    dataset = DatasetFromList(elements)
    result = context.SimpleQueue()
    worker = context.Process(target=read_everything, args=(dataset, result))
    worker.start()
    taken = result.get()
    worker.join()
    assert taken < 4000 * 300 * 9 / 4


def test_list_with_another_way_to_keep_it():
    class Doubled(list):
        pass

    with set_default_dataset_from_list_serialize_method(Doubled):
        assert isinstance(DatasetFromList([1])._lst, Doubled)
        assert DatasetFromList([1], serialize=tuple)._lst == (1,)
        assert DatasetFromList([1], serialize=False)._lst == [1]
    assert not isinstance(DatasetFromList([1])._lst, Doubled)


def test_map_takes_another_element_in_place_of_none():
    dataset = MapDataset(list(range(10)), lambda x: x if x % 2 else None)
    assert dataset[3] == 3
    assert {dataset[4] for _ in range(50)} == {1, 3, 5, 7, 9}
    copied = pickle.loads(pickle.dumps(dataset))
    assert copied[3] == 3


def test_map_that_has_nothing_but_none_fails():
    dataset = MapDataset(list(range(4)), lambda x: None)
    for failing in (dataset, pickle.loads(pickle.dumps(dataset))):
        with pytest.raises(
            RuntimeError, match="None for all of 4 elements, beginning with number 2"
        ):
            failing[2]


def test_map_of_an_iterable_leaves_none_out():
    class Numbers(data.IterableDataset):
        def __iter__(self):
            return iter(range(6))

    mapped = MapDataset(Numbers(), lambda x: None if x == 2 else x * x)
    assert isinstance(mapped, data.IterableDataset)
    assert list(mapped) == [0, 1, 9, 16, 25]


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_workers_share_a_sampler(monkeypatch, num_workers, chunk):
    order = np.random.default_rng(0).permutation(23).tolist()

    class Order(data.Sampler):
        def __iter__(self):
            return iter(order)

    dataset = ToIterableDataset(list(range(23)), Order(), shard_chunk_size=chunk)
    assert list(dataset) == order
    parts = []
    for worker in range(num_workers):
        info = type("Info", (), {"id": worker, "num_workers": num_workers})
        monkeypatch.setattr(data, "get_worker_info", lambda info=info: info)
        parts.append(list(dataset))
    chunks = [order[i : i + chunk] for i in range(0, 23, chunk)]
    for worker, part in enumerate(parts):
        assert part == list(itertools.chain.from_iterable(chunks[worker::num_workers]))


def test_iterable_of_something_else():
    with pytest.raises(TypeError, match="sampler"):
        ToIterableDataset([1], [0])
    with pytest.raises(TypeError, match="iterable already"):
        ToIterableDataset(ToIterableDataset([1], TrainingSampler(1)), TrainingSampler(1))


def test_batches_of_wide_images_and_others():
    shapes = [(4, 3), (3, 4), (3, 3), (5, 1), (1, 5), (2, 1), (9, 8)]
    elements = [{"i": i, "width": w, "height": h} for i, (w, h) in enumerate(shapes)]
    batches = [[e["i"] for e in b] for b in AspectRatioGroupedDataset(elements, 2)]
    assert batches == [[1, 2], [0, 3], [5, 6]]
    assert DatasetFromList(elements).wide.tolist() == [w > h for w, h in shapes]
    assert MapDataset(DatasetFromList(elements), lambda x: x).wide is not None
    assert DatasetFromList([{"width": 3}]).wide is None
    assert isinstance(AspectRatioGroupedDataset(elements, 2), torch.utils.data.IterableDataset)
