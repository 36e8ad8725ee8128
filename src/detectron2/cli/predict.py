"""``detectron2 predict``."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from typing import Any

HELP = "predict for images, folders of images and videos"
EXAMPLES = """\
  detectron2 predict photo.jpg --config COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml \\
      --out predictions
  detectron2 predict photos/ --config runs/first --threshold 0.7 --out predictions
  detectron2 predict frames/ --video --config runs/first --out drawn    # consecutive frames
  detectron2 predict film.mp4 --config runs/first --out drawn           # needs OpenCV

--out gets each image with what was found in it, and predictions.json: images, instances with
scores, and classes, in COCO's format. Images that cannot be read are left out and named at the end;
the exit status is then 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE|FOLDER|VIDEO|KEY=VALUE",
        help="what to predict for; and other values of the configuration",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where predictions go")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="least score of an instance (default: 0.5)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="of the drawn images, not of video frames (default: 1)",
    )
    parser.add_argument(
        "--no-draw", action="store_true", help="write predictions.json only, no images"
    )
    parser.add_argument(
        "--video", action="store_true", help="the images are consecutive frames: keep colours"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images at a time (default: 1)"
    )
    _arguments.add_config_arguments(parser, overrides=False)
    _arguments.add_dataset_arguments(parser)
    _arguments.add_verbose_argument(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Predict, draw and write."""
    from detectron2.cli._coco_output import CocoOutput
    from detectron2.cli._config import load_config
    from detectron2.cli._drawing import Drawer
    from detectron2.cli._errors import UsageError
    from detectron2.cli._images import count_images, find_inputs, is_video, read_inputs
    from detectron2.cli._main import is_override
    from detectron2.cli._outputs import prepare_folder
    from detectron2.cli._predictor import build_predictor, metadata_of
    from detectron2.cli._processes import set_up_inference
    from detectron2.cli._terminal import ProgressBar, say

    if args.batch < 1 or args.scale <= 0:
        raise UsageError(f"--batch {args.batch} and --scale {args.scale} must be positive")
    args.overrides = [*filter(is_override, args.inputs), *args.overrides]
    files = find_inputs([text for text in args.inputs if not is_override(text)])
    if not files:
        raise UsageError("there are no images to predict for")
    prepare_folder(args.out, "--out")
    cfg = load_config(args, trained=True)
    set_up_inference(cfg, verbose=args.verbose)
    predictor = build_predictor(cfg)
    metadata = metadata_of(cfg)
    output = CocoOutput(metadata)
    is_film = args.video or any(map(is_video, files))
    drawer = Drawer(metadata, is_video=is_film, scale=args.scale)
    unreadable: list[str] = []
    path = os.path.join(args.out, "predictions.json")
    try:
        with ProgressBar(count_images(files), "predict") as bar:
            for images in _batches(read_inputs(files, unreadable), args.batch):
                predictions = predictor([image.pixels for image in images])
                for image, prediction in zip(images, predictions, strict=True):
                    shown = _on_cpu(prediction, args.threshold)
                    output.add(image.source, image.pixels.shape[:2], shown.get("instances"))
                    if not args.no_draw:
                        drawn = drawer.draw(image.pixels[:, :, ::-1], shown)
                        drawn.save(os.path.join(args.out, f"{image.name}.jpg"))
                bar.update(output.num_images)
    finally:
        # What there is by then is not lost if the user or an error ends it.
        if output.num_images > 0:
            output.write(path)
            print(f"{path}: {output.num_annotations} instances in {output.num_images} images")
    if output.num_images == 0:
        raise UsageError(unreadable[0])
    for message in unreadable:
        say(f"left out: {message}")
    return 1 if unreadable else 0


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _on_cpu(prediction: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Everything but instances of too low a score."""
    result = dict(prediction)
    if "instances" in result:
        instances = result["instances"].to("cpu")
        result["instances"] = instances[instances.scores >= threshold]
    if "sem_seg" in result:
        result["sem_seg"] = result["sem_seg"].to("cpu")
    if "panoptic_seg" in result:
        segments, info = result["panoptic_seg"]
        result["panoptic_seg"] = segments.to("cpu"), info
    return result
