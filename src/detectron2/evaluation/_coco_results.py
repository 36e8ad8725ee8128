"""Results for the COCO API that stay flat arrays until their dicts are asked for."""

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from detectron2.evaluation._coco_detections import Detections
from detectron2.utils.file_io import PathManager

_INDEX = ("dataset", "anns", "imgToAnns", "catToImgs", "imgs", "cats")


class PackedResults(COCO):
    """Detections in the shape of a :class:`pycocotools.coco.COCO`.

    Its ``dataset`` and the index over it are built when one of them is first read.

    Attributes:
        detections: the detections.
    """

    def __init__(self, coco_gt: COCO, detections: Detections) -> None:
        """Args:
        coco_gt: the data set that was predicted on.
        detections: what was predicted.
        """
        # COCO.__init__ would set the attributes that are built later.
        self._coco_gt = coco_gt
        self.detections = detections

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not there.
        if name not in _INDEX or "detections" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._build_index()
        return vars(self)[name]

    def _build_index(self) -> None:
        dataset = self._coco_gt.dataset
        areas = self.detections.column("area").tolist()
        self.dataset = {
            "info": dataset.get("info", {}),
            "images": list(dataset["images"]),
            "categories": list(dataset.get("categories", [])),
            "annotations": [
                {**record, "area": area, "id": int(id), "iscrowd": 0}
                for record, area, id in zip(
                    self.detections.records(), areas, self.detections.all_ids(), strict=True
                )
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            self.createIndex()


def load_results(
    coco_gt: COCO, results: str | Sequence[dict[str, Any]] | np.ndarray | Detections
) -> PackedResults:
    """What ``coco_gt.loadRes(results)`` gives, several times as fast, and without changing them.

    Args:
        coco_gt: the data set that was predicted on.
        results: in COCO's format, or the path of a JSON file with them; or ``(N, 7)``, rows of
            image id, box (XYWH), score and category id.

    Raises:
        ValueError: if a result lacks a value, holds one of the wrong form, or belongs to an image
            that is not in the data set.
    """
    if isinstance(results, str):
        with PathManager.open(results) as file:
            results = json.load(file)
    if isinstance(results, np.ndarray):
        if results.ndim != 2 or results.shape[1] != 7:
            raise ValueError(f"an array of results must have the shape (N, 7), got {results.shape}")
        image_ids, images = np.unique(results[:, 0].astype(np.int64), return_inverse=True)
        results = Detections(
            image_ids=image_ids.tolist(),
            images=images.reshape(-1),
            category_ids=results[:, 6].astype(np.int64),
            scores=results[:, 5],
            boxes=results[:, 1:5],
        )
    if not isinstance(results, Detections):
        results = Detections.from_records(results, coco_gt.imgs)
    check_image_ids(results.image_ids, coco_gt)
    return PackedResults(coco_gt, results)


def check_image_ids(image_ids: Sequence[Any], coco_gt: COCO) -> None:
    """Raise ValueError if an image is not in the data set."""
    unknown = [image_id for image_id in image_ids if image_id not in coco_gt.imgs]
    if unknown:
        known = list(coco_gt.imgs)[:5]
        raise ValueError(
            f"{len(unknown)} of {len(image_ids)} images with predictions are not in the data set: "
            f"image ids {unknown[:5]}{' ...' if len(unknown) > 5 else ''}; the data set has "
            f"{len(coco_gt.imgs)}, such as {known}"
        )
