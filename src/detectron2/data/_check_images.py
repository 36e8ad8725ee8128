"""Image files against what is declared of them."""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from PIL import Image

from detectron2.data._check_report import DatasetReport
from detectron2.utils.file_io import PathManager

_EXIF_ORIENTATION = 0x0112

# Orientations from here on exchange width and height.
_FIRST_TRANSPOSED = 5

# Headers are read faster than single ones are handed to threads.
_IMAGES_A_TASK = 64

# Masks beside the image, which must have its size.
_MASK_KEYS = ("sem_seg_file_name", "pan_seg_file_name")


class _Header(NamedTuple):
    size: tuple[int, int] | None
    """Width and height, as the image is to be shown; None if it cannot be read."""
    problem: str | None
    orientation: int


def check_images(
    records: list[dict[str, Any]],
    report: DatasetReport,
    *,
    decode: bool,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Check that files are there and have the declared sizes; fill in sizes not declared.

    Args:
        records: those with a ``file_name`` are checked.
        report: takes what is found.
        decode: read all pixels, not only headers.
        num_workers: threads that read.
        progress: called now and then with the number of records that are done, and of all.
    """
    records = [record for record in records if record.get("file_name")]
    done = 0
    with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
        tasks = [(batch, decode) for batch in _batches(records)]
        # In order, so that reports are the same every time.
        for (batch, _), found in zip(tasks, pool.map(_read_batch, tasks), strict=True):
            for record, headers in zip(batch, found, strict=True):
                _check_record(record, headers, report)
            done += len(batch)
            if progress is not None:
                progress(done, len(records))


def _batches(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(records)
    while batch := list(itertools.islice(iterator, _IMAGES_A_TASK)):
        yield batch


def _read_batch(task: tuple[list[dict[str, Any]], bool]) -> list[dict[str, _Header]]:
    """The headers of each record's files, by key."""
    batch, decode = task
    return [
        {key: _read(r[key], decode) for key in ("file_name", *_MASK_KEYS) if r.get(key)}
        for r in batch
    ]


def _read(path: str, decode: bool) -> _Header:
    try:
        with PathManager.open(path, "rb") as file, Image.open(file) as image:
            orientation = 1
            # For a PNG without it, getexif() would decode the image.
            if "exif" in image.info or image.format == "TIFF":
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            width, height = image.size
            if decode:
                image.load()
    except FileNotFoundError:
        return _Header(None, "missing files", 1)
    except Exception as error:  # PIL's decoders raise many kinds for broken files
        return _Header(None, f"unreadable files|{type(error).__name__}: {error}", 1)
    if orientation in range(_FIRST_TRANSPOSED, 9):
        width, height = height, width
    return _Header((width, height), None, orientation)


def _check_record(
    record: dict[str, Any], headers: dict[str, _Header], report: DatasetReport
) -> None:
    for key, header in headers.items():
        if header.problem is not None:
            kind, _, detail = header.problem.partition("|")
            report.errors.add(kind, f"{record[key]}{': ' if detail else ''}{detail}")
    size, _, orientation = headers["file_name"]
    if size is None:
        return
    width, height = size
    declared = (record.get("width"), record.get("height"))
    if declared == (None, None):
        record["width"], record["height"] = width, height
    elif declared != (width, height):
        turned = f" after its EXIF orientation, {orientation}" if orientation != 1 else ""
        report.errors.add(
            "images of another size than declared",
            f"{record['file_name']}: {width} x {height}{turned}, "
            f"declared {declared[0]} x {declared[1]}",
        )
    for key in _MASK_KEYS:
        if key in headers and headers[key].size not in (None, size):
            mask_width, mask_height = headers[key].size
            report.errors.add(
                "masks of another size than the image",
                f"{record[key]}: {mask_width} x {mask_height}, the image {width} x {height}",
            )
