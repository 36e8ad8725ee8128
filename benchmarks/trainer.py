"""Time an iteration of the trainer, with the default hooks, beside the same steps in a plain loop.

    python benchmarks/trainer.py [--device cpu]

The model is one layer, so that almost nothing hides what the trainer adds: hooks, metrics, the
learning rate schedule, and, every 20 iterations, the log and ``metrics.json``. ``scheduler`` is a
plain loop that steps the schedule, too. The difference of the others to the plain loop is the
overhead of an iteration.
"""

import argparse
import logging
import tempfile

import timing
import torch
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils.events import CommonMetricPrinter, JSONWriter

ITERATIONS = 200
LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, len(LOSSES))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(LOSSES, self.layer(x).mean(0).unbind(), strict=True))


class Setting:
    """A model with an optimizer, and an endless source of one batch."""

    def __init__(self, device: str) -> None:
        self.model = Model().to(device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6, momentum=0.9)
        self.batch = torch.randn(2, 8, device=device)

    def batches(self):
        while True:
            yield self.batch

    def step(self) -> None:
        losses = sum(self.model(self.batch).values())
        self.optimizer.zero_grad()
        losses.backward()
        self.optimizer.step()


def plain_loop(device: str):
    setting = Setting(device)

    def run() -> None:
        for _ in range(ITERATIONS):
            setting.step()

    return run


def scheduled_loop(device: str):
    setting = Setting(device)

    def run() -> None:
        scheduler = LRMultiplier(setting.optimizer, CosineParamScheduler(1.0, 0.0), ITERATIONS)
        for _ in range(ITERATIONS):
            setting.step()
            scheduler.step()

    return run


def trainer_loop(device: str, folder: str, asynchronous: bool):
    setting = Setting(device)

    def run() -> None:
        trainer = SimpleTrainer(
            setting.model,
            setting.batches(),
            setting.optimizer,
            async_write_metrics=asynchronous,
        )
        writers = [CommonMetricPrinter(ITERATIONS), JSONWriter(f"{folder}/metrics.json")]
        trainer.register_hooks(
            [
                hooks.IterationTimer(),
                hooks.LRScheduler(setting.optimizer, CosineParamScheduler(1.0, 0.0)),
                hooks.PeriodicWriter(writers, period=20),
            ]
        )
        trainer.train(0, ITERATIONS)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    args = timing.parse_arguments(parser)
    logging.disable(logging.INFO)
    report = timing.Report("trainer", args.device)
    with tempfile.TemporaryDirectory() as folder:
        functions = {
            "plain": plain_loop(args.device),
            "scheduler": scheduled_loop(args.device),
            "async trainer": trainer_loop(args.device, folder, True),
            "trainer": trainer_loop(args.device, folder, False),
        }
        timings = timing.compare(functions, args.device, warmup=2, repeats=args.repeats)
    report.add(f"{ITERATIONS} iterations", timings, iterations=ITERATIONS)
    report.print()
    plain = timings["plain"]
    for name, result in timings.items():
        median = (result.milliseconds - plain.milliseconds) / ITERATIONS
        least = (result.least_milliseconds - plain.least_milliseconds) / ITERATIONS
        print(f"{name}: {median:.4f} ms an iteration beyond the plain loop, at best {least:.4f}")


if __name__ == "__main__":
    main()
