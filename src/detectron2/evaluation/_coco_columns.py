"""Columns of numbers from lists of annotations, which are dicts."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from detectron2.evaluation._coco_masks import CodedMasks, encode_segmentations

Annotation = dict[str, Any]


class AnnotationList:
    """Annotations as the COCO API holds them, read column by column.

    :class:`~detectron2.evaluation._coco_detections.Detections` has the same methods.
    """

    def __init__(
        self, annotations: Sequence[Annotation], kind: str, images: Mapping[Any, Any]
    ) -> None:
        """Args:
        annotations: the dicts, which are left as they are.
        kind: what they are, for errors: "detection" or "ground truth".
        images: the COCO API's image records by id; polygons need their ``height`` and ``width``.
        """
        self._annotations = annotations
        self._kind = kind
        self._images = images

    def __len__(self) -> int:
        return len(self._annotations)

    def select(self, keep: np.ndarray) -> "AnnotationList":
        """Those at which ``keep``, bool ``(N,)``, is true."""
        if keep.all():
            return self
        kept = list(itertools.compress(self._annotations, keep))
        return AnnotationList(kept, self._kind, self._images)

    def positions(self, key: str, ids: Iterable[Any]) -> np.ndarray:
        """Positions of ``annotation[key]`` in ``ids``, -1 where it is not there: int64 ``(N,)``."""
        index = {value: position for position, value in enumerate(np.asarray(ids).tolist())}
        values = map(itemgetter(key), self._annotations)
        try:
            positions = map(index.get, values, itertools.repeat(-1))
            return np.fromiter(positions, np.int64, len(self))
        except KeyError:
            self._raise_for_first(key, "an id", lambda value: True)
            raise

    def column(self, key: str) -> np.ndarray:
        """``annotation[key]``, float64 ``(N,)``.

        Raises:
            ValueError: if an annotation lacks ``key``, or its value is not a finite number.
        """
        try:
            column = np.fromiter(map(itemgetter(key), self._annotations), np.float64, len(self))
        except (KeyError, TypeError, ValueError):
            self._raise_for_first(key, "a number", _is_finite)
            raise
        if not np.isfinite(column).all():
            self._raise_for_first(key, "a finite number", _is_finite)
        return column

    def flags(self, key: str) -> np.ndarray:
        """Whether ``annotation[key]`` is there and true, bool ``(N,)``."""
        values = (bool(annotation.get(key, 0)) for annotation in self._annotations)
        return np.fromiter(values, bool, len(self))

    def row_length(self, key: str) -> int:
        """The length of the first ``annotation[key]``; 0 for no annotations."""
        return len(self._annotations[0][key]) if len(self) else 0

    def rows(self, key: str, length: int) -> np.ndarray:
        """``annotation[key]``, a sequence of numbers, float64 ``(N, length)``.

        Raises:
            ValueError: if an annotation lacks ``key``, or it is not ``length`` finite numbers.
        """

        def is_row(value: Any) -> bool:
            return len(value) == length and all(map(_is_finite, value))

        wanted = f"{length} finite numbers"
        count, get = len(self), itemgetter(key)
        try:
            lengths = np.fromiter(map(len, map(get, self._annotations)), np.int64, count)
            if (lengths != length).any():
                self._raise_for_first(key, wanted, is_row)
            numbers = itertools.chain.from_iterable(map(get, self._annotations))
            rows = np.fromiter(numbers, np.float64, length * count)
        except (KeyError, TypeError, ValueError):
            self._raise_for_first(key, wanted, is_row)
            raise
        if not np.isfinite(rows).all():
            self._raise_for_first(key, wanted, is_row)
        return rows.reshape(count, length)

    def values(self, key: str) -> list[Any]:
        """``annotation[key]`` of each, None where it is absent."""
        return [annotation.get(key) for annotation in self._annotations]

    def coded_masks(self) -> CodedMasks:
        """The ``segmentation`` of each.

        Raises:
            ValueError: if it is absent or in none of COCO's forms.
        """
        images = (self._images.get(annotation["image_id"], {}) for annotation in self._annotations)
        sizes = [
            (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
            for image in images
        ]
        return encode_segmentations(self.values("segmentation"), sizes, self._kind)

    def _raise_for_first(self, key: str, wanted: str, is_valid: Callable[[Any], bool]) -> None:
        """Raise the ValueError for the first annotation whose ``key`` is absent or not valid."""
        for annotation in self._annotations:
            name = f"{self._kind} {annotation.get('id')!r} of image {annotation.get('image_id')!r}"
            if key not in annotation:
                raise ValueError(f"{name} has no {key!r}")
            value = annotation[key]
            try:
                valid = is_valid(value)
            except (TypeError, ValueError):
                valid = False
            if not valid:
                raise ValueError(f"{key!r} of {name} must be {wanted}, got {value!r}")


def _is_finite(value: Any) -> bool:
    return bool(np.isfinite(float(value)))
