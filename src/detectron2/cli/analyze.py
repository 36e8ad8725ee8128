"""``detectron2 analyze``."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "count a model's operations, activations and parameters"
EXAMPLES = """\
  detectron2 analyze --config COCO-Detection/retinanet_R_50_FPN_1x.yaml
  detectron2 analyze --config COCO-Detection/retinanet_R_50_FPN_1x.yaml --size 800 1333 --depth 3
  detectron2 analyze --config config.yaml --operators
  detectron2 analyze --config config.yaml --structure

Of inference on one image of noise. A multiplication with the addition that follows counts as one
operation. In two-stage models counts depend on the number of detections, thus on the weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    _arguments.add_size_argument(parser)
    parser.add_argument(
        "--depth", type=int, default=2, metavar="N", help="of nested modules shown (default: 2)"
    )
    parser.add_argument("--operators", action="store_true", help="show counts by operator")
    parser.add_argument("--structure", action="store_true", help="print the modules, run nothing")
    _arguments.add_config_arguments(parser)
    _arguments.add_import_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from detectron2.cli._config import build_model, build_trained_model, device_of, load_config
    from detectron2.cli._model_input import image_size, noise_image

    cfg = load_config(args, trained=False)
    # Analysing needs no weights; downloading those that a training starts from would take long.
    model = build_model(cfg) if args.weights is None else build_trained_model(cfg)
    if args.structure:
        print(model)
        return 0
    record = noise_image(cfg, args.size, device_of(cfg))
    _print_counts(model.eval(), record, args)
    print(f"image: {image_size(record)}")
    return 0


def _print_counts(model: Any, record: dict[str, Any], args: argparse.Namespace) -> None:
    import torch
    from tabulate import tabulate

    from detectron2.utils._model_analysis import ActivationCountAnalysis
    from detectron2.utils.analysis import FlopCountAnalysis, parameter_count

    with torch.no_grad():
        operations = FlopCountAnalysis(model, [record]).unsupported_ops_warnings(False)
        operations = operations.uncalled_modules_warnings(False).tracer_warnings("none")
        activations = ActivationCountAnalysis(model, [record]).unsupported_ops_warnings(False)
        activations = activations.uncalled_modules_warnings(False).tracer_warnings("none")
        by_module, of_activations = operations.by_module(), activations.by_module()
    parameters = parameter_count(model)
    names = [name for name in by_module if _depth(name) <= args.depth]
    rows = [
        (
            name or "the model",
            f"{parameters.get(name, 0) / 1e6:.3f}",
            f"{by_module[name] / 1e9:.3f}",
            f"{of_activations[name] / 1e6:.3f}",
        )
        for name in names
        if by_module[name] or parameters.get(name, 0)
    ]
    headers = ("module", "parameters (1e6)", "operations (1e9)", "activations (1e6)")
    print(
        tabulate(rows, headers, colalign=("left", "right", "right", "right"), disable_numparse=True)
    )
    if args.operators:
        counts = sorted(operations.by_operator().items(), key=lambda item: -item[1])
        print()
        rows = [(name, f"{count / 1e9:.3f}") for name, count in counts]
        print(tabulate(rows, ("operator", "operations (1e9)"), disable_numparse=True))


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0
