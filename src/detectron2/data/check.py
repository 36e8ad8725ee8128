"""Checks of data sets, before they are trained on.

``python -m detectron2.data.check NAME|FILE.json`` prints a report. Its exit status is 1 if there
are errors, 0 if there are none, and 2 if it was called wrongly.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.data._check_annotations import AnnotationChecker
from detectron2.data._check_images import check_images as _check_images
from detectron2.data._check_report import DatasetReport
from detectron2.data._check_source import hashable, open_source
from detectron2.data.catalog import Metadata
from detectron2.data.datasets._coco_file import paused_gc
from detectron2.data.datasets._findings import Findings

__all__ = ["DatasetReport", "check_dataset"]

# Reading waits for disks and networks more than it computes.
_DEFAULT_WORKERS = 8

_SECONDS_BETWEEN_LINES = 5.0


def check_dataset(
    dataset: str | os.PathLike[str] | Sequence[dict[str, Any]],
    *,
    image_root: str | None = None,
    metadata: Metadata | None = None,
    check_images: bool = True,
    decode: bool = False,
    num_workers: int = _DEFAULT_WORKERS,
    max_examples: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Go through a data set, and report what is wrong with it.

    Errors keep the data from being loaded or trained on, or make results wrong: images that are
    missing or have other sizes than declared, ids that are repeated or not declared, numbers that
    are not finite, boxes that are inverted or outside the image, masks of another size than the
    image, keypoints of a wrong length. Warnings are what loads, but may not be meant: boxes without
    area, boxes and polygons that reach out of the image, polygons without three points, images and
    classes without annotations, annotations of images that are not listed or with the id 0.

    Annotation files of COCO's and LVIS's formats are checked as they are, other registered data
    sets as their functions load them.

    Args:
        dataset: the name of a registered data set, the path of a JSON file in COCO's format, or
            records in the standard format.
        image_root: the folder of the images; for a registered data set in COCO's or LVIS's format
            instead of its own. A file's images are not checked without.
        metadata: what declares classes and keypoints of records; of a registered data set, its own.
        check_images: read the images' headers.
        decode: read the images wholly, which finds files that are cut off, and takes long.
        num_workers: threads that read images.
        max_examples: how many examples of each kind to keep.
        progress: called with the number of images that were read, and of all, now and then.

    Returns:
        Errors and warnings by kind, with counts and examples, and the histogram of classes.

    Raises:
        ValueError: there is no such data set or file.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be positive, got {num_workers}")
    name = os.fspath(dataset) if isinstance(dataset, (str, os.PathLike)) else "records"
    report = DatasetReport(name, errors=Findings(max_examples), warnings=Findings(max_examples))
    with paused_gc():
        source = open_source(dataset, image_root, metadata, report)
        if source is None:
            return report
        report.num_images = len(source.records)
        _check_records(source.records, report)
        if check_images and source.has_image_root:
            _check_images(
                source.records, report, decode=decode, num_workers=num_workers, progress=progress
            )
        elif check_images:
            report.notes.append("the images were not checked, as no folder of images was given")
        AnnotationChecker(source, report).check()
    return report


def _check_records(records: list[dict[str, Any]], report: DatasetReport) -> None:
    """Check fields of images that need no file."""
    seen: dict[str, set[Any]] = {"image_id": set(), "file_name": set()}
    kinds = {
        "image_id": (report.errors, "repeated ids of images"),
        "file_name": (report.warnings, "repeated files of images"),
    }
    if not records:
        report.errors.add("data sets without an image", report.name)
    for i, record in enumerate(records):
        for key, (findings, kind) in kinds.items():
            value = record.get(key)
            if value is None:
                report.errors.add(f"images without {key}", f"record {i}: {str(record)[:200]}")
            elif hashable(value) in seen[key]:
                findings.add(kind, f"{value}, in record {i}")
            seen[key].add(hashable(value))
        for key in ("height", "width"):
            value = record.get(key)
            if value is not None and not (isinstance(value, int) and value > 0):
                example = f"{value!r} of image {record.get('image_id')}"
                report.errors.add(f"images whose {key} is no positive integer", example)


class _Progress:
    """A line on a terminal, or now and then a line in a log."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        pause = 0.2 if self._is_terminal else _SECONDS_BETWEEN_LINES
        is_last_on_terminal = done == total and self._is_terminal
        if now - self._last < pause and not is_last_on_terminal:
            return
        self._last = now
        text = f"{done} of {total} images, {done / max(now - self._start, 1e-9):.0f} a second"
        if self._is_terminal:
            print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detectron2.data.check",
        description="Check a data set, and report what is wrong with it.",
        epilog="The exit status is 1 if there are errors, 0 if not, 2 for wrong arguments.",
    )
    parser.add_argument("dataset", help="a registered name, or a JSON file in COCO's format")
    parser.add_argument("--image-root", help="the folder of the images")
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="import this before, as it registers the data set; may be repeated",
    )
    parser.add_argument("--no-images", action="store_true", help="read no image")
    parser.add_argument("--decode", action="store_true", help="read images wholly")
    parser.add_argument("--workers", type=int, default=_DEFAULT_WORKERS, help="threads")
    parser.add_argument("--examples", type=int, default=3, help="of each kind of finding")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.examples < 1:
        parser.error(f"--examples must be positive, got {options.examples}")
    try:
        for module in options.modules:
            importlib.import_module(module)
        report = check_dataset(
            options.dataset,
            image_root=options.image_root,
            check_images=not options.no_images,
            decode=options.decode,
            num_workers=options.workers,
            max_examples=options.examples,
            progress=_Progress(),
        )
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
