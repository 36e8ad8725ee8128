"""Records that are left out of training, and what is in those that are not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from detectron2.structures import BoxMode
from detectron2.utils.logger import log_first_n

_Record = dict[str, Any]


def _has_object(record: _Record) -> bool:
    return any(annotation.get("iscrowd", 0) == 0 for annotation in record["annotations"])


def _count_visible_keypoints(record: _Record) -> int:
    visibilities = (a["keypoints"][2::3] for a in record["annotations"] if "keypoints" in a)
    return sum(int((np.asarray(v) > 0).sum()) for v in visibilities)


def filter_images_with_only_crowd_annotations(dataset_dicts: list[_Record]) -> list[_Record]:
    """The records that have an annotation which is not of a crowd."""
    return list(filter(_has_object, dataset_dicts))


def filter_images_with_few_keypoints(
    dataset_dicts: list[_Record], min_keypoints_per_image: int
) -> list[_Record]:
    """The records with so many visible keypoints or more, over all their annotations."""
    return [r for r in dataset_dicts if _count_visible_keypoints(r) >= min_keypoints_per_image]


def filter_datasets(
    datasets: list[list[_Record]], filter_empty: bool, min_keypoints: int
) -> list[list[_Record]]:
    """Leave records out of datasets, and warn of how many.

    Args:
        datasets: the records of each.
        filter_empty: leave out those without an annotation that is not of a crowd.
        min_keypoints: leave out those with fewer visible keypoints; 0 leaves none out.
    """
    steps: list[tuple[str, Callable[[list[_Record]], list[_Record]]]] = []
    if filter_empty:
        steps.append(
            (
                "without an annotation other than of crowds",
                filter_images_with_only_crowd_annotations,
            )
        )
    if min_keypoints > 0:
        steps.append(
            (
                f"with fewer than {min_keypoints} visible keypoints",
                lambda records: filter_images_with_few_keypoints(records, min_keypoints),
            )
        )
    total = sum(map(len, datasets))
    dropped = []
    for reason, step in steps:
        before = sum(map(len, datasets))
        datasets = [step(records) for records in datasets]
        if count := before - sum(map(len, datasets)):
            dropped.append(f"{count} {reason}")
    if dropped:
        logging.getLogger(__name__).warning(
            "Left out %d of %d images: %s",
            *(total - sum(map(len, datasets)), total, ", ".join(dropped)),
        )
    return datasets


def warn_of_dropped_annotations(records: list[_Record]) -> None:
    """Warn of how many annotations there are that a training does not see."""
    total, dropped = 0, Counter[str]()
    for record in records:
        for annotation in record.get("annotations", ()):
            total += 1
            if annotation.get("iscrowd", 0) != 0:
                dropped["of crowds"] += 1
            elif _is_empty(annotation):
                dropped["with a box without area"] += 1
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        logging.getLogger(__name__).warning(
            "Training does not see %d of %d annotations: %s", dropped.total(), total, reasons
        )


def _is_empty(annotation: _Record) -> bool:
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode")
    if box is None or len(box) not in (4, 5):
        return False
    if mode == BoxMode.XYXY_ABS:
        return box[2] <= box[0] or box[3] <= box[1]
    return box[2] <= 0 or box[3] <= 0


def print_instances_class_histogram(dataset_dicts: list[_Record], class_names: list[str]) -> None:
    """Log how many instances of each class there are, crowds left out.

    Args:
        dataset_dicts: records with annotations.
        class_names: of the category ids from 0 on.

    Raises:
        ValueError: a category id that has no name; the record is named.
    """
    counts = np.zeros(len(class_names), np.int64)
    for record in dataset_dicts:
        for annotation in record["annotations"]:
            if annotation.get("iscrowd", 0) != 0:
                continue
            category = annotation["category_id"]
            if not 0 <= category < len(class_names):
                raise ValueError(
                    f"an annotation of {record.get('file_name')!r} (image_id "
                    f"{record.get('image_id')!r}) has the category_id {category}, but there are "
                    f"{len(class_names)} classes"
                )
            counts[category] += 1
    # The caller of the library's function is of no interest, so once for each text.
    log_first_n(
        logging.INFO,
        f"Instances of the {len(class_names)} classes:\n{_table(class_names, counts)}",
        key="message",
    )


def _table(names: list[str], counts: np.ndarray, columns: int = 3) -> str:
    cells = [f"{name[:24]:<24} {count:>9,}" for name, count in zip(names, counts, strict=True)]
    cells.append(f"{'total':<24} {counts.sum():>9,}")
    rows = -(-len(cells) // columns)
    # Down the columns, as a reader looks for a name.
    return "\n".join("   ".join(cells[row::rows]) for row in range(rows))
