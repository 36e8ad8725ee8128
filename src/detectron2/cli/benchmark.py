"""``detectron2 benchmark``: train, infer, and data."""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

HELP = "time training, inference or the data loader"
EXAMPLES = """\
  detectron2 benchmark infer --config COCO-Detection/retinanet_R_50_FPN_1x.yaml --batch 8
  detectron2 benchmark train --config COCO-Detection/retinanet_R_50_FPN_1x.yaml --num-gpus 8
  detectron2 benchmark data --config config.yaml --dataset my_train=train.json:images \\
      DATALOADER.NUM_WORKERS=8

"infer" runs on noise, which has as many detections as the weights find in it. "train" repeats
batches that are loaded before, so that the data loader does not count, with a learning rate of 0;
"data" is about the loader alone. Weights are random unless --weights names some.
"""
_CACHED_BATCHES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    parser.add_argument("task", choices=("train", "infer", "data"), help="what to time")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--warmup", type=int, default=10, metavar="N", help="before (default: 10)")
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images at a time, of infer (default: 1)"
    )
    parser.add_argument(
        "--amp", choices=("float16", "bfloat16"), help="run inference under autocast"
    )
    _arguments.add_size_argument(parser)
    _arguments.add_config_arguments(parser)
    _arguments.add_dataset_arguments(parser)
    _arguments.add_launch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Time one of the tasks."""
    from detectron2.cli._errors import UsageError
    from detectron2.cli._processes import run_in_processes

    if args.iterations < 1 or args.warmup < 0 or args.batch < 1:
        raise UsageError(
            f"--iterations {args.iterations} and --batch {args.batch} must be positive, and "
            f"--warmup {args.warmup} not negative"
        )
    run_in_processes({"train": _train, "infer": _infer, "data": _data}[args.task], args)
    return 0


def _infer(args: argparse.Namespace) -> None:
    import torch

    from detectron2.cli._config import device_of, load_config
    from detectron2.cli._model_input import image_size, noise_image

    cfg = load_config(args, trained=False)
    model = _build_model(cfg, args).eval()
    device = torch.device(device_of(cfg))
    record = noise_image(cfg, args.size, str(device))
    batch = [dict(record) for _ in range(args.batch)]
    dtype = getattr(torch, args.amp or "bfloat16")
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=args.amp is not None):
        seconds = [_timed(lambda: model(batch), device) for _ in _steps(args)][args.warmup :]
    _report(f"inference on {image_size(record)}", seconds, args.batch)


def _train(args: argparse.Namespace) -> None:
    import torch

    from detectron2.cli._config import device_of, is_lazy, load_config
    from detectron2.config import instantiate
    from detectron2.data import build_detection_train_loader
    from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model
    from detectron2.solver import build_optimizer
    from detectron2.utils.events import EventStorage

    cfg = load_config(args, trained=False)
    model = _build_model(cfg, args).train()
    if is_lazy(cfg):
        cfg.optimizer.params.model = model
        optimizer, loader = instantiate(cfg.optimizer), instantiate(cfg.dataloader.train)
        mixed_precision = cfg.train.get("amp", {}).get("enabled", False)
    else:
        _load_training_sets(cfg)
        optimizer, loader = build_optimizer(cfg, model), build_detection_train_loader(cfg)
        mixed_precision = cfg.SOLVER.AMP.ENABLED
    for group in optimizer.param_groups:
        # A step costs the same, and random weights, without a warm-up, would diverge.
        group["lr"] = 0 * group["lr"]
    cached = list(itertools.islice(loader, min(_CACHED_BATCHES, args.iterations)))
    wrapped = create_ddp_model(model)
    kind = AMPTrainer if mixed_precision else SimpleTrainer
    trainer = kind(wrapped, itertools.cycle(cached), optimizer)
    device = torch.device(device_of(cfg))
    seconds = []
    with EventStorage() as trainer.storage:
        for trainer.iter in _steps(args):
            seconds.append(_timed(trainer.run_step, device))
            trainer.storage.step()
    _report("training", seconds[args.warmup :], len(cached[0]))


def _build_model(cfg: Any, args: argparse.Namespace) -> Any:
    """With the weights of ``--weights``; random ones without, so that nothing is downloaded."""
    from detectron2.cli._config import build_model, build_trained_model

    return build_model(cfg) if args.weights is None else build_trained_model(cfg)


def _load_training_sets(cfg: Any) -> None:
    from detectron2.cli._trainer import check_classes

    check_classes(cfg)


def _data(args: argparse.Namespace) -> None:
    from detectron2.cli._config import is_lazy, load_config
    from detectron2.cli._terminal import log_to_terminal
    from detectron2.config import instantiate
    from detectron2.data.benchmark import DataLoaderBenchmark
    from detectron2.data.build import _train_loader_from_config
    from detectron2.utils import comm

    cfg = load_config(args, trained=False)
    if is_lazy(cfg):
        section = cfg.dataloader.train
        parts = {
            name: instantiate(section.get(name)) for name in ("dataset", "mapper", "sampler")
        } | {name: section.get(name) for name in ("total_batch_size", "num_workers")}
    else:
        _load_training_sets(cfg)
        parts = _train_loader_from_config(cfg)
        del parts["aspect_ratio_grouping"]
    # The benchmark reports by the log.
    log_to_terminal(verbose=True)
    benchmark = DataLoaderBenchmark(**parts)
    benchmark.benchmark_mapper(args.iterations, args.warmup)
    benchmark.benchmark_workers(args.iterations, args.warmup)
    if comm.get_world_size() > 1:
        benchmark.benchmark_distributed(args.iterations, args.warmup)


def _steps(args: argparse.Namespace) -> Any:
    from detectron2.cli._terminal import ProgressBar
    from detectron2.utils import comm

    total = args.warmup + args.iterations
    if not comm.is_main_process():
        yield from range(total)
        return
    with ProgressBar(total, args.task) as bar:
        for step in range(total):
            bar.update(step)
            yield step


def _timed(function: Any, device: Any) -> float:
    """Seconds of a call, and of what it has left the device to do."""
    import torch

    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _report(what: str, seconds: list[float], images: int) -> None:
    """Print the median, which a slow iteration does not move, and the 90th percentile."""
    import numpy as np
    import torch

    from detectron2.utils import comm

    if not comm.is_main_process():
        return
    median, slow = np.percentile(seconds, (50, 90))
    count = images * comm.get_world_size()
    line = (
        f"{what}, {count} images at a time in {comm.get_world_size()} processes: "
        f"{median * 1e3:.1f} ms (90 % within {slow * 1e3:.1f} ms), {count / median:.1f} images/s"
    )
    if torch.cuda.is_available():
        line += f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    print(line)
