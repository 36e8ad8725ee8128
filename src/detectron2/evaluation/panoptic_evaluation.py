"""Panoptic segmentation: panoptic quality."""

from __future__ import annotations

import io
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation._gather import abbreviated, iterate_over_all
from detectron2.evaluation._panoptic_quality import (
    ids_to_rgb,
    match_segments,
    quality,
    rgb_to_ids,
)
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils._panoptic_prediction import infer_segments
from detectron2.utils.file_io import PathManager

__all__ = ["COCOPanopticEvaluator"]

logger = logging.getLogger(__name__)


class COCOPanopticEvaluator(DatasetEvaluator):
    """Panoptic quality on a data set in COCO's panoptic format.

    An image is matched with its ground truth when it is processed, so that the work is shared by
    all processes, and only counts are brought together. Each process reads the ground truth.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: its metadata have ``panoptic_json``, ``panoptic_root`` (the folder of the
                ground truth's PNG files), ``thing_dataset_id_to_contiguous_id`` and
                ``stuff_dataset_id_to_contiguous_id``, and for models that give no segments_info
                ``label_divisor``.
            output_dir: a folder for predictions in COCO's format for results:
                ``predictions.json``, and ``predictions/`` with PNG files, which each process
                writes for its images. None writes nothing.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._thing_contiguous_id_to_dataset_id = _inverse(
            self._metadata.thing_dataset_id_to_contiguous_id
        )
        self._stuff_contiguous_id_to_dataset_id = _inverse(
            self._metadata.stuff_dataset_id_to_contiguous_id
        )
        self._output_dir = output_dir
        self._ground_truth: dict[str, Any] | None = None
        if output_dir is not None:
            PathManager.mkdirs(os.path.join(output_dir, "predictions"))
        self.reset()

    def reset(self) -> None:
        self._predictions: list[dict[str, Any]] = []

    def _convert_category_id(self, segment_info: Mapping[str, Any]) -> dict[str, Any]:
        """The segment with the category that the data set has; without ``isthing`` it has that."""
        segment = dict(segment_info)
        is_thing = segment.pop("isthing", None)
        if is_thing is None:
            return segment
        ids = (
            self._thing_contiguous_id_to_dataset_id
            if is_thing
            else self._stuff_contiguous_id_to_dataset_id
        )
        if segment["category_id"] not in ids:
            kind = "thing" if is_thing else "stuff"
            raise ValueError(
                f"{self._metadata.name!r} has no {kind} of category {segment['category_id']}"
            )
        segment["category_id"] = ids[segment["category_id"]]
        return segment

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Match the segments of images with the ground truth.

        Args:
            inputs: dicts with ``file_name`` and ``image_id``.
            outputs: dicts with ``panoptic_seg``, a pair of ids ``(H, W)`` and segments_info: dicts
                with ``id``, ``category_id`` and ``isthing``; 0 is the id of no segment. With
                None for the latter, ids are ``category * label_divisor + instance``, and -1 that
                of no segment.

        Raises:
            ValueError: the data set has no ground truth for the image, sizes or the ids in the two
                parts of a prediction differ, or there is no such category.
        """
        for image, output in zip(inputs, outputs, strict=True):
            ids, segments = output["panoptic_seg"]
            ids = ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
            if segments is None:
                ids, segments = self._segments_by_divisor(ids)
            name = os.path.splitext(os.path.basename(image["file_name"]))[0] + ".png"
            try:
                rgb = ids_to_rgb(ids)
                segments = [self._convert_category_id(segment) for segment in segments]
                counts = self._count(image["image_id"], ids, segments)
            except ValueError as error:
                raise ValueError(f"{image['file_name']}: {error}") from error
            prediction = {"image_id": image["image_id"], "counts": counts}
            if self._output_dir is not None:
                prediction |= {"file_name": name, "segments_info": segments}
                path = os.path.join(self._output_dir, "predictions", name)
                with PathManager.open(path, "wb") as file:
                    # Maps of ids compress well at any level, and fast at the lowest one.
                    Image.fromarray(rgb).save(file, format="PNG", compress_level=1)
            self._predictions.append(prediction)

    def _counted(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """A prediction of :meth:`process`, or what one of a subclass appends as upstream's does.

        That is a dict with ``image_id``, ``file_name`` (of the PNG file), ``png_string`` (its
        bytes) and ``segments_info`` with the data set's categories.
        """
        if "counts" in prediction:
            return prediction
        png = prediction["png_string"]
        ids = rgb_to_ids(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
        counts = self._count(prediction["image_id"], ids, prediction["segments_info"])
        if self._output_dir is not None:
            path = os.path.join(self._output_dir, "predictions", prediction["file_name"])
            with PathManager.open(path, "wb") as file:
                file.write(png)
        kept = {key: value for key, value in prediction.items() if key != "png_string"}
        return {**kept, "counts": counts}

    def _segments_by_divisor(self, ids: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Segments of ids that hold their category; the ids become 1 larger, so that 0 is void."""
        segments = infer_segments(ids, self._metadata)
        return ids + 1, [{**segment, "id": segment["id"] + 1} for segment in segments]

    def _read_ground_truth(self) -> dict[str, Any]:
        """The contents of ``panoptic_json``; read when first needed, and then kept."""
        if self._ground_truth is not None:
            return self._ground_truth
        path = self._metadata.panoptic_json
        with PathManager.open(path) as file:
            ground_truth = json.load(file)
        for key in ("annotations", "categories"):
            if key not in ground_truth:
                raise ValueError(f"{path} has no {key!r}")
        for category in ground_truth["categories"]:
            if "isthing" not in category:
                raise ValueError(f"{path}: the category {category} has no 'isthing'")
        self._categories = {category["id"] for category in ground_truth["categories"]}
        self._annotations = {a["image_id"]: a for a in ground_truth["annotations"]}
        self._ground_truth = ground_truth
        return ground_truth

    def _count(
        self, image_id: Any, ids: np.ndarray, segments: list[dict[str, Any]]
    ) -> list[tuple[float, ...]]:
        """Rows of a category and its counts."""
        self._read_ground_truth()
        if image_id not in self._annotations:
            raise ValueError(
                f"{self._metadata.panoptic_json} has no annotation of image {image_id!r}"
            )
        if unknown := {s["category_id"] for s in segments} - self._categories:
            raise ValueError(
                f"{self._metadata.panoptic_json} has no category {abbreviated(sorted(unknown))}"
            )
        annotation = self._annotations[image_id]
        path = os.path.join(self._metadata.panoptic_root, annotation["file_name"])
        with PathManager.open(path, "rb") as file:
            actual_ids = rgb_to_ids(np.asarray(Image.open(file).convert("RGB")))
        counts = match_segments(actual_ids, annotation["segments_info"], ids, segments)
        return [(category, *count.as_row()) for category, count in counts.items()]

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the panoptic quality, in rank 0.

        Returns:
            ``{"panoptic_seg": …}`` with percentages: PQ, SQ and RQ (panoptic, segmentation and
            recognition quality), means over the categories that are in the ground truth or
            predicted; the same of things (``PQ_th``) and of stuff (``PQ_st``). NaN if there are
            no such categories. Those of each category are logged.

        Raises:
            ValueError: an image of the ground truth was not processed.
        """
        self._predictions = [self._counted(prediction) for prediction in self._predictions]
        predictions = list(iterate_over_all(self._predictions))
        if not comm.is_main_process():
            return None
        by_image = {prediction["image_id"]: prediction for prediction in predictions}
        if len(by_image) < len(predictions):
            logger.warning(
                "%d of %d predictions are of images that were processed before: of each image, the "
                "last one counts",
                len(predictions) - len(by_image),
                len(predictions),
            )
        ground_truth = self._read_ground_truth()
        image_ids = [annotation["image_id"] for annotation in ground_truth["annotations"]]
        if missing := [image_id for image_id in image_ids if image_id not in by_image]:
            raise ValueError(
                f"{len(missing)} of the {len(image_ids)} images of "
                f"{self._metadata.panoptic_json} have no prediction: {abbreviated(missing)}"
            )
        categories = ground_truth["categories"]
        rows = {category["id"]: row for row, category in enumerate(categories)}
        totals = np.zeros((len(categories), 4))
        # In the order of the ground truth, so that sums are the same for any number of processes.
        for image_id in image_ids:
            for category, *counts in by_image[image_id]["counts"]:
                totals[rows[category]] += counts
        if self._output_dir is not None:
            annotations = [
                {key: value for key, value in prediction.items() if key != "counts"}
                for prediction in by_image.values()
            ]
            path = os.path.join(self._output_dir, "predictions.json")
            with PathManager.open(path, "w") as file:
                file.write(json.dumps({**ground_truth, "annotations": annotations}))
        return OrderedDict(panoptic_seg=_summarize(totals, categories))


def _inverse(mapping: Mapping[int, int]) -> dict[int, int]:
    return {value: key for key, value in mapping.items()}


def _summarize(totals: np.ndarray, categories: list[dict[str, Any]]) -> dict[str, float]:
    qualities = 100 * quality(totals)
    is_thing = np.array([bool(category["isthing"]) for category in categories], dtype=bool)
    results, table = {}, []
    for label, suffix, chosen in (
        ("All", "", np.ones_like(is_thing)),
        ("Things", "_th", is_thing),
        ("Stuff", "_st", ~is_thing),
    ):
        valid = chosen & ~np.isnan(qualities[:, 0])
        means = qualities[valid].mean(axis=0) if valid.any() else np.full(3, np.nan)
        if not valid.any():
            logger.warning("Panoptic quality: no category (%s) is there, so it is NaN", label)
        for name, value in zip(("PQ", "SQ", "RQ"), means, strict=True):
            results[name + suffix] = float(value)
        table.append([label, *means, int(valid.sum())])
    _log_tables(table, qualities, categories)
    return results


def _log_tables(
    table: list[list[Any]], qualities: np.ndarray, categories: list[dict[str, Any]]
) -> None:
    from tabulate import tabulate

    def rows() -> Iterator[list[Any]]:
        for category, values in zip(categories, qualities, strict=True):
            yield [category.get("name", category["id"]), *values]

    options = {"tablefmt": "pipe", "floatfmt": ".3f", "stralign": "center", "numalign": "center"}
    columns = ["PQ", "SQ", "RQ"]
    logger.info("Panoptic quality:\n%s", tabulate(table, ["", *columns, "#categories"], **options))
    logger.info(
        "Panoptic quality per category:\n%s", tabulate(rows(), ["category", *columns], **options)
    )
