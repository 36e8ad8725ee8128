"""The loaders: the same batches whatever makes them, and after an interruption."""

import dataclasses
import gc
import itertools
import logging
import os
import pickle
import random
import re
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils import data

from detectron2.data import (
    DatasetFromList,
    DatasetMapper,
    MapDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data import transforms as T  # noqa: N812
from detectron2.data._batch_transfer import _bytes_of, pack_batch
from detectron2.data.benchmark import DataLoaderBenchmark, iter_benchmark
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import SimpleTrainer
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints
from detectron2.utils import comm

COUNT = 24


def noisy(record):
    """All sources of random numbers that a mapper may use."""
    numbers = [np.random.rand(), random.random(), torch.rand(()).item()]
    return {**record, "numbers": numbers}


def noisy_without_some(record):
    return None if record["i"] % 5 == 0 else noisy(record)


def records(with_sizes=True):
    rng = np.random.default_rng(3)
    result = [{"i": i} for i in range(COUNT)]
    if with_sizes:
        for record in result:
            record.update(width=int(rng.integers(3, 7)), height=int(rng.integers(3, 7)))
    return result


def add_sizes(record):
    wide = record["i"] % 3 == 0
    return noisy({**record, "width": 5 + wide, "height": 5})


def loader(mapper=noisy, with_sizes=True, seed=7, **options):
    options = {"total_batch_size": 3, "aspect_ratio_grouping": True, **options}
    sampler = TrainingSampler(COUNT, seed=seed)
    return build_detection_train_loader(
        records(with_sizes), mapper=mapper, sampler=sampler, **options
    )


def take(batches, count):
    return [batch for _, batch in zip(range(count), batches, strict=False)]


def indices(batches):
    return [[sample["i"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("aspect_ratio_grouping", [True, False])
def test_order(aspect_ratio_grouping):
    samples = take(TrainingSampler(COUNT, seed=7), 60)
    if aspect_ratio_grouping:
        of = records()
        expected, waiting = [], {True: [], False: []}
        for i in samples:
            bucket = waiting[of[i]["width"] > of[i]["height"]]
            bucket.append(i)
            if len(bucket) == 3:
                expected.append(bucket.copy())
                bucket.clear()
    else:
        expected = [samples[i : i + 3] for i in range(0, 60, 3)]
    batches = take(loader(aspect_ratio_grouping=aspect_ratio_grouping), 15)
    assert indices(batches) == expected[:15]


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2, "prefetch_factor": 1},
        {"num_workers": 2, "aspect_ratio_grouping": False, "total_batch_size": 6},
        {"num_workers": 2, "mapper": noisy_without_some},
        {"num_workers": 2, "mapper": add_sizes, "with_sizes": False},
        {"num_workers": 2, "collate_fn": tuple},
        {"num_workers": 2, "device": "cpu"},
    ],
)
def test_workers_change_nothing(options):
    alone = {key: value for key, value in options.items() if key != "prefetch_factor"}
    expected = take(loader(**{**alone, "num_workers": 0}), 20)
    assert take(loader(**options), 20) == expected
    assert isinstance(expected[0], options.get("collate_fn", list))


def test_threads_change_nothing_but_numbers_of_pytorch():
    def without_torch(batches):
        return [[(s["i"], s["numbers"][:2]) for s in batch] for batch in batches]

    expected = take(loader(), 20)
    batches = take(loader(num_workers=3, threads=True), 20)
    assert without_torch(batches) == without_torch(expected)


def test_each_sample_has_its_own_numbers():
    batches = take(loader(), 40)
    numbers = [tuple(s["numbers"]) for batch in batches for s in batch]
    assert len(set(numbers)) == len(numbers)
    other_seed = take(loader(seed=8), 5)
    assert not {tuple(s["numbers"]) for batch in other_seed for s in batch} & set(numbers)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_process_keeps_its_own_numbers(num_workers):
    take(loader(num_workers=num_workers), 2)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    batches = iter(loader(num_workers=num_workers))
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    next(batches)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


def test_processes_share_the_samples(monkeypatch):
    """Whatever the number of processes, the samples and their numbers are the same."""
    everything = {
        tuple(s["numbers"]): s["i"]
        for b in take(loader(aspect_ratio_grouping=False), 20)
        for s in b
    }
    seen = {}
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: 3)
        monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 3)
        for batch in take(loader(aspect_ratio_grouping=False), 20):
            assert len(batch) == 1
            seen[tuple(batch[0]["numbers"])] = batch[0]["i"]
    assert seen == everything


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_workers": 2},
        {"num_workers": 2, "threads": True},
        {"aspect_ratio_grouping": False, "device": "cpu"},
        {"mapper": noisy_without_some, "num_workers": 2},
        {"mapper": add_sizes, "with_sizes": False},
        {"mapper": add_sizes, "with_sizes": False, "num_workers": 2},
    ],
)
@pytest.mark.parametrize("done", [0, 11])
def test_a_resumed_loader_goes_on(options, done):
    def comparable(batches):
        kept = 2 if options.get("threads") else 3
        return [[(s["i"], s["numbers"][:kept]) for s in batch] for batch in batches]

    expected = comparable(take(loader(**options), done + 8))
    interrupted = loader(**options)
    iterator = iter(interrupted)
    for _ in range(done):
        next(iterator)
    # What workers have made ahead is of no account.
    state = pickle.loads(pickle.dumps(interrupted.state_dict()))
    del iterator
    # Of another seed, as a training whose SEED is not set has.
    resumed = loader(**{**options, "seed": 99})
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert comparable(take(resumed, 8)) == expected[done:]
    # Again, from the state of a resumed one.
    again = loader(**{**options, "seed": 98})
    again.load_state_dict(resumed.state_dict())
    assert comparable(take(again, 2)) == comparable(take(loader(**options), done + 10)[-2:])
    # A further iteration begins anew.
    assert comparable(take(resumed, 3)) == comparable(take(loader(**options), 3))


def test_all_processes_go_on_from_the_state_of_the_first(monkeypatch):
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)

    def of_rank(rank, seed=7):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        return loader(total_batch_size=6, seed=seed)

    expected = [take(of_rank(rank), 12) for rank in range(2)]
    first = of_rank(0)
    iterator = iter(first)
    for _ in range(7):
        next(iterator)
    state = first.state_dict()
    for rank in range(2):
        resumed = of_rank(rank, seed=8)
        resumed.load_state_dict(state)
        assert take(resumed, 5) == expected[rank][7:]


def test_state_of_other_batches(caplog):
    state = loader(total_batch_size=4, aspect_ratio_grouping=False)
    take(state, 6)
    resumed = loader(total_batch_size=3, aspect_ratio_grouping=False)
    resumed.load_state_dict(state.state_dict())
    expected = take(loader(total_batch_size=3, aspect_ratio_grouping=False), 9)[8:]
    assert take(resumed, 1) == expected
    assert "goes on after about 24 samples" in caplog.text


def test_state_can_be_part_of_a_checkpoint(tmp_path):
    batches = loader(add_sizes, with_sizes=False)
    take(batches, 3)
    torch.save(batches.state_dict(), tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True) == batches.state_dict()


def test_a_trainer_keeps_and_restores_the_position():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen = []

        def forward(self, batch):
            self.seen.append([s["i"] for s in batch])
            return {"loss": sum(s["numbers"][0] for s in batch) * (self.weight - 1) ** 2}

    def trainer(seed):
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return SimpleTrainer(model, loader(num_workers=2, seed=seed), optimizer)

    whole = trainer(7)
    whole.train(0, 8)
    first = trainer(7)
    first.train(0, 5)
    second = trainer(99)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    second.train(5, 8)
    assert first.model.seen + second.model.seen == whole.model.seen
    assert torch.equal(second.model.weight, whole.model.weight)


def test_finite_samplers():
    dataset = MapDataset(DatasetFromList(records()), noisy)
    order = data.SequentialSampler(dataset)
    for drop_last, expected in [(True, [5] * 4), (False, [5] * 4 + [4])]:
        batches = build_batch_data_loader(dataset, order, 5, drop_last=drop_last, num_workers=2)
        assert [len(batch) for batch in batches] == expected


def test_iterable_datasets():
    class Numbers(data.IterableDataset):
        def __iter__(self):
            return iter(records())

    everything = indices(
        build_detection_train_loader(Numbers(), mapper=noisy, total_batch_size=4, num_workers=0)
    )
    assert everything
    flat = build_batch_data_loader(Numbers(), None, 4)
    assert indices(flat) == np.arange(COUNT).reshape(-1, 4).tolist()
    with pytest.raises(ValueError, match="takes no sampler"):
        build_batch_data_loader(Numbers(), TrainingSampler(3), 4)
    with pytest.raises(ValueError, match="threads"):
        build_batch_data_loader(Numbers(), None, 4, threads=True, num_workers=2)


def test_arguments_that_do_not_fit(monkeypatch):
    dataset, sampler = DatasetFromList(records()), TrainingSampler(COUNT)
    build = build_batch_data_loader
    with pytest.raises(ValueError, match="not both"):
        build(dataset, sampler, 4, single_gpu_batch_size=2)
    with pytest.raises(ValueError, match="got 0"):
        build(dataset, sampler, 0)
    with pytest.raises(ValueError, match="drop_last"):
        build(dataset, sampler, 4, aspect_ratio_grouping=True, drop_last=False)
    with pytest.raises(ValueError, match="sampler"):
        build(dataset, None, 4)
    with pytest.raises(ValueError, match="pin_memory"):
        build(dataset, sampler, 4, threads=True, num_workers=1, pin_memory=True)
    with pytest.raises(TypeError, match="sampler"):
        build_detection_train_loader(records(), mapper=noisy, sampler=[1], total_batch_size=1)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="multiple of the 3 processes, got 4"):
        build(dataset, sampler, 4)
    assert build(dataset, sampler, None, single_gpu_batch_size=4).batch_size == 4


class Dies:
    def __call__(self, record):
        if record["i"] == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return record


@pytest.mark.parametrize("test_loader", [True, False])
def test_a_worker_that_dies_is_an_error(test_loader):
    if test_loader:
        batches = build_detection_test_loader(records(), mapper=Dies(), num_workers=2)
    else:
        batches = loader(Dies(), num_workers=2)
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        take(batches, COUNT)


def expect_error_of_broken_image(tmp_path, options, test_loader):
    broken = []
    for i in range(COUNT):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.random.randint(0, 255, (30, 30), np.uint8)).save(path)
        if i == 20:
            path.write_bytes(path.read_bytes()[:500])
        broken.append({"file_name": str(path), "width": 30, "height": 30})
    mapper = DatasetMapper(not test_loader, augmentations=[], image_format="BGR")
    if test_loader:
        batches = build_detection_test_loader(broken, mapper=mapper, **options)
    else:
        batches = build_detection_train_loader(broken, mapper=mapper, total_batch_size=2, **options)
    with pytest.raises(OSError, match=r"20\.png"):
        take(batches, COUNT)


@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "threads": True}])
@pytest.mark.parametrize("test_loader", [True, False])
def test_a_broken_image_is_an_error(tmp_path, options, test_loader):
    expect_error_of_broken_image(tmp_path, options, test_loader)


def test_a_broken_image_is_an_error_from_a_worker(tmp_path):
    # One, as PyTorch takes five seconds to end each of an iteration that failed.
    expect_error_of_broken_image(tmp_path, {"num_workers": 1}, test_loader=False)


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 2}, {"num_workers": 2, "threads": True}, {"device": "cpu"}, {"batch_size": 5}],
)
def test_evaluation_sees_everything_in_order(options):
    batches = build_detection_test_loader(records(), mapper=lambda r: r, **options)
    assert list(itertools.chain.from_iterable(indices(batches))) == list(range(COUNT))
    assert len(batches) == -(-COUNT // options.get("batch_size", 1))
    assert list(itertools.chain.from_iterable(indices(batches))) == list(range(COUNT))


def make_sample(i=0):
    instances = Instances((90, 70), gt_boxes=Boxes(torch.rand(3, 4)))
    instances.gt_masks = BitMasks(torch.rand(3, 90, 70) > 0.5)
    instances.gt_keypoints = Keypoints(torch.rand(3, 2, 3))
    large = torch.randint(0, 255, (3, 190, 170), dtype=torch.uint8)
    return {
        "i": i,
        "image": large,
        "again": large,
        "transposed": large.permute(2, 0, 1),
        "bfloat16": torch.rand(200, 100).bfloat16(),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "complex": torch.rand(100, 200, dtype=torch.complex64),
        "grad": torch.rand(100, 200, requires_grad=True),
        "uint16": torch.ones(300, 100, dtype=torch.uint16),
        "array": np.random.rand(80, 90),
        "read_only": np.broadcast_to(np.float64(1), (100, 100)),
        "instances": instances,
    }


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
    elif isinstance(one, Instances):
        assert one.image_size == other.image_size
        assert_same(one.get_fields(), other.get_fields())
    elif hasattr(one, "tensor"):
        assert_same(one.tensor, other.tensor)
    else:
        assert one == other


def test_batches_that_are_packed():
    sample = make_sample()
    packed = pack_batch([sample])
    assert packed.block.is_shared()
    (got,) = packed.unpack()
    assert_same(got, sample)
    assert got["again"] is got["image"]
    got["image"][0, 0, 0] = 3
    got["scalar"] += 1
    got["array"][0] = 1
    # What is small does not keep the block alive.
    start, end = packed.block.data_ptr(), packed.block.data_ptr() + packed.block.numel()
    assert start <= got["image"].data_ptr() < end
    assert not start <= got["instances"].gt_boxes.tensor.data_ptr() < end
    assert pack_batch([1, "a"]).unpack() == [1, "a"]


def test_blocks_are_used_again_when_nothing_refers_to_them():
    def send(value):
        packed = pack_batch([torch.full((100_000,), value)])
        # As in another process, which has another object for the same memory.
        return dataclasses.replace(packed, block=_bytes_of(packed.block.untyped_storage()))

    first = send(1.0)
    where = first.block.data_ptr()
    (tensor,) = first.unpack()
    del first
    gc.collect()
    views = [tensor[-5:], tensor.numpy()[:3], tensor.view(10, -1).t()[0]]
    del tensor
    while views:
        assert send(2.0).block.data_ptr() != where
        assert all((view == 1).all() for view in views)
        views.pop()
    assert where in {send(3.0).block.data_ptr() for _ in range(20)}


def make_seeded_sample(record=None):
    torch.manual_seed(0)
    np.random.seed(0)
    return make_sample()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_batches_from_another_process(method):
    batches = build_detection_train_loader(
        records(),
        mapper=make_seeded_sample,
        total_batch_size=2,
        num_workers=1,
        multiprocessing_context=method,
    )
    (batch,) = take(batches, 1)
    assert len(batch) == 2
    assert_same(batch[1], make_seeded_sample())


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "threads": True}])
def test_batches_on_a_gpu(options):
    device = torch.device("cuda")
    expected = take(loader(big, **options), 12)
    for batch, wanted in zip(loader(big, device=device, **options), expected, strict=False):
        for sample, other in zip(batch, wanted, strict=True):
            assert sample["image"].device.type == "cuda"
            assert sample["boxes"].tensor.device.type == "cuda"
            torch.cuda._sleep(1_000_000)
            assert torch.equal(sample["image"].cpu(), other["image"])
            assert torch.equal(sample["boxes"].tensor.cpu(), other["boxes"].tensor)
            sample["image"].zero_()
    batches = build_detection_test_loader(records(), mapper=big, device=device, **options)
    assert [batch[0]["image"].device.type for batch in batches] == ["cuda"] * COUNT


def big(record):
    image = torch.full((3, 500, 700), float(record["i"]))
    image[0, 0] = torch.from_numpy(np.random.rand(700))
    return {**record, "image": image, "boxes": Boxes(torch.full((2, 4), record["i"]))}


def test_augmented_images_do_not_depend_on_workers(tmp_path):
    rng = np.random.default_rng(0)
    given = []
    for i in range(6):
        height, width = rng.integers(20, 40, 2).tolist()
        path = str(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        thing = {"bbox": [2, 3, 9, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": i}
        given.append({"file_name": path, "width": width, "height": height, "annotations": [thing]})
    mapper = DatasetMapper(
        True,
        augmentations=[T.RandomCrop("relative_range", (0.5, 0.5)), T.RandomFlip()],
        image_format="BGR",
    )

    def batches(**options):
        made = build_detection_train_loader(
            given,
            mapper=mapper,
            sampler=TrainingSampler(6, seed=1),
            total_batch_size=2,
            **options,
        )
        return [s for batch in take(made, 8) for s in batch]

    expected = batches()
    assert len({s["image"].float().mean().item() for s in expected}) > 6
    for options in ({"num_workers": 2}, {"num_workers": 2, "threads": True}):
        for sample, wanted in zip(batches(**options), expected, strict=True):
            assert torch.equal(sample["image"], wanted["image"])
            assert torch.equal(
                sample["instances"].gt_boxes.tensor, wanted["instances"].gt_boxes.tensor
            )


def test_benchmark_measures_each_part(caplog):
    benchmark = DataLoaderBenchmark(
        records(), mapper=slow, sampler=None, total_batch_size=2, num_workers=1
    )
    with caplog.at_level(logging.INFO, "detectron2"):
        benchmark.benchmark_dataset(5)
        benchmark.benchmark_mapper(5)
        benchmark.benchmark_workers(3, warmup=1)
        benchmark.benchmark_IPC(3, warmup=1)
        benchmark.benchmark_distributed(3, warmup=1)
    messages = [record.getMessage() for record in caplog.records]
    titles = ["Dataset", "Mapper", "Loader with 0", "Loader with 1", "Transfer", "Loader in 1"]
    assert [m[: len(t)] for m, t in zip(messages, titles, strict=True)] == titles
    found = [float(re.search(r"([\d.]+) seconds", message)[1]) for message in messages]
    seconds = dict(zip(titles, found, strict=True))
    assert seconds["Mapper"] >= 0.002
    assert seconds["Loader with 0"] >= 0.004
    assert seconds["Dataset"] < seconds["Mapper"]


def slow(record):
    time.sleep(0.002)
    return record


def test_benchmark_of_an_iterator():
    average, each = iter_benchmark(iter(map(slow, range(100))), 10, warmup=2)
    assert len(each) == 10
    assert average == pytest.approx(sum(each) / 10)
    assert min(each) >= 0.002
    _, each = iter_benchmark(iter(map(slow, range(10_000))), 9000, max_time_seconds=0.01)
    assert len(each) < 10
