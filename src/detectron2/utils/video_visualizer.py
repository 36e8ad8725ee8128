"""Drawing of predictions for the frames of a video, with colours that stay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from detectron2.structures.instances import Instances
from detectron2.utils._panoptic_prediction import _PanopticPrediction
from detectron2.utils.colormap import colormap, random_color, random_colors
from detectron2.utils.visualizer import (
    ColorMode,
    VisImage,
    Visualizer,
    _class_name,
    _create_text_labels,
    _union,
)

__all__ = ["VideoVisualizer"]

# Frames for which an instance that is not seen keeps its colour.
_FRAMES_TO_LIVE = 8
# From these overlaps on, instances of one class in two frames are taken for the same.
_BOX_IOU, _MASK_IOU = 0.6, 0.5
# Where the metadata do not say how many instances a video has at most.
_MAXIMUM_INSTANCES = 74


class _DetectedInstance:
    """An instance of one frame, kept to be found again in the next.

    Attributes:
        label: its class.
        bbox: (x0, y0, x1, y1), or None.
        mask_rle: its mask as COCO's run lengths, or None.
        color: RGB in [0, 1], None until one is assigned.
        ttl: frames for which it is still remembered.
    """

    __slots__ = ["bbox", "color", "label", "mask_rle", "ttl"]

    def __init__(self, label: int, bbox: Any, mask_rle: Any, color: Any, ttl: int) -> None:
        self.label, self.bbox, self.mask_rle = label, bbox, mask_rle
        self.color, self.ttl = color, ttl


class VideoVisualizer:
    """Draws one frame after another. It remembers the colours of instances; call it in order.

    Attributes:
        metadata: of the dataset; any object with attributes. Beside what
            :class:`~detectron2.utils.visualizer.Visualizer` reads, ``max_num_instances`` (74) is
            the number of colours for instances with an id, and ``period_threshold`` (0) the number
            of frames up to which a tracked instance stays hidden.
    """

    def __init__(self, metadata: Any, instance_mode: ColorMode = ColorMode.IMAGE) -> None:
        """Args:
            metadata: see :attr:`metadata`.
            instance_mode: IMAGE or IMAGE_BW.

        Raises:
            ValueError: another mode.
        """
        if instance_mode not in (ColorMode.IMAGE, ColorMode.IMAGE_BW):
            raise ValueError(f"instance_mode must be IMAGE or IMAGE_BW, got {instance_mode}")
        self.metadata = metadata
        self._instance_mode = instance_mode
        self._old_instances: list[_DetectedInstance] = []
        self._max_num_instances = getattr(metadata, "max_num_instances", _MAXIMUM_INSTANCES)
        self._assigned_colors: dict[int, np.ndarray] = {}
        palette_size = len(colormap())
        self._color_pool = random_colors(
            min(self._max_num_instances, palette_size), rgb=True, maximum=1
        )

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw the instances of a frame.

        Colours are those in the field ``COLOR`` where there is one; else they go with the field
        ``ID``; else they are found by overlap with earlier frames. With a field ``ID_period``,
        instances that are not tracked for long enough yet are hidden.

        Args:
            frame: RGB ``(H, W, 3)``, values from 0 to 255.
            predictions: see
                :meth:`~detectron2.utils.visualizer.Visualizer.draw_instance_predictions`.
        """
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        predictions = predictions.to("cpu")
        if len(predictions) == 0:
            if self._instance_mode == ColorMode.IMAGE_BW:
                visualizer.output.reset_image(visualizer._create_grayscale_image())
            return visualizer.output
        fields = predictions.get_fields()
        boxes, masks = fields.get("pred_boxes"), fields.get("pred_masks")
        boxes = None if boxes is None else boxes.tensor.numpy()
        masks = None if masks is None else visualizer._as_generic_masks(masks)
        classes = fields["pred_classes"].tolist() if "pred_classes" in fields else None
        labels = _create_text_labels(
            classes, fields.get("scores"), getattr(self.metadata, "thing_classes", None)
        )
        if "COLOR" in fields:
            colors = list(fields["COLOR"])
        elif "ID" in fields:
            colors = self._assign_colors_by_id(predictions)
        else:
            colors = self._assign_colors(
                [
                    _DetectedInstance(
                        label=-1 if classes is None else classes[index],
                        bbox=None if boxes is None else boxes[index],
                        mask_rle=None
                        if boxes is not None or masks is None
                        else _encode(masks[index].mask),
                        color=None,
                        ttl=_FRAMES_TO_LIVE,
                    )
                    for index in range(len(predictions))
                ]
            )
        alpha = 0.5
        if self._instance_mode == ColorMode.IMAGE_BW:
            covered = None if masks is None else _union(masks, frame.shape[:2])
            visualizer.output.reset_image(visualizer._create_grayscale_image(covered))
            alpha = 0.3
        shown = self._shown(fields.get("ID_period"), len(predictions))
        keypoints = fields.get("pred_keypoints")
        return visualizer.overlay_instances(
            # Masks show where instances are; boxes would clutter the frame.
            boxes=None if masks is not None or boxes is None else boxes[shown],
            masks=_pick(masks, shown),
            labels=_pick(labels, shown),
            keypoints=None if keypoints is None else keypoints[torch.from_numpy(shown)],
            assigned_colors=_pick(colors, shown),
            alpha=alpha,
        )

    def draw_sem_seg(
        self,
        frame: np.ndarray,
        sem_seg: np.ndarray | torch.Tensor,
        area_threshold: float | None = None,
    ) -> VisImage:
        """Draw the semantic segmentation of a frame; see
        :meth:`~detectron2.utils.visualizer.Visualizer.draw_sem_seg`."""
        return Visualizer(frame, self.metadata).draw_sem_seg(sem_seg, area_threshold)

    def draw_panoptic_seg_predictions(
        self,
        frame: np.ndarray,
        panoptic_seg: np.ndarray | torch.Tensor,
        segments_info: list[dict[str, Any]] | None,
        area_threshold: float | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw the panoptic segmentation of a frame; see
        :meth:`~detectron2.utils.visualizer.Visualizer.draw_panoptic_seg`."""
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        prediction = _PanopticPrediction(panoptic_seg, segments_info, self.metadata)
        visualizer._draw_stuff(prediction, area_threshold, alpha)
        things = list(prediction.instance_masks())
        if not things:
            return visualizer.output
        categories = [info["category_id"] for _, info in things]
        detected = [
            _DetectedInstance(category, None, _encode(mask), None, _FRAMES_TO_LIVE)
            for category, (mask, _) in zip(categories, things, strict=True)
        ]
        return visualizer.overlay_instances(
            masks=[mask for mask, _ in things],
            labels=[
                _class_name(category, getattr(self.metadata, "thing_classes", None))
                for category in categories
            ],
            assigned_colors=self._assign_colors(detected),
            alpha=alpha,
        )

    def _assign_colors(self, instances: list[_DetectedInstance]) -> list[Any]:
        """Give each instance without a colour that of the earlier one that it overlaps most, or a
        new one; and remember them.

        Args:
            instances: of one frame, all with boxes, or all with masks.
        """
        old = self._old_instances
        overlaps = _overlaps(old, instances)
        is_found = np.zeros(len(old), bool)
        # Each old one passes its colour on once; the best pairs come first.
        for position in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = np.unravel_index(position, overlaps.shape)
            if overlaps[row, column] <= 0:
                break
            if not is_found[row] and instances[column].color is None:
                is_found[row] = True
                instances[column].color = old[row].color
        lost = [instance for instance, found in zip(old, is_found, strict=True) if not found]
        for instance in lost:
            instance.ttl -= 1
        remembered = [instance for instance in lost if instance.ttl > 0]
        taken = [item.color for item in [*instances, *remembered] if item.color is not None]
        for instance in instances:
            if instance.color is None:
                instance.color = _new_color(taken)
                taken.append(instance.color)
        self._old_instances = [*instances, *remembered]
        return [instance.color for instance in instances]

    def _assign_colors_by_id(self, instances: Instances) -> list[np.ndarray]:
        """Give each instance the colour of its id, a new one to a new id; ids that are gone give
        theirs back."""
        ids = [int(value) for value in instances.ID]
        for gone in self._assigned_colors.keys() - set(ids):
            self._color_pool.append(self._assigned_colors.pop(gone))
        for value in ids:
            if value not in self._assigned_colors:
                pool = self._color_pool
                self._assigned_colors[value] = (
                    pool.pop() if pool else random_color(rgb=True, maximum=1)
                )
        return [self._assigned_colors[value] for value in ids]

    def _shown(self, periods: Any, count: int) -> np.ndarray:
        """Which instances are shown, bool ``(N,)``."""
        if periods is None:
            return np.ones(count, bool)
        threshold = getattr(self.metadata, "period_threshold", 0)
        return np.array([int(period) > threshold for period in periods], bool)


def _pick(values: Sequence[Any] | None, shown: np.ndarray) -> list[Any] | None:
    if values is None:
        return None
    return [value for value, is_shown in zip(values, shown, strict=True) if is_shown]


def _encode(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def _overlaps(old: Sequence[_DetectedInstance], new: Sequence[_DetectedInstance]) -> np.ndarray:
    """IoUs ``(old, new)``; 0 for other classes and where they are too low for a match."""
    ious = np.zeros((len(old), len(new)))
    for use_boxes, threshold in ((True, _BOX_IOU), (False, _MASK_IOU)):
        rows, columns = (
            [
                index
                for index, item in enumerate(items)
                if (item.bbox if use_boxes else item.mask_rle) is not None
            ]
            for items in (old, new)
        )
        if not rows or not columns:
            continue
        if use_boxes:
            values = _box_ious([old[i].bbox for i in rows], [new[i].bbox for i in columns])
        else:
            old_masks, new_masks = (
                [old[i].mask_rle for i in rows],
                [new[i].mask_rle for i in columns],
            )
            values = coco_mask.iou(old_masks, new_masks, [0] * len(columns))
        window = np.ix_(rows, columns)
        ious[window] = np.maximum(ious[window], np.where(values > threshold, values, 0))
    labels_old, labels_new = ([item.label for item in items] for items in (old, new))
    is_same = np.array(labels_old)[:, None] == np.array(labels_new)[None]
    return np.where(is_same, ious, 0)


def _box_ious(first: Sequence[Any], second: Sequence[Any]) -> np.ndarray:
    """IoUs of boxes ``(x0, y0, x1, y1)``; rotated ones count as their upright selves."""
    a, b = (np.array([_upright(box) for box in boxes])[:, :] for boxes in (first, second))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(min=0).prod(axis=2)
    areas_a, areas_b = ((c[:, 2:] - c[:, :2]).prod(axis=1) for c in (a, b))
    return common / np.maximum(areas_a[:, None] + areas_b[None] - common, 1e-9)


def _upright(box: Any) -> np.ndarray:
    box = np.asarray(box, np.float64)
    if len(box) == 4:
        return box
    return np.concatenate([box[:2] - box[2:4] / 2, box[:2] + box[2:4] / 2])


def _new_color(taken: Sequence[Any]) -> np.ndarray:
    """A random colour, one that is not in use if there is any."""
    used = {tuple(np.round(np.asarray(color, np.float64), 3)) for color in taken}
    free = [
        color
        for color in colormap(rgb=True, maximum=1)
        if tuple(np.round(color.astype(np.float64), 3)) not in used
    ]
    return free[np.random.randint(len(free))] if free else random_color(rgb=True, maximum=1)
