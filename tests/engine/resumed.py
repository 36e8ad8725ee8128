"""Trainings that are killed, resumed, and spread over processes; a program of test_resume.py.

    python resumed.py RESULTS FOLDER

It runs every function whose name starts with ``check_``, each in a folder of its own, and writes
what they raised, by name, to RESULTS. It is a process of its own because it forks, which one in
which other tests have used CUDA or threads must not.
"""

import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

# Forked processes have torch loaded already.
FORK = multiprocessing.get_context("fork")
ITERATIONS = 200
CHECKPOINT_PERIOD = 15


class Net(nn.Module):
    """Has running statistics, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        y = self.head(self.body(x))
        return {"loss_square": y.square().mean(), "loss_abs": (y - 1).abs().mean()}


class AugmentedSamples:
    """Batches in a random order, with noise; tells its position."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.data = torch.randn(64, 6, generator=generator)
        self.order = torch.randint(64, (ITERATIONS, 8), generator=generator)
        self.position = 0

    def __iter__(self):
        while True:
            batch = self.data[self.order[self.position]]
            self.position += 1
            yield batch + 0.1 * torch.randn_like(batch)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state_dict):
        self.position = state_dict["position"]


class Trainer(DefaultTrainer):
    @classmethod
    def build_model(cls, cfg):
        return Net()

    @classmethod
    def build_train_loader(cls, cfg):
        return AugmentedSamples()

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        model.eval()
        with torch.no_grad():
            score = -model(AugmentedSamples().data)["loss_square"].item()
        model.train()
        return {"score": score}

    def build_hooks(self):
        first, *rest = super().build_hooks()
        return [first, hooks.EMA(self.model, 0.95), *rest]

    def build_writers(self):
        return []


def make_config(folder):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.SOLVER.MAX_ITER = ITERATIONS
    cfg.SOLVER.CHECKPOINT_PERIOD = CHECKPOINT_PERIOD
    cfg.SOLVER.WARMUP_ITERS = 30
    cfg.SOLVER.STEPS = (120,)
    cfg.SOLVER.BASE_LR = 0.05
    cfg.TEST.EVAL_PERIOD = 40
    return cfg


def train(folder, kill_after=None):
    seed_all_rng(3)
    trainer = Trainer(make_config(folder))
    trainer.resume_or_load(resume=True)
    if kill_after is not None:
        timer = threading.Timer(kill_after, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    trainer.train()


def run(function, *args):
    process = FORK.Process(target=function, args=args)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


@functools.cache
def undisturbed():
    """What a training without interruptions ends with, and the seconds that it takes."""
    # Twice: the first loads modules, which the forked processes then have.
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(folder)
            seconds = time.perf_counter() - start
            final = torch.load(f"{folder}/model_final.pth")
    return final, seconds


def assert_equal(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{path}/{index}")
    else:
        assert one == other, path


def check_killed_at_random_points_and_resumed(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        kill_and_resume(folder)


def kill_and_resume(tmp_path):
    expected, seconds = undisturbed()
    kills = 0
    for _ in range(20):
        # After three, it may come to its end.
        delay = random.uniform(0, 0.8 * seconds) if kills < 3 else None
        exit_code = run(train, tmp_path, delay)
        if exit_code == 0 and kills:
            break
        if exit_code == 0:
            # Faster than the undisturbed one: nothing to be seen.
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
        else:
            assert exit_code == -signal.SIGKILL
            kills += 1
    assert kills
    final = torch.load(tmp_path / "model_final.pth")
    assert final["iteration"] == ITERATIONS - 1
    # Weights, optimizer, averages, schedule, random generators: all of it.
    assert_equal(final, expected)


def check_resuming_starts_after_the_last_checkpoint(tmp_path):
    def stop(trainer):
        if trainer.iter == 40:
            raise KeyboardInterrupt

    seed_all_rng(3)
    trainer = Trainer(make_config(tmp_path))
    trainer.register_hooks([hooks.CallbackHook(after_step=stop)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = Trainer(make_config(tmp_path))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 30
    fresh = Trainer(make_config(tmp_path))
    fresh.resume_or_load(resume=False)
    assert fresh.start_iter == 0


def check_resuming_a_training_that_has_ended(tmp_path):
    expected, _ = undisturbed()
    for _ in range(2):
        train(tmp_path)
    assert_equal(torch.load(tmp_path / "model_final.pth"), expected)


# Two processes


class Shard:
    """A process's part of each batch."""

    def __init__(self, rank, count):
        generator = torch.Generator().manual_seed(7)
        data = torch.randn(60, 8, 6, generator=generator)
        self.batches = data.chunk(count, dim=1)[rank]

    def __iter__(self):
        return iter(self.batches)


def make_plain_net():
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, x):
            y = self.layers(x)
            return {"loss_square": y.square().mean(), "loss_abs": (y - 1).abs().mean()}

    return Plain()


def train_shard(rank, world_size, folder, async_write_metrics):
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
        )
        comm.create_local_process_group(world_size)
    plain = make_plain_net()
    model = create_ddp_model(plain, broadcast_buffers=False)
    assert (model is plain) == (world_size == 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(
        model, Shard(rank, world_size), optimizer, async_write_metrics=async_write_metrics
    )
    evaluations = []
    trainer.register_hooks(
        [
            hooks.EvalHook(7, lambda: evaluations.append(comm.gather(trainer.iter))),
            hooks.EarlyStopping(25, "total_loss", patience=1, mode="min", min_delta=100.0),
        ]
    )
    trainer.train(0, 60)
    if rank == 0:
        history = trainer.storage.history("total_loss").values()
        losses = [value for value, _ in history]
        torch.save(
            {"model": plain.state_dict(), "losses": losses, "iter": trainer.iter},
            f"{folder}/{world_size}.pth",
        )
    if world_size > 1:
        comm.synchronize()
        dist.destroy_process_group()


def check_two_processes_are_like_one(tmp_path):
    compare_two_processes_with_one(tmp_path, async_write_metrics=False)


def check_two_processes_with_asynchronous_metrics_are_like_one(tmp_path):
    compare_two_processes_with_one(tmp_path, async_write_metrics=True)


def compare_two_processes_with_one(tmp_path, async_write_metrics):
    assert run(train_shard, 0, 1, tmp_path, async_write_metrics) == 0
    processes = [
        FORK.Process(target=train_shard, args=(rank, 2, tmp_path, async_write_metrics))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    one, two = (torch.load(tmp_path / f"{count}.pth") for count in (1, 2))
    # Stopped early, all together, after the second look at the metric.
    assert one["iter"] == two["iter"] == 51
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=1e-5, atol=1e-6)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)


def join_two(rank, rendezvous):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    comm.create_local_process_group(2)


def train_bad_shard(rank, folder):
    join_two(rank, folder / "rendezvous")
    model = create_ddp_model(make_plain_net())
    batch = torch.ones(2, 6) if rank == 0 else torch.full((2, 6), float("nan"))
    trainer = SimpleTrainer(model, [batch], torch.optim.SGD(model.parameters(), lr=0.1))
    try:
        trainer.train(0, 1)
    except FloatingPointError as error:
        with open(f"{folder}/{rank}.txt", "w") as file:
            file.write(str(error))


def check_each_process_tells_of_its_own_bad_loss(tmp_path):
    processes = [FORK.Process(target=train_bad_shard, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    texts = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert all("Loss became infinite or NaN at iteration=0" in text for text in texts)
    assert "another one tells" in texts[0]
    assert "batch of the input (shape (2, 6): 12 NaN, 0 infinite)" in texts[1]


def train_default_twice(rank, folder):
    """In folders of their own, as on two machines; only the first one's has checkpoints."""
    join_two(rank, folder / "rendezvous")
    iterations, weights = [], []
    for max_iter in (15, 20):
        seed_all_rng(rank)
        cfg = make_config(folder / str(rank))
        cfg.SOLVER.MAX_ITER = max_iter
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        iterations.append(trainer.start_iter)
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    torch.save({"iterations": iterations, "weights": weights}, folder / f"{rank}.pth")


def check_two_processes_resume_together(tmp_path):
    processes = [
        FORK.Process(target=train_default_twice, args=(rank, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    assert one["iterations"] == other["iterations"] == [0, 15]
    assert_equal(one["weights"][1:], other["weights"][1:])
    assert_equal(one["weights"][2], one["weights"][1])
    assert not (tmp_path / "1").exists()


def main(results_path, folder):
    results = {}
    for name, function in list(globals().items()):
        if name.startswith("check_"):
            own_folder = Path(folder, name)
            own_folder.mkdir()
            try:
                function(own_folder)
            except Exception:
                results[name] = traceback.format_exc()
            else:
                results[name] = ""
    Path(results_path).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
