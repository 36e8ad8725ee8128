"""Detection on PASCAL VOC, by the rules of its development kits."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import xml.etree.ElementTree as ET
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation import _voc_metrics as metrics
from detectron2.evaluation._gather import abbreviated, iterate_over_all
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["PascalVOCDetectionEvaluator", "parse_rec", "voc_ap", "voc_eval"]

# The image's name, and classes (N,), scores (N,) and boxes (N, 4) of what was detected in it.
_Prediction = tuple[str, np.ndarray, np.ndarray, np.ndarray]


class PascalVOCDetectionEvaluator(DatasetEvaluator):
    """Average precision of boxes on a split of VOC 2007 or 2012.

    As the development kits have it, a box holds its last pixel, boxes are rounded to one decimal
    and scores to three, and a detection is right if its IoU is *above* the threshold. The numbers
    are those of a reimplementation, not of the official program.
    """

    def __init__(self, dataset_name: str) -> None:
        """Args:
        dataset_name: its metadata have ``dirname`` (a folder with ``Annotations`` and
            ``ImageSets/Main``), ``split``, ``year`` (2007 or 2012) and ``thing_classes``.
        """
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.year not in (2007, 2012):
            raise ValueError(f"the year of {dataset_name!r} must be 2007 or 2012: {metadata.year}")
        self._dataset_name = dataset_name
        self._class_names = list(metadata.thing_classes)
        self._is_2007 = metadata.year == 2007
        folder = PathManager.get_local_path(os.path.join(metadata.dirname, "Annotations/"))
        self._anno_file_template = os.path.join(folder, "{}.xml")
        self._image_set_path = os.path.join(
            metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt"
        )
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)
        self.reset()

    def reset(self) -> None:
        # A process() of a subclass may fill lines of the development kit, by class.
        has_own = type(self).process is not PascalVOCDetectionEvaluator.process
        self._predictions: list[_Prediction] | dict[int, list[str]]
        self._predictions = defaultdict(list) if has_own else []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in detections.

        Args:
            inputs: dicts with ``image_id``, the name of the annotation file without its suffix.
            outputs: dicts with ``instances``, which have ``pred_boxes``, ``scores`` and
                ``pred_classes``, an index into ``thing_classes``.

        Raises:
            ValueError: there is no class of that index.
        """
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"]
            classes = instances.pred_classes.to(self._cpu_device).numpy().astype(np.int64)
            if unknown := set(classes[(classes < 0) | (classes >= len(self._class_names))]):
                raise ValueError(
                    f"image {image['image_id']!r}: {self._dataset_name!r} has "
                    f"{len(self._class_names)} classes, so none of index {min(unknown)}"
                )
            boxes = instances.pred_boxes.tensor.to(self._cpu_device).numpy().astype(np.float64)
            # Pixels are counted from 1, and the last one belongs to the box.
            boxes[:, :2] += 1
            scores = instances.scores.to(self._cpu_device).numpy().astype(np.float64)
            name, scores, boxes = str(image["image_id"]), np.round(scores, 3), np.round(boxes, 1)
            if isinstance(self._predictions, list):
                self._predictions.append((name, classes, scores, boxes))
                continue
            for category, *numbers in zip(classes.tolist(), scores, *boxes.T, strict=True):
                self._predictions[category].append(" ".join(map(str, (name, *numbers))))

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the average precision, in rank 0.

        A class without ground truth has none, and is left out of the means, with a warning, as are
        images without predictions.

        Returns:
            ``{"bbox": {"AP": …, "AP50": …, "AP75": …}}``, in percent: means over the
            classes, that of AP over the IoU thresholds 0.50, 0.55, … 0.95, too.

        Raises:
            ValueError: a prediction's image is not one of the split, or was processed twice.
        """
        own = self._predictions
        predictions = list(iterate_over_all(own if isinstance(own, list) else _of_lines(own)))
        if not comm.is_main_process():
            return None
        image_names = _read_image_set(self._image_set_path)
        predictions = self._in_order_of(image_names, predictions)
        objects_of_class = _ground_truths(self._anno_file_template, image_names)

        image_index = np.repeat(
            np.array([index for index, *_ in predictions], dtype=np.int64),
            [len(classes) for _, classes, _, _ in predictions],
        )
        nothing = (np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
        classes, scores, boxes = (
            np.concatenate([empty, *(prediction[column] for prediction in predictions)])
            for column, empty in enumerate(nothing, 1)
        )
        thresholds = [percent / 100 for percent in range(50, 100, 5)]
        precisions = np.full((len(self._class_names), len(thresholds)), np.nan)
        for index, name in enumerate(self._class_names):
            objects = objects_of_class(name)
            if not objects.count:
                continue
            chosen = classes == index
            matches = metrics.match(image_index[chosen], scores[chosen], boxes[chosen], objects)
            for column, threshold in enumerate(thresholds):
                precision, recall = metrics.precision_recall(matches, objects, threshold)
                precisions[index, column] = 100 * metrics.average_precision(
                    recall, precision, self._is_2007
                )
        return OrderedDict(bbox=self._summarize(precisions))

    def _in_order_of(
        self,
        image_names: list[str],
        predictions: list[_Prediction],
    ) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Predictions with the index of their image, by that: equal scores are then in the same
        order, however many processes there were."""
        indices = {name: index for index, name in enumerate(image_names)}
        processed = [name for name, *_ in predictions]
        if unknown := [name for name in processed if name not in indices]:
            raise ValueError(
                f"{len(unknown)} images with predictions are not listed in "
                f"{self._image_set_path}: {abbreviated(unknown)}"
            )
        if twice := [name for name, count in Counter(processed).items() if count > 1]:
            raise ValueError(f"images were processed more than once: {abbreviated(twice)}")
        if missing := [name for name in image_names if name not in set(processed)]:
            self._logger.warning(
                "%d of the %d images of %s have no predictions, so that their objects count as "
                "missed: %s",
                len(missing),
                len(image_names),
                self._dataset_name,
                abbreviated(missing),
            )
        in_order = [(indices[name], *arrays) for name, *arrays in predictions]
        return sorted(in_order, key=lambda prediction: prediction[0])

    def _summarize(self, precisions: np.ndarray) -> dict[str, float]:
        """Means over the classes that have an average precision ``(classes, thresholds)``."""
        valid = ~np.isnan(precisions[:, 0])
        if not valid.all():
            names = [name for name, ok in zip(self._class_names, valid, strict=True) if not ok]
            self._logger.warning(
                "Classes of %s without ground truth have no AP, and do not count in the mean: %s",
                self._dataset_name,
                abbreviated(names),
            )
        if not valid.any():
            return dict.fromkeys(("AP", "AP50", "AP75"), float("nan"))
        means = precisions[valid].mean(axis=0)
        return {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[5])}


def _of_lines(lines_of_class: Mapping[int, Sequence[str]]) -> list[_Prediction]:
    """Predictions by image, from lines of an image's name, a score and a box's four numbers."""
    rows: dict[str, list[tuple[int, list[float]]]] = {}
    for category, lines in lines_of_class.items():
        for line in lines:
            name, *numbers = line.split(" ")
            rows.setdefault(name, []).append((category, list(map(float, numbers))))
    predictions = []
    for name, of_image in rows.items():
        classes, numbers = zip(*of_image, strict=True)
        table = np.array(numbers, dtype=np.float64)
        predictions.append((name, np.array(classes, dtype=np.int64), table[:, 0], table[:, 1:]))
    return predictions


def parse_rec(filename: str) -> list[dict[str, Any]]:
    """Read a VOC annotation file.

    Returns:
        A dict for each object with ``name``, ``pose``, ``truncated``, ``difficult`` (0 or 1; 0 if
        the file does not say) and ``bbox``, ``[xmin, ymin, xmax, ymax]``, ints, in pixels counted
        from 1, the last one included.
    """
    with PathManager.open(filename) as file:
        root = ET.parse(file).getroot()
    objects = []
    for element in root.findall("object"):
        box = element.find("bndbox")
        try:
            # Some files of 2011 and later have fractions.
            corners = [int(float(box.find(key).text)) for key in ("xmin", "ymin", "xmax", "ymax")]
            name = element.find("name").text
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{filename}: object {len(objects)} has no name or box") from error
        objects.append(
            {
                "name": name,
                "pose": element.findtext("pose", "Unspecified"),
                "truncated": int(element.findtext("truncated", "0")),
                "difficult": int(element.findtext("difficult", "0")),
                "bbox": corners,
            }
        )
    return objects


@functools.lru_cache(maxsize=2**15)
def _parse_version(path: str, mtime_ns: int) -> list[dict[str, Any]]:
    """A file's objects, read once for all classes and thresholds unless the file changes."""
    return parse_rec(path)


def _parse_rec(filename: str) -> list[dict[str, Any]]:
    path = PathManager.get_local_path(filename)
    return _parse_version(path, os.stat(path).st_mtime_ns)


def _read_image_set(path: str) -> list[str]:
    with PathManager.open(path) as file:
        return [line.strip() for line in file if line.strip()]


def _ground_truths(
    path_template: str, image_names: list[str]
) -> Callable[[str], metrics.VocObjects]:
    """Read the annotations of images; the function returned gives the objects of a class."""
    annotations = [_parse_rec(path_template.format(name)) for name in image_names]
    objects = list(itertools.chain.from_iterable(annotations))
    image_index = np.repeat(np.arange(len(annotations)), [len(a) for a in annotations])
    names = np.array([obj["name"] for obj in objects], dtype=np.str_)
    boxes = np.array([obj["bbox"] for obj in objects], dtype=np.float64).reshape(-1, 4)
    difficult = np.array([obj["difficult"] for obj in objects], dtype=bool)

    def of_class(name: str) -> metrics.VocObjects:
        chosen = np.flatnonzero(names == name)
        return metrics.VocObjects(image_index[chosen], boxes[chosen], difficult[chosen])

    return of_class


def voc_ap(rec: np.ndarray, prec: np.ndarray, use_07_metric: bool = False) -> float:
    """Average precision.

    Args:
        rec: recall after each detection, ``(D,)``, non-decreasing.
        prec: precision after each detection, ``(D,)``.
        use_07_metric: VOC 2007's mean of 11 points, not the area under the envelope.
    """
    rec, prec = np.asarray(rec, dtype=np.float64), np.asarray(prec, dtype=np.float64)
    return metrics.average_precision(rec, prec, use_07_metric)


def voc_eval(
    detpath: str,
    annopath: str,
    imagesetfile: str,
    classname: str,
    ovthresh: float = 0.5,
    use_07_metric: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Evaluate the detections of one class from files.

    Args:
        detpath: the file of detections; ``detpath.format(classname)`` is its path. Its lines are
            ``image score xmin ymin xmax ymax``, in pixels counted from 1, the last one included.
        annopath: ``annopath.format(image)`` is the path of an image's annotations.
        imagesetfile: the names of the images, one a line.
        classname: the class.
        ovthresh: a detection is right if its IoU is above.
        use_07_metric: see :func:`voc_ap`.

    Returns:
        Recall and precision after each detection, by falling score, ``(D,)`` each, and the average
        precision. Recall and average precision are NaN if the class has no ground truth.

    Raises:
        ValueError: a line is of another form, or its image is not in the image set.
    """
    image_names = _read_image_set(imagesetfile)
    indices = {name: index for index, name in enumerate(image_names)}
    path = detpath.format(classname)
    image_index, numbers = [], []
    with PathManager.open(path) as file:
        for line in filter(str.strip, file):
            image, *values = line.split()
            if image not in indices or len(values) != 5:
                raise ValueError(
                    f"{path}: lines are 'image score xmin ymin xmax ymax' with an image of "
                    f"{imagesetfile}, got {line.strip()!r}"
                )
            image_index.append(indices[image])
            numbers.append([float(value) for value in values])
    detections = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    objects = _ground_truths(annopath, image_names)(classname)
    matches = metrics.match(
        np.array(image_index, dtype=np.int64), detections[:, 0], detections[:, 1:], objects
    )
    precision, recall = metrics.precision_recall(matches, objects, ovthresh)
    if not objects.count:
        return recall, precision, float("nan")
    return recall, precision, metrics.average_precision(recall, precision, use_07_metric)
