"""Instance and semantic segmentation on Cityscapes, scored as by its benchmark."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation import _cityscapes_labels as labels
from detectron2.evaluation import _cityscapes_metrics as metrics
from detectron2.evaluation._gather import abbreviated, iterate_over_all
from detectron2.evaluation._sem_seg_metrics import confusion_matrix, most_likely_labels
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = [
    "CityscapesEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
]

_INSTANCE_SUFFIX = "_gtFine_instanceIds.png"
_LABEL_SUFFIX = "_gtFine_labelIds.png"


class CityscapesEvaluator(DatasetEvaluator):
    """What both evaluators share: the ground truth's files, and images by name.

    An image is compared with its ground truth when it is processed, so that the work is shared by
    all processes, and only counts are brought together.
    """

    def __init__(self, dataset_name: str) -> None:
        """Args:
        dataset_name: its metadata have ``gt_dir``, a folder such as ``cityscapes/gtFine/val``
            with a folder for each city.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)
        self._ground_truth: dict[str, str] | None = None
        self.reset()

    def reset(self) -> None:
        self._counts: list[tuple[str, Any]] = []

    def _files(self) -> dict[str, str]:
        """Paths of the ground truth without their suffixes, by ``<city>_<sequence>_<frame>``."""
        if self._ground_truth is None:
            root = PathManager.get_local_path(self._metadata.gt_dir)
            self._ground_truth = {
                name.removesuffix(_INSTANCE_SUFFIX): os.path.join(
                    root, city, name.removesuffix(_INSTANCE_SUFFIX)
                )
                for city in sorted(os.listdir(root))
                if os.path.isdir(os.path.join(root, city))
                for name in sorted(os.listdir(os.path.join(root, city)))
                if name.endswith(_INSTANCE_SUFFIX)
            }
            if not self._ground_truth:
                raise ValueError(f"there are no files {root}/*/*{_INSTANCE_SUFFIX}")
        return self._ground_truth

    def _read(self, file_name: str, suffix: str, shape: tuple[int, ...]) -> np.ndarray:
        """The ground truth of an image, ``(H, W)``, that fits a prediction."""
        name = _image_name(file_name)
        if name not in self._files():
            raise ValueError(f"{self._metadata.gt_dir} has no ground truth of {file_name}")
        path = self._files()[name] + suffix
        with PathManager.open(path, "rb") as file:
            ids = np.array(Image.open(file))
        if ids.shape != shape:
            raise ValueError(
                f"{file_name}: the prediction's size (height, width) is {shape}, that of {path} is "
                f"{ids.shape}"
            )
        return ids

    def _gather_counts(self) -> list[Any] | None:
        """The counts of each image, by the image's name, in rank 0."""
        counts = dict(iterate_over_all(self._counts))
        if not comm.is_main_process():
            return None
        names = sorted(self._files())
        if missing := [name for name in names if name not in counts]:
            raise ValueError(
                f"{len(missing)} of the {len(names)} images of {self._metadata.gt_dir} have no "
                f"prediction: {abbreviated(missing)}"
            )
        return [counts[name] for name in names]


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """Average precision of masks, for the 8 classes that have instances."""

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Match predicted instances with the ground truth.

        Args:
            inputs: dicts with ``file_name``, ending in ``<city>_<sequence>_<frame>_….png``.
            outputs: dicts with ``instances``, which have ``pred_masks`` ``(N, H, W)``, ``scores``
                and ``pred_classes``, an index into the metadata's ``thing_classes``.

        Raises:
            ValueError: there is no ground truth, sizes differ, or a class is none of Cityscapes'.
        """
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to(self._cpu_device)
            label_ids = self._label_ids(image["file_name"], instances.pred_classes)
            if not len(instances):
                masks = np.zeros((0, *instances.image_size), dtype=bool)
            elif instances.has("pred_masks"):
                masks = np.asarray(instances.pred_masks) != 0
            else:
                raise ValueError(f"{image['file_name']}: the instances have no pred_masks")
            ids = self._read(image["file_name"], _INSTANCE_SUFFIX, masks.shape[1:])
            matches = metrics.match_instances(ids, masks, instances.scores.numpy(), label_ids)
            self._counts.append((_image_name(image["file_name"]), matches))

    def _label_ids(self, file_name: str, classes: torch.Tensor) -> np.ndarray:
        names = self._metadata.thing_classes
        by_name = {labels.NAMES[label]: label for label in labels.INSTANCE_IDS}
        if unknown := [name for name in names if name not in by_name]:
            raise ValueError(
                f"{self._metadata.name!r} has classes that Cityscapes has no instances of: "
                f"{abbreviated(unknown)}"
            )
        classes = classes.numpy()
        if classes.size and not 0 <= classes.min() <= classes.max() < len(names):
            raise ValueError(
                f"{file_name}: classes {classes.min()} to {classes.max()} are predicted, but "
                f"{self._metadata.name!r} has {len(names)}"
            )
        return np.array([by_name[name] for name in names], dtype=np.int64)[classes]

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the average precision, in rank 0.

        Returns:
            ``{"segm": {"AP": …, "AP50": …}}`` in percent: means over the classes with ground
            truth, that of AP over the IoU thresholds 0.50, 0.55, … 0.95, too.

        Raises:
            ValueError: an image of the ground truth was not processed.
        """
        matches = self._gather_counts()
        if matches is None:
            return None
        precisions = np.array(
            [
                [
                    metrics.instance_average_precision([m[label] for m in matches], threshold)
                    for threshold in metrics.AP_THRESHOLDS
                ]
                for label in labels.INSTANCE_IDS
            ]
        )
        valid = ~np.isnan(precisions[:, 0])
        for label, row in zip(labels.INSTANCE_IDS, precisions, strict=True):
            values = 100 * row.mean(), 100 * row[0]
            self._logger.info("%s: AP %.3f, AP50 %.3f", labels.NAMES[label], *values)
        if not valid.all():
            absent = [
                labels.NAMES[i] for i, v in zip(labels.INSTANCE_IDS, valid, strict=True) if not v
            ]
            self._logger.warning(
                "Classes of %s without ground truth have no AP, and do not count in the mean: %s",
                self._metadata.gt_dir,
                abbreviated(absent),
            )
        if not valid.any():
            return OrderedDict(segm=dict.fromkeys(("AP", "AP50"), float("nan")))
        means = 100 * precisions[valid].mean(axis=0)
        return OrderedDict(segm={"AP": float(means.mean()), "AP50": float(means[0])})


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU of labels and super-categories, and iIoU, in which instances count alike."""

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count the pixels of images.

        Args:
            inputs: dicts with ``file_name``, ending in ``<city>_<sequence>_<frame>_….png``.
            outputs: dicts with ``sem_seg``, logits ``(19, H, W)`` in the order of ``trainId``.

        Raises:
            ValueError: there is no ground truth, sizes differ, or a label is none of Cityscapes'.
        """
        to_id = np.array(labels.TRAIN_ID_TO_ID, dtype=np.uint8)
        for image, output in zip(inputs, outputs, strict=True):
            name = image["file_name"]
            train_ids = most_likely_labels(output["sem_seg"])
            if train_ids.size and train_ids.max() >= len(to_id):
                raise ValueError(
                    f"{name}: class {train_ids.max()} is predicted, but Cityscapes has {len(to_id)}"
                )
            predicted = to_id[train_ids]
            actual = self._read(name, _LABEL_SUFFIX, predicted.shape)
            if actual.size and actual.max() >= labels.NUM_LABELS:
                raise ValueError(
                    f"{self._files()[_image_name(name)]}{_LABEL_SUFFIX}: {actual.max()} is no label"
                )
            ids = self._read(name, _INSTANCE_SUFFIX, predicted.shape)
            counts = confusion_matrix(predicted, actual, labels.NUM_LABELS)
            weights = metrics.instance_weights(ids, predicted)
            self._counts.append((_image_name(name), (counts, weights)))

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the scores, in rank 0.

        Returns:
            ``{"sem_seg": …}`` with percentages ``IoU`` and ``iIoU``, means over the labels, and
            ``IoU_sup`` and ``iIoU_sup``, over the super-categories. What is neither in the ground
            truth nor predicted does not count.

        Raises:
            ValueError: an image of the ground truth was not processed.
        """
        images = self._gather_counts()
        if images is None:
            return None
        counts = sum(image[0] for image in images)
        scores = metrics.segmentation_scores(counts, sum(image[1] for image in images))
        results = {}
        for name, by_label in scores.items():
            for label, value in by_label.items():
                self._logger.info("%s of %s: %.3f", name, label, 100 * value)
            valid = [value for value in by_label.values() if not np.isnan(value)]
            if not valid:
                self._logger.warning("%s is NaN: there is nothing that it scores", name)
            results[name] = 100 * float(np.mean(valid)) if valid else float("nan")
        return OrderedDict(sem_seg=results)


def _image_name(file_name: str) -> str:
    """``<city>_<sequence>_<frame>`` of a file's name."""
    return "_".join(os.path.basename(file_name).split("_")[:3])
