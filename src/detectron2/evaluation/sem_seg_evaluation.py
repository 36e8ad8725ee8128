"""Semantic segmentation: intersection over union and accuracy."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.evaluation._gather import abbreviated, iterate_over_all
from detectron2.evaluation._label_map_rle import encode_labels
from detectron2.evaluation._sem_seg_metrics import (
    BOUNDARY_MAX_CLASSES,
    boundary_differences,
    confusion_matrix,
    most_likely_labels,
    segmentation_scores,
)
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils.comm import all_gather, gather, is_main_process, synchronize
from detectron2.utils.file_io import PathManager

__all__ = [
    "SemSegEvaluator",
    "all_gather",
    "is_main_process",
    "load_image_into_numpy_array",
    "synchronize",
]


def load_image_into_numpy_array(filename: str, dtype: np.dtype | str | None = None) -> np.ndarray:
    """Read an image file, ``(H, W)`` or ``(H, W, C)``; None keeps the type of its pixels."""
    with PathManager.open(filename, "rb") as file:
        return np.array(Image.open(file), dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """Scores of semantic segmentation over a whole data set.

    The counts of all images make one confusion matrix, from which the scores come; labels that are
    ignored in the ground truth do not count, whatever is predicted there.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: its records have ``file_name`` and ``sem_seg_file_name``; its metadata
                have ``stuff_classes``, ``ignore_label`` and perhaps
                ``stuff_dataset_id_to_contiguous_id``.
            distributed: bring the parts of all processes together. Otherwise each process has
                results of its own.
            output_dir: a folder for ``sem_seg_predictions.json`` (each label's mask in each image)
                and ``sem_seg_evaluation.pth`` (the results). None writes nothing, and saves the
                time to encode masks.
            sem_seg_loading_fn: reads a ground truth; called with a file's name and ``dtype=int``,
                returns ``(H, W)``.
            num_classes: deprecated; that of the metadata is taken.
            ignore_label: deprecated; takes the place of the metadata's.
        """
        self._logger = logging.getLogger(__name__)
        metadata = MetadataCatalog.get(dataset_name)
        for name, value in (("num_classes", num_classes), ("ignore_label", ignore_label)):
            if value is not None:
                self._logger.warning("SemSegEvaluator's %s is deprecated: set metadata", name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
        self.sem_seg_loading_fn = sem_seg_loading_fn
        # Here, too, for a subclass whose reset() does not know of it.
        self._processed: Counter[str] = Counter()

        self.input_file_to_gt_file = {}
        for record in DatasetCatalog.get(dataset_name):
            if "sem_seg_file_name" not in record:
                raise ValueError(
                    f"{dataset_name!r} has no sem_seg_file_name for {record['file_name']!r}"
                )
            self.input_file_to_gt_file[record["file_name"]] = record["sem_seg_file_name"]

        to_contiguous = metadata.get("stuff_dataset_id_to_contiguous_id")
        self._contiguous_id_to_dataset_id = (
            {contiguous: original for original, contiguous in to_contiguous.items()}
            if to_contiguous is not None
            else None
        )
        self._class_names = list(metadata.stuff_classes)
        self._num_classes = len(self._class_names)
        if num_classes is not None and num_classes != self._num_classes:
            raise ValueError(
                f"{dataset_name!r} has {self._num_classes} classes, but num_classes={num_classes}"
            )
        self._ignore_label = metadata.ignore_label if ignore_label is None else ignore_label
        self._compute_boundary_iou = self._num_classes <= BOUNDARY_MAX_CLASSES
        if not self._compute_boundary_iou:
            self._logger.warning(
                "No boundary IoU: there are %d classes, more than %d",
                self._num_classes,
                BOUNDARY_MAX_CLASSES,
            )
        self.reset()

    def reset(self) -> None:
        size = self._num_classes + 1
        self._conf_matrix = np.zeros((size, size), dtype=np.int64)
        self._b_conf_matrix = np.zeros((size, size), dtype=np.int64)
        self._predictions: list[dict[str, Any]] = []
        self._processed = Counter()

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count the pixels of images.

        Args:
            inputs: dicts with ``file_name``.
            outputs: dicts with ``sem_seg``, logits ``(C, H, W)``, of the ground truth's size.

        Raises:
            ValueError: the ground truth is of another size, or a label is none of the classes.
            KeyError: the data set has no such file.
        """
        for image, output in zip(inputs, outputs, strict=True):
            name = image["file_name"]
            predicted = self._predicted_labels(name, output["sem_seg"])
            actual = self._actual_labels(name)
            if predicted.shape != actual.shape:
                raise ValueError(
                    f"{name}: the prediction's size (height, width) is {predicted.shape}, that of "
                    f"{self.input_file_to_gt_file[name]} is {actual.shape}"
                )
            size = self._num_classes + 1
            self._conf_matrix += confusion_matrix(predicted, actual, size)
            if self._compute_boundary_iou:
                # Labels are below 256 here.
                self._b_conf_matrix += confusion_matrix(
                    boundary_differences(predicted.astype(np.uint8, copy=False)),
                    boundary_differences(actual),
                    size,
                )
            if self._output_dir is not None:
                self._predictions.extend(self.encode_json_sem_seg(predicted, name))
            self._processed[name] += 1

    def _predicted_labels(self, name: str, logits: torch.Tensor) -> np.ndarray:
        labels = most_likely_labels(logits)
        if labels.size and (highest := labels.max()) >= self._num_classes:
            raise ValueError(
                f"{name}: {self._dataset_name!r} has {self._num_classes} classes, but class "
                f"{highest} of {len(logits)} is predicted"
            )
        return labels

    def _actual_labels(self, name: str) -> np.ndarray:
        """The ground truth, with ``num_classes`` where it is ignored."""
        if name not in self.input_file_to_gt_file:
            raise KeyError(f"{self._dataset_name!r} has no file {name!r}")
        path = self.input_file_to_gt_file[name]
        # The type of the file's pixels is the fastest, but other functions may not know None.
        is_own = self.sem_seg_loading_fn is load_image_into_numpy_array
        labels = self.sem_seg_loading_fn(path, dtype=None if is_own else int)
        if labels.ndim != 2:
            raise ValueError(f"{path}: a ground truth is (height, width), not {labels.shape}")
        ignored = labels == self._ignore_label
        is_known = ignored | ((labels >= 0) & (labels < self._num_classes))
        if not is_known.all():
            raise ValueError(
                f"{path}: the label {labels[~is_known][0]} is none of the {self._num_classes} "
                f"classes of {self._dataset_name!r}, and not the ignore_label "
                f"{self._ignore_label}"
            )
        dtype = np.uint8 if self._compute_boundary_iou else np.int64
        return np.where(ignored, dtype(self._num_classes), labels.astype(dtype, copy=False))

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the scores, in rank 0 if ``distributed``.

        Returns:
            ``{"sem_seg": …}`` with percentages: mIoU, fwIoU (weighted by pixels), mACC, pACC (of
            all pixels), and IoU, ACC, BoundaryIoU and the lower one of both IoUs of each class. A
            class without ground truth has NaN, and does not count in the means.

            BoundaryIoU (left out for 255 classes and more) is the IoU of
            :func:`boundary_differences`, so that published numbers can be compared; it is that of
            Cheng et al. for two classes only.
        """
        counts, boundary_counts, processed = (
            self._conf_matrix,
            self._b_conf_matrix,
            self._processed,
        )
        if self._distributed:
            parts = gather((counts, boundary_counts, processed))
            if is_main_process():
                counts, boundary_counts = (sum(part[i] for part in parts) for i in (0, 1))
                processed = sum((part[2] for part in parts), Counter())
        self._write_predictions()
        if self._distributed and not is_main_process():
            return None
        # A process() of a subclass, which counts the pixels itself, does not tell the images.
        if processed or not counts.any():
            self._warn_of_images(processed)
        scores = segmentation_scores(
            counts, boundary_counts if self._compute_boundary_iou else None, self._class_names
        )
        self._warn_of_classes(counts)
        if self._output_dir is not None:
            path = os.path.join(self._output_dir, "sem_seg_evaluation.pth")
            with PathManager.open(path, "wb") as file:
                torch.save(scores, file)
        results = OrderedDict(sem_seg=scores)
        self._logger.info(results)
        return results

    def _write_predictions(self) -> None:
        if self._output_dir is None:
            return
        if not self._distributed:
            predictions = iter(self._predictions)
        else:
            predictions = iterate_over_all(self._predictions, chunk_size=4096)
            if not is_main_process():
                for _ in predictions:
                    pass
                return
        PathManager.mkdirs(self._output_dir)
        path = os.path.join(self._output_dir, "sem_seg_predictions.json")
        with PathManager.open(path, "w") as file:
            file.write("[")
            for index, prediction in enumerate(predictions):
                file.write((", " if index else "") + json.dumps(prediction))
            file.write("]")

    def _warn_of_images(self, processed: Counter[str]) -> None:
        if missing := [name for name in self.input_file_to_gt_file if name not in processed]:
            self._logger.warning(
                "%d of the %d images of %s were not processed, and do not count: %s",
                len(missing),
                len(self.input_file_to_gt_file),
                self._dataset_name,
                abbreviated(missing),
            )
        if again := [name for name, count in processed.items() if count > 1]:
            self._logger.warning(
                "%d images of %s were processed more than once, and count as often: %s",
                len(again),
                self._dataset_name,
                abbreviated(again),
            )

    def _warn_of_classes(self, counts: np.ndarray) -> None:
        actual = counts[:, :-1].sum(axis=0)
        if absent := [name for name, n in zip(self._class_names, actual, strict=True) if n == 0]:
            self._logger.warning(
                "Classes of %s without ground truth have no scores (NaN), and do not count in the "
                "means: %s",
                self._dataset_name,
                abbreviated(absent),
            )

    def encode_json_sem_seg(
        self, sem_seg: np.ndarray, input_file_name: str
    ) -> list[dict[str, Any]]:
        """Turn a segmentation into what ``sem_seg_predictions.json`` holds, as COCO stuff has it.

        Args:
            sem_seg: labels ``(H, W)``, integers.
            input_file_name: the image's.

        Returns:
            For each label that occurs, rising, ``file_name``, ``category_id`` (that of the data
            set) and ``segmentation`` (compressed RLE).

        Raises:
            ValueError: the data set has no id for a label.
        """
        predictions = []
        for label, rle in encode_labels(np.asarray(sem_seg)).items():
            category = label
            if self._contiguous_id_to_dataset_id is not None:
                if label not in self._contiguous_id_to_dataset_id:
                    raise ValueError(f"{self._dataset_name!r} has no id for the label {label}")
                category = int(self._contiguous_id_to_dataset_id[label])
            predictions.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": rle}
            )
        return predictions
