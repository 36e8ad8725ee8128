"""Annotations against their images and what is declared."""

import operator
from collections import Counter
from typing import Any

import numpy as np

from detectron2.data._check_report import DatasetReport
from detectron2.data._check_source import Source, hashable
from detectron2.structures.boxes import BoxMode

# Annotators draw up to the border, and round.
_TOLERANCE = 1.0


class AnnotationChecker:
    """Goes through the annotations of a data set."""

    def __init__(self, source: Source, report: DatasetReport) -> None:
        self._source = source
        self._report = report
        self._counts: Counter[Any] = Counter()

    def check(self) -> None:
        """Check all records' annotations, and make the histogram."""
        without = []
        for record in self._source.records:
            annotations = record.get("annotations") or ()
            if not annotations:
                without.append(record)
            for i, annotation in enumerate(annotations):
                self._check_annotation(annotation, record, i)
            self._report.num_annotations += len(annotations)
        if self._report.num_annotations and without:
            first = f"image {without[0].get('image_id')} ({without[0].get('file_name')})"
            self._report.warnings.add("images without annotations", first, len(without))
        self._make_histogram()

    def _make_histogram(self) -> None:
        classes = self._source.classes
        if classes is None:
            self._report.notes.append("no classes are declared")
            classes = {category: str(category) for category in sorted(self._counts, key=str)}
        histogram = self._report.histogram
        for category, name in classes.items():
            # Of classes with the same name one must not hide another.
            key = name if name not in histogram else f"{name} ({category})"
            histogram[key] = self._counts[category]
        empty = [name for name, count in histogram.items() if count == 0]
        if empty and self._report.num_annotations:
            example = ", ".join(empty[:10]) + (", …" if len(empty) > 10 else "")
            self._report.warnings.add("classes without annotations", example, len(empty))

    def _check_annotation(
        self, annotation: dict[str, Any], record: dict[str, Any], index: int
    ) -> None:
        where = _Place(annotation, record, index)
        errors, warnings = self._report.errors, self._report.warnings
        if not isinstance(annotation, dict):
            errors.add("annotations that are no dicts", f"{str(annotation)[:100]}, {where}")
            return
        category = hashable(annotation.get("category_id"))
        declared = self._source.classes
        if declared is not None and category not in declared:
            errors.add("category ids that are not declared", f"{category!r}, {where}")
        self._counts[category] += 1
        if annotation.get("iscrowd", 0) not in (0, 1):
            warnings.add("iscrowd other than 0 and 1", f"{annotation['iscrowd']!r}, {where}")
        if annotation.get("ignore", 0) != 0:
            errors.add("annotations to be ignored, which COCO does not have", f"{where}")
        area = annotation.get("area")
        if area is not None and not (_are_finite([area]) and area >= 0):
            errors.add("areas that are negative or not finite", f"{area!r}, {where}")
        if annotation.get("bbox") is not None:
            self._check_box(annotation, record, where)
        elif not annotation.get("segmentation"):
            errors.add("annotations without a box and a mask", f"{where}")
        if annotation.get("segmentation") is not None:
            self._check_segmentation(annotation["segmentation"], record, where)
        if annotation.get("keypoints"):
            self._check_keypoints(annotation["keypoints"], category, where)

    def _check_box(
        self, annotation: dict[str, Any], record: dict[str, Any], where: "_Place"
    ) -> None:
        errors, warnings = self._report.errors, self._report.warnings
        box = annotation["bbox"]
        size = len(box) if hasattr(box, "__len__") else 0
        if size not in (4, 5) or isinstance(box, str):
            errors.add("boxes that have not 4 or 5 numbers", f"{box!r}, {where}")
            return
        if not _are_finite(box):
            errors.add("boxes with what is no finite number", f"{list(box)}, {where}")
            return
        mode = annotation.get("bbox_mode", BoxMode.XYWH_ABS if size == 4 else BoxMode.XYWHA_ABS)
        if size == 5:
            x0, y0 = x1, y1 = box[0], box[1]  # the centre
            w, h = box[2], box[3]
        elif mode == BoxMode.XYWH_ABS:
            x0, y0, w, h = box
            x1, y1 = x0 + w, y0 + h
        elif mode == BoxMode.XYXY_ABS:
            x0, y0, x1, y1 = box
            w, h = x1 - x0, y1 - y0
        else:
            errors.add("boxes of a mode that cannot be used", f"{mode!r}, {where}")
            return
        if w < 0 or h < 0:
            errors.add("inverted boxes, of negative width or height", f"{list(box)}, {where}")
            return
        if w == 0 or h == 0:
            warnings.add("boxes without area", f"{list(box)}, {where}")
        width, height = record.get("width"), record.get("height")
        if not (_is_number(width) and _is_number(height)):
            return
        example = f"{list(box)} in {width} x {height}, {where}"
        if x0 >= width or y0 >= height or x1 < 0 or y1 < 0:
            errors.add("boxes wholly outside the image", example)
        elif min(x0, y0) < -_TOLERANCE or x1 > width + _TOLERANCE or y1 > height + _TOLERANCE:
            warnings.add("boxes that reach out of the image by more than a pixel", example)

    def _check_segmentation(
        self, segmentation: Any, record: dict[str, Any], where: "_Place"
    ) -> None:
        size = [record.get("height"), record.get("width")]
        if isinstance(segmentation, dict):
            self._check_run_lengths(segmentation, size, where)
        elif isinstance(segmentation, np.ndarray):
            if list(segmentation.shape) != size and None not in size:
                self._add_wrong_size(list(segmentation.shape), size, where)
        elif isinstance(segmentation, list):
            self._check_polygons(segmentation, size, where)
        else:
            example = f"{str(segmentation)[:100]}, {where}"
            self._report.errors.add("masks that are no polygons and no run lengths", example)

    def _check_polygons(self, polygons: list[Any], size: list[Any], where: "_Place") -> None:
        errors, warnings = self._report.errors, self._report.warnings
        for polygon in polygons:
            if not hasattr(polygon, "__len__") or isinstance(polygon, (str, dict)):
                example = f"{str(polygons)[:100]}, {where}"
                errors.add("masks that are no list of polygons", example)
                return
            if len(polygon) < 6 or len(polygon) % 2:
                example = f"{list(polygon)[:7]}, {where}"
                warnings.add("polygons without three points, left out when loading", example)
                continue
            if not _are_finite(polygon):
                example = f"{str(list(polygon))[:100]}, {where}"
                errors.add("polygons with what is no finite number", example)
                continue
            if not all(map(_is_number, size)):
                continue
            x, y = polygon[0::2], polygon[1::2]
            x0, y0, x1, y1 = min(x), min(y), max(x), max(y)
            is_in = min(x0, y0) >= -_TOLERANCE and x1 <= size[1] + _TOLERANCE
            if not (is_in and y1 <= size[0] + _TOLERANCE):
                warnings.add(
                    "polygons that reach out of the image by more than a pixel",
                    f"x from {x0} to {x1}, y from {y0} to {y1} in {size[1]} x {size[0]}, {where}",
                )

    def _check_run_lengths(
        self, segmentation: dict[str, Any], size: list[Any], where: "_Place"
    ) -> None:
        errors = self._report.errors
        mask_size, counts = segmentation.get("size"), segmentation.get("counts")
        try:
            height, width = (operator.index(side) for side in mask_size)
            total = sum(counts) if isinstance(counts, list) else _sum_of_run_lengths(counts)
        except (TypeError, ValueError) as error:
            errors.add("run lengths that cannot be read", f"{error}, {where}")
            return
        if [height, width] != size and None not in size:
            self._add_wrong_size([height, width], size, where)
        if total != height * width:
            errors.add(
                "run lengths that do not sum up to their mask's size",
                f"{total} for {height} x {width} = {height * width}, {where}",
            )

    def _add_wrong_size(self, mask_size: list[int], size: list[int], where: "_Place") -> None:
        self._report.errors.add(
            "masks of another size than the image",
            f"height and width {mask_size}, the image's {size}, {where}",
        )

    def _check_keypoints(self, keypoints: Any, category: Any, where: "_Place") -> None:
        errors = self._report.errors
        number = self._source.num_keypoints.get(category)
        length = len(keypoints) if hasattr(keypoints, "__len__") else 0
        if length == 0 or length % 3 or (number is not None and length != 3 * number):
            wanted = "3 a keypoint" if number is None else f"{3 * number}"
            example = f"{length} numbers for {wanted}, {where}"
            errors.add("keypoints of a wrong length", example)
        elif not _are_finite(keypoints):
            errors.add("keypoints with what is no finite number", f"{list(keypoints)}, {where}")
        elif not set(keypoints[2::3]) <= {0, 1, 2}:
            example = f"{list(keypoints[2::3])}, {where}"
            errors.add("keypoints with a visibility other than 0, 1 and 2", example)


class _Place:
    """Where an annotation is, in words; made only where something is found."""

    __slots__ = ("_annotation", "_index", "_record")

    def __init__(self, annotation: Any, record: dict[str, Any], index: int) -> None:
        self._annotation, self._record, self._index = annotation, record, index

    def __str__(self) -> str:
        number = self._annotation.get("id") if isinstance(self._annotation, dict) else None
        name = f"annotation {number}" if number is not None else f"annotations[{self._index}]"
        record = self._record
        return f"{name} of image {record.get('image_id')} ({record.get('file_name')})"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _are_finite(values: Any) -> bool:
    try:
        total = sum(values)
    except TypeError:
        return False
    # NaN if one is NaN or infinite.
    return bool(total - total == 0)


def _sum_of_run_lengths(counts: str | bytes) -> int:
    """The number of pixels of a mask in COCO's compressed run lengths.

    Each length is in groups of five bits, the lowest first, one a character from "0" on; a sixth
    bit says that more follow. The number is signed, and from the fourth on the difference to the
    length before the last.
    """
    data = counts.encode("ascii") if isinstance(counts, str) else counts
    if not isinstance(data, bytes):
        raise TypeError(f"counts must be a list, a string or bytes, got {counts!r}")
    lengths: list[int] = []
    value = shift = 0
    more = False
    for byte in data:
        group = byte - 48
        if not 0 <= group < 64:
            raise ValueError(f"counts have the character {chr(byte)!r}")
        value |= (group & 31) << shift
        shift += 5
        more = bool(group & 32)
        if more:
            continue
        if group & 16:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        if value < 0:
            raise ValueError(f"counts have the negative length {value}")
        lengths.append(value)
        value = shift = 0
    if more:
        raise ValueError("counts end in the middle of a number")
    return sum(lengths)
