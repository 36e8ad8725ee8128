"""Annotations of COCO's format, checked and brought into the standard format."""

from collections.abc import Mapping, Sequence
from typing import Any

import pycocotools.mask as mask_util

from detectron2.data.datasets._coco_file import CocoFile
from detectron2.structures.boxes import BoxMode


class AnnotationConverter:
    """Makes standard annotations, and notes in the file's findings what is odd."""

    def __init__(
        self,
        file: CocoFile,
        contiguous_ids: Mapping[int, int] | None,
        keys: Sequence[str],
    ) -> None:
        """
        Args:
            file: that the annotations are from.
            contiguous_ids: the file's category ids → those from 0. None leaves them as they are.
            keys: fields to copy, where they are there; segmentations always are.
        """
        self._file = file
        self._contiguous_ids = contiguous_ids
        self._keys = tuple(keys)
        self._num_keypoints = {
            category["id"]: len(category["keypoints"])
            for category in file.categories
            if isinstance(category.get("keypoints"), list) and category["keypoints"]
        }

    def take_annotations(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """The annotations of an image in the standard format; the file has them no longer."""
        annotations = self._file.annotations.pop(image["id"], ())
        converted = (self.convert(annotation, image) for annotation in annotations)
        return [annotation for annotation in converted if annotation is not None]

    def convert(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any] | None:
        """The annotation in the standard format, None if it is to be left out.

        Lists are shared with ``annotation``, except those that are changed.

        Raises:
            ValueError: something in it cannot be right. The message names file and annotation.
        """
        try:
            return self._convert(annotation, image)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
            message = f"a field is of a wrong type ({error}): {str(annotation)[:500]}"
            raise self._error(annotation, message) from error

    def _convert(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any] | None:
        if annotation.get("ignore", 0) != 0:
            raise self._error(
                annotation, f"'ignore' must be 0, which is all that COCO has, got {annotation}"
            )
        converted = {key: annotation[key] for key in self._keys if key in annotation}
        converted["bbox_mode"] = self._check_box(annotation)
        segmentation = annotation.get("segmentation")
        if segmentation:
            segmentation = self._convert_segmentation(segmentation, annotation, image)
            if segmentation is None:
                return None
            converted["segmentation"] = segmentation
        if converted.get("keypoints"):
            converted["keypoints"] = self._convert_keypoints(annotation)
        if self._contiguous_ids is not None:
            category = annotation["category_id"]
            if category not in self._contiguous_ids:
                raise self._error(
                    annotation,
                    f"there is no category {category!r}; "
                    f"there are {str(sorted(self._contiguous_ids))[:200]}",
                )
            converted["category_id"] = self._contiguous_ids[category]
        return converted

    def _check_box(self, annotation: dict[str, Any]) -> BoxMode:
        if "bbox" not in annotation:
            return BoxMode.XYWH_ABS
        box = annotation["bbox"]
        try:
            size, total = len(box), sum(box)
        except TypeError:
            size = 0
        # An infinity or NaN makes the difference NaN.
        if size not in (4, 5) or total - total != 0:
            raise self._error(
                annotation,
                "'bbox' must be 4 finite numbers (x, y, w, h), or 5 with an angle "
                f"(cx, cy, w, h, angle), got {box}",
            )
        if box[2] <= 0 or box[3] <= 0:
            self._file.findings.add("boxes without area", f"{box} of {_name(annotation)}")
        return BoxMode.XYWH_ABS if size == 4 else BoxMode.XYWHA_ABS

    def _convert_segmentation(
        self, segmentation: Any, annotation: dict[str, Any], image: dict[str, Any]
    ) -> Any:
        if isinstance(segmentation, dict):
            return self._convert_run_lengths(segmentation, annotation, image)
        try:
            valid = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
        except TypeError:
            raise self._error(
                annotation,
                "'segmentation' must be a list of polygons, each a list of coordinates, or "
                f"run lengths, got {str(segmentation)[:200]}",
            ) from None
        if len(valid) < len(segmentation):
            findings = self._file.findings
            invalid = next(p for p in segmentation if len(p) % 2 or len(p) < 6)
            example = f"{invalid[:7]} of {_name(annotation)}"
            if not valid:
                findings.add("annotations left out, as none of their polygons is one", example)
                return None
            findings.add(
                "polygons left out, as they have no three points",
                example,
                len(segmentation) - len(valid),
            )
        return valid

    def _convert_run_lengths(
        self, segmentation: dict[str, Any], annotation: dict[str, Any], image: dict[str, Any]
    ) -> dict[str, Any]:
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if counts is None or not isinstance(size, list) or len(size) != 2:
            raise self._error(
                annotation,
                "run lengths must have 'counts' and 'size' (height, width), "
                f"got {str(segmentation)[:200]}",
            )
        if size != [image["height"], image["width"]]:
            self._file.findings.add(
                "masks of another size than the image's",
                f"{size} for {image['height']} x {image['width']} of {_name(annotation)}",
            )
        if not isinstance(counts, list):
            return segmentation
        if sum(counts) != size[0] * size[1]:
            raise self._error(
                annotation,
                f"the run lengths of a mask of {size[0]} x {size[1]} must sum up to "
                f"{size[0] * size[1]}, not {sum(counts)}",
            )
        return mask_util.frPyObjects(segmentation, *size)

    def _convert_keypoints(self, annotation: dict[str, Any]) -> list[float]:
        keypoints = annotation["keypoints"]
        number = self._num_keypoints.get(annotation["category_id"])
        if len(keypoints) % 3 or (number is not None and len(keypoints) != 3 * number):
            wanted = "3 numbers a keypoint" if number is None else f"{3 * number} numbers"
            raise self._error(
                annotation, f"'keypoints' must have {wanted}, got {len(keypoints)}: {keypoints}"
            )
        # COCO's coordinates of keypoints are indices of pixels, whose centres are meant.
        shifted = list(keypoints)
        shifted[0::3] = [x + 0.5 for x in keypoints[0::3]]
        shifted[1::3] = [y + 0.5 for y in keypoints[1::3]]
        return shifted

    def _error(self, annotation: dict[str, Any], message: str) -> ValueError:
        return self._file.error(_name(annotation), message)


def _name(annotation: dict[str, Any]) -> str:
    return f"annotation {annotation.get('id')} of image {annotation['image_id']}"
