"""Detections as flat arrays: what a model said about a data set, without a Python object each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detectron2.evaluation._coco_columns import AnnotationList
from detectron2.evaluation._coco_masks import CodedMasks


@dataclass(frozen=True)
class Detections:
    """``D`` detections.

    Their ids are 1 to ``D``, as the COCO API's ``loadRes`` numbers results. Arrays of numbers may
    be of any floating dtype, and are read as float64.
    """

    image_ids: Sequence[Any]  # of I images
    images: np.ndarray  # (D,) int64 positions in image_ids
    category_ids: np.ndarray  # (D,) int64
    scores: np.ndarray  # (D,)
    boxes: np.ndarray | None = None  # (D, 4) XYWH in absolute pixels, or (D, 5) XYWHA
    masks: CodedMasks | None = None
    keypoints: np.ndarray | None = None  # (D, 3 K): x, y, score of each keypoint
    ids: np.ndarray | None = None  # (D,) int64, where they are not 1 to D

    @classmethod
    def from_records(
        cls, records: Sequence[dict[str, Any]], images: Mapping[Any, Any]
    ) -> "Detections":
        """Read results in COCO's format.

        Args:
            records: with ``image_id``, ``category_id`` and ``score``; what else is read
                (``bbox``, ``segmentation``, ``keypoints``), the first one decides.
            images: the COCO API's image records by id.

        Raises:
            ValueError: if a record lacks a value, or it is not of the right form.
        """
        annotations = AnnotationList(records, "detection", images)
        fields = {key for key, value in records[0].items() if value is not None} if records else ()
        length = len(records[0]["bbox"]) if "bbox" in fields else 0
        image_ids = list(dict.fromkeys(annotations.values("image_id")))
        return cls(
            image_ids=image_ids,
            images=annotations.positions("image_id", image_ids),
            category_ids=annotations.column("category_id").astype(np.int64),
            scores=annotations.column("score"),
            boxes=annotations.rows("bbox", length) if length else None,
            masks=annotations.coded_masks() if "segmentation" in fields else None,
            keypoints=(
                annotations.rows("keypoints", len(records[0]["keypoints"]))
                if "keypoints" in fields
                else None
            ),
        )

    def __len__(self) -> int:
        return len(self.images)

    def without_boxes(self) -> "Detections":
        """The same with the areas of the masks, as :meth:`column` takes those of boxes first."""
        return replace(self, boxes=None)

    def select(self, keep: np.ndarray) -> "Detections":
        """Those at which ``keep``, bool ``(D,)``, is true; they keep their ids."""
        if keep.all():
            return self
        return Detections(
            image_ids=self.image_ids,
            images=self.images[keep],
            category_ids=self.category_ids[keep],
            scores=self.scores[keep],
            boxes=None if self.boxes is None else self.boxes[keep],
            masks=None if self.masks is None else self.masks.take(keep),
            keypoints=None if self.keypoints is None else self.keypoints[keep],
            ids=self.all_ids()[keep],
        )

    def all_ids(self) -> np.ndarray:
        """The id of each, int64 ``(D,)``."""
        return np.arange(1, len(self) + 1) if self.ids is None else self.ids

    def values(self, key: str) -> list[Any]:
        """``id`` or ``image_id`` of each."""
        if key == "id":
            return self.all_ids().tolist()
        return [self.image_ids[image] for image in self.images.tolist()]

    def positions(self, key: str, ids: Iterable[Any]) -> np.ndarray:
        """Positions of the ``image_id`` or ``category_id`` in ``ids``, -1 where it is not there."""
        index = {value: position for position, value in enumerate(np.asarray(ids).tolist())}
        if key == "image_id":
            of_image = np.array([index.get(i, -1) for i in self.image_ids], np.int64)
            return of_image[self.images] if len(self) else np.zeros(0, np.int64)
        known, inverse = np.unique(self.category_ids, return_inverse=True)
        of_category = np.array([index.get(i, -1) for i in known.tolist()], np.int64)
        return of_category[inverse.reshape(-1)]

    def column(self, key: str) -> np.ndarray:
        """``score`` or ``area``, float64 ``(D,)``.

        The area is that of the box, without boxes the mask's, and without masks that of the box
        around the keypoints, as the COCO API's ``loadRes`` has it.

        Raises:
            ValueError: if a value is not finite.
        """
        if key == "score":
            return self._checked("score", self.scores)
        if self.boxes is not None:
            boxes = self.rows("bbox", self.boxes.shape[1])
            return boxes[:, 2] * boxes[:, 3]
        if self.masks is not None:
            return self.masks.areas()
        if self.keypoints is not None:
            points = self.rows("keypoints", self.keypoints.shape[1])
            points = points.reshape(len(self), -1, 3)[..., :2]
            return np.prod(points.max(axis=1) - points.min(axis=1), axis=1)
        raise ValueError("the detections have neither boxes nor masks nor keypoints")

    def row_length(self, key: str) -> int:
        """The number of values that each has of ``bbox`` or ``keypoints``."""
        rows = self.boxes if key == "bbox" else self.keypoints
        return 0 if rows is None else rows.shape[1]

    def rows(self, key: str, length: int) -> np.ndarray:
        """``bbox`` or ``keypoints``, float64 ``(D, length)``.

        Raises:
            ValueError: if there are none, of another length, or not finite.
        """
        rows = self.boxes if key == "bbox" else self.keypoints
        if rows is None:
            if not len(self):
                return np.zeros((0, length))
            raise ValueError(f"the detections have no {key!r}")
        if rows.shape[1] != length:
            raise ValueError(
                f"{key!r} of the detections must be {length} finite numbers, got {rows.shape[1]}"
            )
        return self._checked(key, rows)

    def coded_masks(self) -> CodedMasks:
        """The masks.

        Raises:
            ValueError: if there are none.
        """
        if self.masks is None:
            raise ValueError("the detections have no 'segmentation'")
        return self.masks

    def records(self, begin: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
        """Detections ``[begin, end)`` in the format of COCO's results, one dict each."""
        part = slice(begin, end)
        columns: dict[str, Iterable[Any]] = {
            "image_id": [self.image_ids[i] for i in self.images[part].tolist()],
            "category_id": self.category_ids[part].tolist(),
        }
        if self.boxes is not None:
            columns["bbox"] = self.boxes[part].tolist()
        columns["score"] = self.scores[part].tolist()
        if self.masks is not None:
            sizes = self.masks.sizes[part].tolist()
            columns["segmentation"] = (
                {"size": size, "counts": self.masks.counts(n)}
                for n, size in enumerate(sizes, start=begin)
            )
        if self.keypoints is not None:
            columns["keypoints"] = self.keypoints[part].tolist()
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _checked(self, key: str, values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            bad = int(np.argwhere(~finite)[0, 0])
            raise ValueError(
                f"{key!r} of detection {self.all_ids()[bad]} of image "
                f"{self.image_ids[self.images[bad]]!r} must be finite, got {values[bad].tolist()}"
            )
        return values
