"""What a training program does before there is a model."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager

if TYPE_CHECKING:
    from detectron2.utils.events import EventWriter


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any) -> Any:
    """Wrap a model for training by several processes.

    Args:
        model: on this process's device.
        fp16_compression: exchange gradients as float16.
        kwargs: of :class:`torch.nn.parallel.DistributedDataParallel`. ``device_ids`` is by
            default the device of this process, if the model is on a GPU.

    Returns:
        The model itself if there is one process only.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs and next(model.parameters()).is_cuda:
        kwargs["device_ids"] = [comm.get_local_rank()]
    ddp = nn.parallel.DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        ddp.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return ddp


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser of the arguments that training programs share.

    Args:
        epilog: the end of the help; None means some examples.
    """
    program = sys.argv[0]
    examples = f"""
Examples:

One machine:
    $ {program} --num-gpus 8 --config-file cfg.yaml

Other values of the configuration:
    $ {program} --config-file cfg.yaml MODEL.WEIGHTS /path/to/weights.pth SOLVER.BASE_LR 0.001

Several machines:
    (machine0)$ {program} --machine-rank 0 --num-machines 2 --dist-url <URL> [--other-flags]
    (machine1)$ {program} --machine-rank 1 --num-machines 2 --dist-url <URL> [--other-flags]
"""
    parser = argparse.ArgumentParser(
        epilog=epilog or examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to the config file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint of the output folder, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs *per machine*")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="index of this machine, unique to it"
    )
    # Users of one machine shall not get into each other's way, and each shall have a fixed port,
    # so that what an earlier run left behind shows.
    user = os.getuid() if hasattr(os, "getuid") else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where processes find each other; see torch.distributed.init_process_group",
    )
    parser.add_argument(
        "opts",
        help='values of the configuration: "KEY VALUE" pairs for a yaml config, "key=value" for '
        "a Python config",
        default=None,
        nargs=argparse.REMAINDER,
    )
    return parser


def _get(cfg: Any, *names: str, default: Any = None) -> Any:
    """The value at the first of some dotted names that a configuration has."""
    for name in names:
        value = cfg
        for key in name.split("."):
            value = value.get(key) if hasattr(value, "get") else None
            if value is None:
                break
        else:
            return value
    return default


def default_setup(cfg: Any, args: argparse.Namespace) -> None:
    """Set up a training program: folder, log, seeds, precision.

    The output folder is made, messages go to the terminal and to ``log.txt`` in that folder, and
    there the environment, the arguments and the configuration are noted. The configuration is
    saved as ``config.yaml``.

    Args:
        cfg: a CfgNode, or a lazy config.
        args: those of :func:`default_argument_parser`; any may be missing.

    Raises:
        ValueError: ``FLOAT32_PRECISION`` is none of "", "highest", "high" and "medium".
    """
    from detectron2.utils.collect_env import collect_env_info
    from detectron2.utils.logger import setup_logger

    is_main, rank = comm.is_main_process(), comm.get_rank()
    output_dir = _get(cfg, "OUTPUT_DIR", "output_dir", "train.output_dir")
    if is_main and output_dir:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)

    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    config_file = getattr(args, "config_file", "")
    if config_file:
        with PathManager.open(config_file, "r") as file:
            logger.info("Contents of args.config_file=%s:\n%s", config_file, file.read())
    if is_main and output_dir:
        _save_config(cfg, os.path.join(output_dir, "config.yaml"), logger)

    seed = _get(cfg, "SEED", "train.seed", default=-1)
    seed_all_rng(None if seed < 0 else seed + rank)
    # Evaluated images differ in size, and each size would be benchmarked anew.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = bool(
            _get(cfg, "CUDNN_BENCHMARK", "train.cudnn_benchmark", default=False)
        )
    _set_float32_precision(_get(cfg, "FLOAT32_PRECISION", "train.float32_precision", default=""))


def _save_config(cfg: Any, path: str, logger: logging.Logger) -> None:
    from detectron2.config import CfgNode, LazyConfig

    if isinstance(cfg, CfgNode):
        logger.info("Running with full config:\n%s", cfg.dump())
        with PathManager.open(path, "w") as file:
            file.write(cfg.dump())
    else:
        LazyConfig.save(cfg, path)
    logger.info("Full config saved to %s", path)


def _set_float32_precision(precision: str) -> None:
    if not precision:
        return
    if precision not in ("highest", "high", "medium"):
        raise ValueError(
            f'FLOAT32_PRECISION must be "", "highest", "high" or "medium", not {precision!r}'
        )
    logging.getLogger(__name__).info("Set float32 precision to %s", precision)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """The writers of the default trainer: terminal, ``metrics.json`` and, if ``tensorboard`` is
    installed, TensorBoard.

    Args:
        output_dir: where the files go; it is made if needed.
        max_iter: the length of the training, for the estimated time left.
    """
    from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

    PathManager.mkdirs(output_dir)
    writers = [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
    ]
    if importlib.util.find_spec("tensorboard") is None:
        logging.getLogger(__name__).warning(
            "tensorboard is not installed: metrics go to the terminal and to "
            f"{os.path.join(output_dir, 'metrics.json')}, not to TensorBoard"
        )
    else:
        writers.append(TensorboardXWriter(output_dir))
    return writers
