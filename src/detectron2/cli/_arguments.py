"""Arguments that several commands have."""

import argparse


def add_config_arguments(parser: argparse.ArgumentParser, *, overrides: bool = True) -> None:
    """``--config``, ``--weights``, ``--device``, and ``KEY=VALUE``."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--config",
        "--config-file",
        required=True,
        metavar="CONFIG",
        help="a .yaml or .py file, a name in the model zoo, or the output folder of a training, "
        "which stands for its configuration and last checkpoint",
    )
    group.add_argument("--weights", metavar="FILE", help="checkpoint, a path or URL")
    group.add_argument("--device", help="such as cuda or cpu; default: a GPU if there is one")
    if overrides:
        group.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="other values of the configuration, such as SOLVER.BASE_LR=0.01, or train.max_iter"
            "=100 in a .py file, where +KEY=VALUE adds a key",
        )


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """``--dataset`` and ``--import``."""
    group = parser.add_argument_group("data sets")
    group.add_argument(
        "--dataset",
        dest="datasets",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="register a data set: a JSON file in COCO's format, with its images in the folder "
        "'images' beside it or in the one given by PATH:FOLDER, or a folder that "
        "detectron2.data.shapes has written; may be repeated",
    )
    add_import_argument(group)


def add_import_argument(parser: argparse._ActionsContainer) -> None:
    """``--import``."""
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this first, as it registers data sets or models; its functions "
        "add_…_config(cfg) add keys to the configuration; may be repeated",
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """``--num-gpus`` and what several machines need."""
    group = parser.add_argument_group("processes (leave these out under torchrun)")
    group.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, each with a GPU if there are any (default: 1)",
    )
    group.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="machines (default: 1)"
    )
    group.add_argument(
        "--machine-rank", type=int, default=0, metavar="I", help="which of them this is, from 0 on"
    )
    group.add_argument(
        "--dist-url", metavar="URL", help="where the machines find each other, tcp://host:port"
    )


def add_size_argument(parser: argparse._ActionsContainer) -> None:
    """``--size``."""
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the image; default: 4:3, with the shorter side that the configuration has",
    )


def add_verbose_argument(parser: argparse.ArgumentParser) -> None:
    """``--verbose``."""
    parser.add_argument("--verbose", action="store_true", help="show the whole log")
