"""What makes an evaluation meaningless, said before it starts."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_results import check_image_ids
from detectron2.evaluation._gather import abbreviated

# Half of the boxes beyond their images by a tenth of its side are no matter of a model's accuracy.
_SUSPICIOUS_SHARE = 0.5
_TOLERANCE = 1.1


def check_detections(
    detections: Detections,
    coco_gt: COCO,
    image_ids: Sequence[Any] | None,
    logger: logging.Logger,
) -> None:
    """Refuse detections that cannot be evaluated, and warn of what would make an AP 0 or NaN.

    Args:
        detections: with the category ids of the data set.
        coco_gt: the data set.
        image_ids: the images that are evaluated; None means all.
        logger: gets the warnings.

    Raises:
        ValueError: numbers that are not finite, images that the data set does not have, or no
            category that it has.
    """
    detections.column("score")
    for key, rows in (("bbox", detections.boxes), ("keypoints", detections.keypoints)):
        if rows is not None:
            detections.rows(key, rows.shape[1])
    check_image_ids(detections.image_ids, coco_gt)
    evaluated = set(coco_gt.imgs if image_ids is None else image_ids)
    _check_images(detections, evaluated, logger)
    _check_categories(detections, coco_gt, logger)
    if detections.boxes is not None and detections.boxes.shape[1] == 4:
        _check_boxes(detections, coco_gt, logger)
    _check_ground_truth(coco_gt, evaluated, logger)


def _check_images(detections: Detections, evaluated: set[Any], logger: logging.Logger) -> None:
    seen = set(detections.image_ids)
    if len(seen) < len(detections.image_ids):
        counts = Counter(detections.image_ids)
        repeated = [image_id for image_id, count in counts.items() if count > 1]
        logger.warning(
            "Images were predicted on more than once, and all their predictions count: image ids "
            "%s",
            abbreviated(repeated),
        )
    missing = evaluated - seen
    if missing:
        logger.warning(
            "%d of %d images have not been predicted on, and all their objects count as missed: "
            "image ids %s. evaluate(img_ids=...) evaluates some images only",
            len(missing),
            len(evaluated),
            abbreviated(sorted(missing, key=str)),
        )


def _check_categories(detections: Detections, coco_gt: COCO, logger: logging.Logger) -> None:
    if not len(detections):
        return
    predicted = np.unique(detections.category_ids).tolist()
    unknown = [category for category in predicted if category not in coco_gt.cats]
    if not unknown:
        return
    message = (
        f"predictions have category ids that are not in the data set: {abbreviated(unknown)}; the "
        f"data set has {abbreviated(sorted(coco_gt.cats))}. Its metadata's "
        "'thing_dataset_id_to_contiguous_id', which loading the data set sets, maps the model's "
        "classes to them"
    )
    if len(unknown) == len(predicted):
        raise ValueError(message)
    logger.warning(message[0].upper() + message[1:])


def _check_boxes(detections: Detections, coco_gt: COCO, logger: logging.Logger) -> None:
    if not len(detections):
        return
    boxes = detections.boxes
    images = [coco_gt.imgs[image_id] for image_id in detections.image_ids]
    sizes = np.array(
        [(image.get("width", np.inf), image.get("height", np.inf)) for image in images], np.float64
    )[detections.images]
    flipped = (boxes[:, 2:] < 0).any(axis=1)
    if flipped.any():
        logger.warning(
            "%d of %d boxes have a negative width or height, the first one %s (x, y, width, "
            "height): pred_boxes must be (x0, y0, x1, y1)",
            np.count_nonzero(flipped),
            len(boxes),
            boxes[flipped][0].tolist(),
        )
    if boxes.max() <= 1 and np.median(sizes) > 2:
        logger.warning(
            "All boxes lie within one pixel, as boxes relative to the image's size do: they must "
            "be in pixels"
        )
    far = (boxes[:, :2] + boxes[:, 2:] > sizes * _TOLERANCE).any(axis=1)
    if far.mean() > _SUSPICIOUS_SHARE:
        first = int(np.flatnonzero(far)[0])
        logger.warning(
            "%d of %d boxes reach far beyond their images, the first one %s (x, y, width, height) "
            "in an image of %d x %d: they must be for the image's own size, and of the form "
            "(x0, y0, x1, y1) in Instances, (x, y, width, height) in COCO's results",
            np.count_nonzero(far),
            len(boxes),
            boxes[first].tolist(),
            *sizes[first].tolist(),
        )


def _check_ground_truth(coco_gt: COCO, evaluated: set[Any], logger: logging.Logger) -> None:
    present = {
        annotation["category_id"]
        for annotation in coco_gt.dataset.get("annotations", [])
        if annotation["image_id"] in evaluated and not annotation.get("iscrowd", 0)
    }
    absent = [c.get("name", id) for id, c in sorted(coco_gt.cats.items()) if id not in present]
    if absent:
        logger.warning(
            "%d of %d classes have no ground truth in these images: their AP is NaN, and does not "
            "count: %s",
            len(absent),
            len(coco_gt.cats),
            abbreviated(absent),
        )
