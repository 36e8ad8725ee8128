"""``detectron2 export``."""

from __future__ import annotations

import argparse
import os
from typing import Any

HELP = "write a trained model for use without its code"
EXAMPLES = """\
  detectron2 export --config runs/first --format torch-export --out model.pt2
  detectron2 export --config COCO-Detection/retinanet_R_50_FPN_3x.yaml --format onnx \\
      --out retinanet.onnx
  detectron2 export --config runs/first --format torchscript --out model.ts --size 480 640

formats, and how to run what is written; all but onnx need "import detectron2.layers" before,
which loads their operators:
  torch-export  a program for images of any size: torch.export.load(file).module()(image)
  aoti          the same, compiled for this device: torch._inductor.aoti_load_package(file)(image)
  torchscript   a trace: torch.jit.load(file)(image)
  onnx          for onnxruntime and others; needs the packages onnx and onnxscript

The image is (3, H, W), float32, from 0 to 255, in the configuration's order of colours. What comes
out, in the pixels of the input and before post-processing, is told when the file is written.
"""
_FORMATS = ("torch-export", "aoti", "torchscript", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format", choices=_FORMATS, default="torch-export", help="default: torch-export"
    )
    _arguments.add_size_argument(parser)
    _arguments.add_config_arguments(parser)
    _arguments.add_import_argument(parser)
    _arguments.add_verbose_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Export, and tell what goes in and comes out."""
    from detectron2.cli._config import build_trained_model, device_of, load_config
    from detectron2.cli._errors import UsageError
    from detectron2.cli._model_input import image_size, noise_image
    from detectron2.cli._outputs import prepare_file
    from detectron2.cli._processes import set_up_inference

    if args.format == "aoti" and not args.out.endswith(".pt2"):
        raise UsageError(f"--out {args.out}: the name of an aoti package ends in .pt2")
    prepare_file(args.out, "--out")
    cfg = load_config(args, trained=True)
    set_up_inference(cfg, verbose=args.verbose)
    model = build_trained_model(cfg)
    record = noise_image(cfg, args.size, device_of(cfg))
    inputs = [{"image": record["image"]}]
    names = _write(model, inputs, args)
    megabytes = os.path.getsize(args.out) / 1e6
    print(f"{args.out}: {megabytes:.1f} MB, from an image of {image_size(record)}")
    print(f"outputs: {', '.join(names)}")
    return 0


def _write(model: Any, inputs: list[dict[str, Any]], args: argparse.Namespace) -> tuple[str, ...]:
    """Write the file; returns the names of the outputs."""
    import torch

    from detectron2.export import export_aoti, export_onnx, export_program

    if args.format == "torchscript":
        return _write_trace(model, inputs, args.out)
    exported = export_program(model, inputs)
    if args.format == "onnx":
        export_onnx(exported, args.out, verbose=args.verbose)
    elif args.format == "aoti":
        export_aoti(exported, args.out)
    else:
        torch.export.save(exported.program, args.out)
    return exported.output_names


def _write_trace(model: Any, inputs: list[dict[str, Any]], file: str) -> tuple[str, ...]:
    import warnings

    import torch

    from detectron2.export import TracingAdapter
    from detectron2.export._leaf_names import leaf_names
    from detectron2.export._predictions import predictions

    adapter = TracingAdapter(model, inputs, predictions).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # Of sizes that become constants where they may.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        trace = torch.jit.trace(adapter, adapter.flattened_inputs)
    trace.save(file)
    return leaf_names(adapter.outputs_schema, "output")
