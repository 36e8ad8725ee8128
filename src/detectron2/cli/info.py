"""``detectron2 info``."""

import argparse

HELP = "show the environment, and test the compiled operators on this machine"
EXAMPLES = """\
  detectron2 info
  detectron2 info --no-test
  detectron2 info --models Keypoints      # names in the model zoo

Operators are compared with slow reference implementations, on the CPU and each GPU; the exit status
is 1 if one of them is wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--no-test", action="store_true", help="do not test the operators")
    parser.add_argument(
        "--models",
        metavar="TEXT",
        nargs="?",
        const="",
        help="list the configurations of the model zoo, with TEXT in their name, instead",
    )


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    if args.models is not None:
        _print_models(args.models)
        return 0
    from detectron2.utils.collect_env import collect_env_info

    print(collect_env_info())
    return 0 if args.no_test else _test_operators()


def _print_models(text: str) -> None:
    from pathlib import Path

    from detectron2 import model_zoo

    # Weights are published for this one, so that it is there.
    example = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
    folder = Path(model_zoo.get_config_file(example)).parents[1]
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        is_model = file.suffix in (".yaml", ".py") and "/" in name
        if not is_model or name.startswith("common/") or file.name.startswith("_"):
            continue
        if text.lower() not in name.lower():
            continue
        try:
            model_zoo.get_checkpoint_url(name)
            print(f"{name}  (trained weights)")
        except RuntimeError:
            print(name)


def _test_operators() -> int:
    import torch

    from detectron2.cli import _self_test

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    names = _self_test.operators()
    print(f"\n{len(names)} operators: {', '.join(names)}")
    failures = 0
    for outcome in _self_test.run(devices):
        verdict = "right" if outcome.problem is None else f"WRONG: {outcome.problem}"
        print(f"{outcome.device:8} {outcome.operator:24} {verdict}")
        failures += outcome.problem is not None
    print(f"{failures} wrong" if failures else "all operators tested are right")
    return 1 if failures else 0
