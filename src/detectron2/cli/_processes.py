"""Commands that run in several processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from detectron2.cli._errors import UsageError
from detectron2.cli._terminal import hidden_output, log_to_terminal


def run_in_processes(
    function: Callable[[argparse.Namespace], None], args: argparse.Namespace
) -> None:
    """Call ``function(args)`` in each process that ``add_launch_arguments`` asks for, or that
    torchrun has started."""
    from detectron2.engine import launch

    # The parser stays here: it cannot be pickled.
    sent = argparse.Namespace(
        **{name: value for name, value in vars(args).items() if name not in ("parser", "run")}
    )
    from torch.multiprocessing import ProcessRaisedException

    try:
        launch(
            function,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(sent,),
        )
    except ProcessRaisedException as error:
        # The traceback of that process; its last line names the error.
        last = str(error).strip().splitlines()[-1]
        name = f"{UsageError.__module__}.{UsageError.__name__}: "
        if last.startswith(name):
            raise UsageError(last.removeprefix(name)) from error
        raise


def set_up_training(cfg: Any, args: argparse.Namespace) -> None:
    """Make the output folder, its log and the seeds, as ``default_setup`` does.

    The log has all of it; the terminal, without ``--verbose``, what follows from here on and
    matters.
    """
    from detectron2.engine import default_setup

    with hidden_output(unless=args.verbose):
        default_setup(cfg, args)
    log_to_terminal(verbose=args.verbose)


def set_up_inference(cfg: Any, *, verbose: bool) -> None:
    """Set the precision that the configuration asks for, and log to the terminal."""
    from detectron2.engine._setup import _get, _set_float32_precision

    log_to_terminal(verbose=verbose)
    _set_float32_precision(_get(cfg, "FLOAT32_PRECISION", "train.float32_precision", default=""))
