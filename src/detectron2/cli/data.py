"""``detectron2 data``: check, show, and shapes."""

from __future__ import annotations

import argparse
import os
import random

HELP = "check or show a data set, or draw one to try things on"
EXAMPLES = """\
  detectron2 data shapes datasets/shapes --train 2000 --val 200
  detectron2 data check annotations.json --image-root images
  detectron2 data show my_train --dataset my_train=train.json:images --out shown --number 20

"detectron2 data check" exits with 1 if it finds errors.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    tasks = parser.add_subparsers(dest="task", required=True, metavar="check|show|shapes")

    check = tasks.add_parser("check", help="find what is wrong with a data set")
    check.add_argument("name", help="a registered name, or a JSON file in COCO's format")
    check.add_argument(
        "--image-root", metavar="FOLDER", help="of the images; a file's are not checked without"
    )
    check.add_argument("--no-images", action="store_true", help="check the annotations only")
    check.add_argument(
        "--decode", action="store_true", help="read images wholly, not just their headers"
    )
    check.add_argument("--workers", type=int, default=8, metavar="N", help="threads (default: 8)")
    check.add_argument(
        "--examples", type=int, default=3, metavar="N", help="of each finding (default: 3)"
    )
    _arguments.add_dataset_arguments(check)
    check.set_defaults(run=_check)

    show = tasks.add_parser("show", help="draw the annotations of a data set over its images")
    show.add_argument("name", help="a registered name")
    show.add_argument("--out", required=True, metavar="FOLDER", help="where the pictures go")
    show.add_argument("--number", type=int, default=10, metavar="N", help="of images (default: 10)")
    show.add_argument("--random", action="store_true", help="take any images, not the first")
    show.add_argument("--scale", type=float, default=1.0, help="of the pictures (default: 1)")
    _arguments.add_dataset_arguments(show)
    show.set_defaults(run=_show)

    shapes = tasks.add_parser("shapes", help="write a data set of drawn shapes: train and val")
    shapes.add_argument("folder", help="where it goes, as FOLDER/train and FOLDER/val")
    for name, number, purpose in (("--train", 2000, "train"), ("--val", 200, "evaluate")):
        shapes.add_argument(
            name,
            type=int,
            default=number,
            metavar="N",
            help=f"images to {purpose} on (default: {number})",
        )
    shapes.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(256, 256),
        metavar=("H", "W"),
        help="of the images (default: 256 256)",
    )
    shapes.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of train; val has N + 1 (default: 0)"
    )
    shapes.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="some of ellipse, rectangle, triangle, arrow, star, cross (default: all)",
    )
    shapes.add_argument(
        "--max-shapes", type=int, default=8, metavar="N", help="of an image (default: 8)"
    )
    shapes.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes (default: 0, this one)"
    )
    shapes.set_defaults(run=_shapes)
    for task in (check, show, shapes):
        task.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where in the code an error was raised",
        )


def run(args: argparse.Namespace) -> int:
    """Not called: each task has its own function."""
    raise AssertionError(args)


def _check(args: argparse.Namespace) -> int:
    from detectron2.cli._datasets import prepare
    from detectron2.cli._errors import UsageError
    from detectron2.cli._terminal import ProgressBar
    from detectron2.data.check import check_dataset

    prepare(args)
    if args.workers < 1 or args.examples < 1:
        raise UsageError(
            f"--workers {args.workers} and --examples {args.examples} must be positive"
        )
    with ProgressBar(None, "images") as bar:
        try:
            report = check_dataset(
                args.name,
                image_root=args.image_root,
                check_images=not args.no_images,
                decode=args.decode,
                num_workers=args.workers,
                max_examples=args.examples,
                progress=lambda done, total: bar.update(done, f"of {total}"),
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
    print(report)
    return 0 if report.ok else 1


def _show(args: argparse.Namespace) -> int:
    from detectron2.cli._datasets import load_records, prepare
    from detectron2.cli._errors import UsageError
    from detectron2.cli._outputs import prepare_folder
    from detectron2.cli._terminal import ProgressBar
    from detectron2.data import MetadataCatalog
    from detectron2.data.detection_utils import read_image
    from detectron2.utils.visualizer import Visualizer

    prepare(args)
    if args.number < 1:
        raise UsageError(f"--number must be positive, got {args.number}")
    records = load_records(args.name)
    if args.random:
        records = random.sample(records, min(args.number, len(records)))
    records = records[: args.number]
    metadata = MetadataCatalog.get(args.name)
    prepare_folder(args.out, "--out")
    with ProgressBar(len(records), "draw") as bar:
        for done, record in enumerate(records, start=1):
            image = read_image(record["file_name"], format="RGB")
            drawn = Visualizer(image, metadata, scale=args.scale).draw_dataset_dict(record)
            stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
            drawn.save(os.path.join(args.out, f"{stem}.jpg"))
            bar.update(done)
    print(f"{args.out}: {len(records)} images")
    return 0


def _shapes(args: argparse.Namespace) -> int:
    from detectron2.cli._errors import UsageError
    from detectron2.data.shapes import SHAPE_CLASSES, write_shapes

    classes = SHAPE_CLASSES if args.classes is None else tuple(args.classes)
    for split, number, seed in (("train", args.train, args.seed), ("val", args.val, args.seed + 1)):
        folder = os.path.join(args.folder, split)
        try:
            write_shapes(
                folder,
                number,
                tuple(args.size),
                seed,
                classes,
                max_shapes=args.max_shapes,
                num_workers=args.workers,
            )
        except (FileExistsError, ValueError) as error:
            raise UsageError(str(error)) from error
        print(f"{folder}: {number} images")
    return 0
