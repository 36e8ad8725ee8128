"""The parser of all commands, and what happens around a command."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import IO

import detectron2
from detectron2.cli._errors import UsageError, one_line

COMMANDS = ("info", "data", "train", "eval", "predict", "export", "analyze", "benchmark")
_OF_SEVERAL_PROCESSES = ("train", "eval", "benchmark")

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.\[\]$-]*=.*", re.DOTALL)

_DESCRIPTION = "Object detection and segmentation."
_EPILOG = """\
examples:
  detectron2 info
  detectron2 train --config COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml --num-gpus 8
  detectron2 predict photo.jpg --config COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml \\
      --out predictions

"detectron2 COMMAND --help" tells about a command.

exit status: 0 success, 1 failure or errors found, 2 wrong arguments, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``run`` of its result is the command's function."""
    parser = _parser_class()(
        prog="detectron2",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"detectron2-neo {detectron2.__version__}"
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"detectron2.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument(
            "--traceback", action="store_true", help="show where in the code an error was raised"
        )
        command.set_defaults(run=module.run, parser=command)
        module.add_arguments(command)
    return parser


def _speaks() -> bool:
    """Whether this process tells the user what all of torchrun's on this machine have to say."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _parser_class() -> type[argparse.ArgumentParser]:
    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:
            # One line: the usage of some commands has a dozen.
            self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

        def _print_message(self, message: str, file: IO[str] | None = None) -> None:
            if _speaks():
                super()._print_message(message, file)

    return Parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line.

    Overrides ``KEY=VALUE`` may stand anywhere after the command, which argparse by itself does
    not support.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(arguments)
    if args.command is None:
        parser.error("a command is needed")
    if rest:
        unknown = [text for text in rest if not _OVERRIDE.fullmatch(text)]
        if unknown or not hasattr(args, "overrides"):
            args.parser.error(f"unknown arguments: {' '.join(unknown or rest)}")
        args.overrides = [*args.overrides, *rest]
    return args


def is_override(text: str) -> bool:
    """Whether an argument is ``KEY=VALUE`` and not the name of a file."""
    return _OVERRIDE.fullmatch(text) is not None and not os.path.exists(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; None for those of the process.

    Returns:
        The exit status, see :mod:`detectron2.cli`. Help and wrong arguments raise SystemExit.
    """
    args = parse(arguments)
    _hide_warnings_of_libraries()
    try:
        _check_processes(args.command)
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Nothing more can be flushed at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.traceback:
            raise
        is_usage = isinstance(error, UsageError)
        if _speaks() or not is_usage:
            print(f"{args.parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 2 if is_usage else 1


def _check_processes(command: str) -> None:
    count = os.environ.get("WORLD_SIZE", "1")
    if command not in _OF_SEVERAL_PROCESSES and count != "1":
        raise UsageError(f"{command} runs in one process, but torchrun has started {count}")


def _hide_warnings_of_libraries() -> None:
    """Leave out what is meant for the authors of code, here and in processes started from here."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
