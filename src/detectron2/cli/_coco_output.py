"""Predictions as a file in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class CocoOutput:
    """Collects the instances of images, and writes them as a data set.

    The file has ``images``, ``annotations`` and ``categories``. Its annotations are also in the
    format of COCO's results: each has a ``score``. Category ids are the data set's, if its metadata
    declare any, else the model's classes counted from 1.
    """

    def __init__(self, metadata: Any) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._names: Sequence[str] | None = metadata.get("thing_classes")
        ids = metadata.get("thing_dataset_id_to_contiguous_id")
        self._ids = None if ids is None else {index: of_file for of_file, index in ids.items()}

    def add(self, file_name: str, size: tuple[int, int], instances: Any | None) -> None:
        """Add an image.

        Args:
            file_name: of the image.
            size: its height and width.
            instances: its predictions, on the CPU; None if the model gives no instances.
        """
        from pycocotools import mask as mask_api

        from detectron2.evaluation.coco_evaluation import instances_to_coco_json

        image_id = len(self._images) + 1
        height, width = size
        self._images.append(
            {"id": image_id, "file_name": file_name, "height": height, "width": width}
        )
        if instances is None:
            return
        for record in instances_to_coco_json(instances, image_id):
            segmentation = record.get("segmentation")
            box = record["bbox"]
            record["id"] = len(self._annotations) + 1
            record["category_id"] = self._category_id(record["category_id"])
            record["area"] = float(
                box[2] * box[3] if segmentation is None else mask_api.area(segmentation)
            )
            record["iscrowd"] = 0
            self._annotations.append(record)

    def _category_id(self, index: int) -> int:
        return index + 1 if self._ids is None else self._ids[index]

    def write(self, path: str) -> None:
        """Write the file."""
        if self._names is not None:
            categories = [
                {"id": self._category_id(index), "name": name}
                for index, name in enumerate(self._names)
            ]
        else:
            ids = sorted({record["category_id"] for record in self._annotations})
            categories = [{"id": of_file, "name": str(of_file)} for of_file in ids]
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }
        with open(path, "w") as file:
            json.dump(content, file)

    @property
    def num_images(self) -> int:
        """Images so far."""
        return len(self._images)

    @property
    def num_annotations(self) -> int:
        """Instances so far."""
        return len(self._annotations)
