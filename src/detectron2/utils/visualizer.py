"""Drawing of what models predict and what datasets hold."""

import enum
import math
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils._generic_mask import GenericMask
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils._mask_components import MaskRuns
from detectron2.utils._panoptic_prediction import _PanopticPrediction, ids_by_area
from detectron2.utils._primitives import Color, Primitives
from detectron2.utils._vis_image import VisImage
from detectron2.utils.colormap import random_color

__all__ = ["ColorMode", "VisImage", "Visualizer"]

_RED = (1.0, 0.0, 0.0)
_OFF_WHITE = (1.0, 1.0, 240.0 / 255)


# Code written for upstream imports it from here. The data package is large; drawing does without.
__getattr__ = lazy_attributes(__name__, {"MetadataCatalog": "detectron2.data.catalog"})


class ColorMode(enum.Enum):
    """How instances are coloured."""

    IMAGE = 0
    """Each in a random colour."""
    SEGMENTATION = 1
    """Each in a shade of its class's colour, where the metadata have ``thing_colors``, and more
    opaque."""
    IMAGE_BW = 2
    """As IMAGE, over a picture that is grey wherever there is no mask."""


class _NoMetadata(types.SimpleNamespace):
    """Metadata without an entry."""

    def get(self, key: str, default: Any = None) -> Any:
        """As in a dict."""
        return getattr(self, key, default)


class Visualizer(Primitives):
    """Draws predictions, annotations and single shapes over an image.

    What ``metadata`` has of the following is used: ``thing_classes``, ``stuff_classes`` (names),
    ``thing_colors``, ``stuff_colors`` (RGB, 0 to 255), ``keypoint_names``,
    ``keypoint_connection_rules`` (two names and a colour each), ``label_divisor`` and
    ``thing_dataset_id_to_contiguous_id``.

    Attributes:
        img: uint8 RGB ``(H, W, 3)``.
        metadata: as given.
        output: the :class:`VisImage` that is drawn on.
        keypoint_threshold: keypoints with a score up to it are left out.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Any = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        """Start from an image.

        Args:
            img_rgb: ``(H, W, 3)``, values from 0 to 255; not written to.
            metadata: of the dataset; any object with attributes. None for none.
            scale: of the result, relative to the image.
            instance_mode: how instances are coloured.
            font_size_scale: makes texts and lines larger or smaller.
        """
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = _NoMetadata() if metadata is None else metadata
        self.output = VisImage(self.img, scale=scale)
        self.cpu_device = torch.device("cpu")
        side = math.sqrt(self.output.height * self.output.width)
        self._default_font_size = max(side // 90, 10 // scale) * font_size_scale
        self._instance_mode = instance_mode
        self.keypoint_threshold = 0.05

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw what a model predicts.

        Args:
            predictions: with any of ``pred_boxes``, ``scores``, ``pred_classes``, ``pred_masks``
                (of the image's size) and ``pred_keypoints``, on any device.
            jittering: in the mode SEGMENTATION, give instances of a class different shades.
        """
        predictions = predictions.to(self.cpu_device)
        fields = predictions.get_fields()
        boxes, scores = fields.get("pred_boxes"), fields.get("scores")
        classes = _to_list(fields.get("pred_classes"))
        labels = _create_text_labels(classes, scores, self._meta("thing_classes"))
        masks = fields.get("pred_masks")
        masks = None if masks is None else self._as_generic_masks(masks)
        colors, alpha = self._thing_colors(classes, jittering), 0.5
        if colors is not None:
            alpha = 0.8
        if self._instance_mode == ColorMode.IMAGE_BW:
            covered = None if masks is None else _union(masks, self.img.shape[:2])
            self.output.reset_image(self._create_grayscale_image(covered))
            alpha = 0.3
        return self.overlay_instances(
            boxes=boxes,
            labels=labels,
            masks=masks,
            keypoints=fields.get("pred_keypoints"),
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_sem_seg(
        self,
        sem_seg: np.ndarray | torch.Tensor,
        area_threshold: float | None = None,
        alpha: float = 0.8,
        draw_text: bool = True,
        edge_color: Color = _OFF_WHITE,
    ) -> VisImage:
        """Draw a semantic segmentation.

        Args:
            sem_seg: ``(H, W)``, the class of each pixel. Classes without a name in the metadata's
                ``stuff_classes`` are left out.
            area_threshold: connected parts of fewer pixels are left out.
            alpha: opacity.
            draw_text: write the names of the classes.
            edge_color: of the borders between classes.
        """
        sem_seg = self._check_mask(sem_seg)
        names, palette = self._meta("stuff_classes"), self._meta("stuff_colors")
        for label in ids_by_area(sem_seg):
            if label < 0 or (names is not None and label >= len(names)):
                continue
            text = str(label) if names is None else names[label]
            self.draw_binary_mask(
                sem_seg == label,
                color=_palette_color(palette, label),
                edge_color=edge_color,
                text=text if draw_text else None,
                alpha=alpha,
                area_threshold=area_threshold,
            )
        return self.output

    def _draw_stuff(
        self, prediction: _PanopticPrediction, area_threshold: float | None, alpha: float
    ) -> None:
        """Draw the stuff of a panoptic segmentation, over grey where that is the mode."""
        if self._instance_mode == ColorMode.IMAGE_BW:
            self.output.reset_image(self._create_grayscale_image(prediction.non_empty_mask()))
        names, palette = self._meta("stuff_classes"), self._meta("stuff_colors")
        for mask, info in prediction.semantic_masks():
            category = info["category_id"]
            self.draw_binary_mask(
                mask,
                color=_palette_color(palette, category),
                edge_color=_OFF_WHITE,
                text=_class_name(category, names),
                alpha=alpha,
                area_threshold=area_threshold,
            )

    def draw_panoptic_seg(
        self,
        panoptic_seg: np.ndarray | torch.Tensor,
        segments_info: list[dict[str, Any]] | None,
        area_threshold: float | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw a panoptic segmentation: stuff first, then the instances of things.

        Args:
            panoptic_seg: ``(H, W)``, the id of the segment of each pixel.
            segments_info: for each segment ``id``, ``category_id`` (contiguous), ``isthing``, and
                perhaps ``score`` and ``iscrowd``. None if ids are ``category *
                metadata.label_divisor + k``.
            area_threshold: connected parts of stuff of fewer pixels are left out.
            alpha: opacity.
        """
        prediction = _PanopticPrediction(
            self._check_mask(panoptic_seg), segments_info, self.metadata
        )
        self._draw_stuff(prediction, area_threshold, alpha)
        things = list(prediction.instance_masks())
        if not things:
            return self.output
        infos = [info for _, info in things]
        categories = [info["category_id"] for info in infos]
        scores = (
            [info["score"] for info in infos] if all("score" in info for info in infos) else None
        )
        labels = _create_text_labels(
            categories,
            scores,
            self._meta("thing_classes"),
            [info.get("iscrowd", 0) for info in infos],
        )
        colors = self._class_colors(categories, jittering=True)
        return self.overlay_instances(
            masks=[mask for mask, _ in things], labels=labels, assigned_colors=colors, alpha=alpha
        )

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw what a dataset holds for the image.

        Args:
            dic: in the standard format, with any of ``annotations``, ``sem_seg`` or
                ``sem_seg_file_name``, and ``pan_seg`` or ``pan_seg_file_name`` with
                ``segments_info``. An annotation may lack what others have.
        """
        # Areas first, so that outlines and keypoints lie over them.
        panoptic = dic.get("pan_seg")
        if panoptic is None and "pan_seg_file_name" in dic:
            panoptic = _ids_from_rgb(_read_image(dic["pan_seg_file_name"], "RGB"))
        if panoptic is not None:
            self.draw_panoptic_seg(panoptic, dic["segments_info"], area_threshold=0, alpha=0.5)
        semantic = dic.get("sem_seg")
        if semantic is None and "sem_seg_file_name" in dic:
            semantic = _read_image(dic["sem_seg_file_name"])
        if semantic is not None:
            self.draw_sem_seg(semantic, area_threshold=0, alpha=0.5)
        if dic.get("annotations"):
            self._draw_annotations(dic["annotations"])
        return self.output

    def overlay_instances(
        self,
        *,
        boxes: Boxes | RotatedBoxes | np.ndarray | torch.Tensor | None = None,
        labels: Sequence[str | None] | None = None,
        masks: Any = None,
        keypoints: Keypoints | np.ndarray | torch.Tensor | None = None,
        assigned_colors: Sequence[Color | None] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw N instances, the largest first.

        Args:
            boxes: ``(N, 4)``, rows ``(x0, y0, x1, y1)``; or ``(N, 5)``, rotated boxes, which are
                drawn without masks and keypoints.
            labels: a text for each, None for none.
            masks: :class:`BitMasks`, an array or tensor ``(N, H, W)``, :class:`PolygonMasks`, or a
                list of what :class:`GenericMask` takes.
            keypoints: ``(N, K, 3)``, rows ``(x, y, score)``.
            assigned_colors: a colour for each, None for a random one.
            alpha: opacity of the masks.

        Raises:
            ValueError: different numbers of instances.
        """
        boxes = None if boxes is None else _as_boxes(boxes)
        masks = None if masks is None else self._as_generic_masks(masks)
        keypoints = None if keypoints is None else _as_keypoints(keypoints)
        count = _common_length(
            boxes=boxes,
            labels=labels,
            masks=masks,
            keypoints=keypoints,
            assigned_colors=assigned_colors,
        )
        if count == 0:
            return self.output
        colors = _fill_colors(assigned_colors, count)
        if boxes is not None and boxes.shape[1] == 5:
            return self.overlay_rotated_instances(boxes, labels, colors)
        for index in _largest_first(boxes, masks, count):
            color = colors[index]
            if boxes is not None:
                self.draw_box(boxes[index], edge_color=color)
            if masks is not None:
                self._draw_mask(masks[index], color, alpha)
            if labels is not None and labels[index] is not None:
                box = None if boxes is None else boxes[index]
                mask = None if masks is None else masks[index]
                self._draw_label(labels[index], box, mask, color)
        if keypoints is not None:
            for of_instance in keypoints:
                self.draw_and_connect_keypoints(of_instance)
        return self.output

    def overlay_rotated_instances(
        self,
        boxes: RotatedBoxes | np.ndarray | torch.Tensor | None = None,
        labels: Sequence[str | None] | None = None,
        assigned_colors: Sequence[Color | None] | None = None,
    ) -> VisImage:
        """Draw N rotated boxes, the largest first.

        Args:
            boxes: ``(N, 5)``, rows (centre x, centre y, width, height, angle in degrees,
                counter-clockwise).
            labels: a text for each, None for none.
            assigned_colors: a colour for each, None for a random one.
        """
        rows = np.zeros((0, 5)) if boxes is None else _as_boxes(boxes)
        count = _common_length(boxes=rows, labels=labels, assigned_colors=assigned_colors)
        if count == 0:
            return self.output
        if rows.shape[1] != 5:
            raise ValueError(f"rotated boxes must have the shape (N, 5), got {list(rows.shape)}")
        colors = _fill_colors(assigned_colors, count)
        for index in np.argsort(-rows[:, 2] * rows[:, 3], kind="stable"):
            self.draw_rotated_box_with_label(
                rows[index],
                edge_color=colors[index],
                label=None if labels is None else labels[index],
            )
        return self.output

    def draw_and_connect_keypoints(self, keypoints: np.ndarray | torch.Tensor) -> VisImage:
        """Draw the keypoints of one instance, and the lines between them.

        The metadata's ``keypoint_connection_rules`` say which are connected. Where the names are
        those of people, lines from the nose to the middles of shoulders and hips are added.

        Args:
            keypoints: ``(K, 3)``, rows ``(x, y, score)``.
        """
        keypoints = np.asarray(keypoints, np.float64)
        if keypoints.ndim != 2 or keypoints.shape[1] != 3:
            raise ValueError(f"keypoints must have the shape (K, 3), got {list(keypoints.shape)}")
        is_visible = keypoints[:, 2] > self.keypoint_threshold
        names = self._meta("keypoint_names") or [None] * len(keypoints)
        points = {
            name: (float(x), float(y))
            for name, (x, y, _), visible in zip(names, keypoints, is_visible, strict=False)
            if visible and name is not None
        }
        for name, other, color in self._meta("keypoint_connection_rules") or ():
            self._connect(points.get(name), points.get(other), _from_8_bits(color))
        shoulders = _middle(points.get("left_shoulder"), points.get("right_shoulder"))
        hips = _middle(points.get("left_hip"), points.get("right_hip"))
        self._connect(points.get("nose"), shoulders, _RED)
        if "nose" in points:
            self._connect(shoulders, hips, _RED)
        for x, y, _ in keypoints[is_visible]:
            self.draw_circle((x, y), color=_RED)
        return self.output

    def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
        """The image in grey, but for where ``mask`` ``(H, W)`` is set."""
        # Sums of three bytes need 10 bits.
        sums = self.img[:, :, 0].astype(np.uint16) + self.img[:, :, 1] + self.img[:, :, 2]
        grey = ((sums + 1) // 3).astype(np.uint8)
        grey = np.repeat(grey[:, :, None], 3, axis=2)
        return grey if mask is None else np.where((mask > 0)[:, :, None], self.img, grey)

    def _meta(self, name: str) -> Any:
        """An attribute of the metadata, None if there is none."""
        return getattr(self.metadata, name, None)

    def _thing_colors(
        self, classes: Sequence[int] | None, jittering: bool
    ) -> list[Color | None] | None:
        """Colours by class where the mode asks for it and the metadata have them."""
        if self._instance_mode != ColorMode.SEGMENTATION or classes is None:
            return None
        return self._class_colors(classes, jittering) if self._meta("thing_colors") else None

    def _class_colors(self, classes: Sequence[int], jittering: bool) -> list[Color | None]:
        """The metadata's colours of classes of things, None for those that have none."""
        palette = self._meta("thing_colors")
        colors: list[Color | None] = [_palette_color(palette, category) for category in classes]
        if jittering:
            colors = [None if color is None else self._jitter(color) for color in colors]
        return colors

    def _as_generic_masks(self, masks: Any) -> list[GenericMask]:
        height, width = self.output.height, self.output.width
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        elif isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor):
            masks = masks.detach().cpu().numpy()
        return [
            mask if isinstance(mask, GenericMask) else GenericMask(mask, height, width)
            for mask in masks
        ]

    def _draw_annotations(self, annotations: Sequence[dict[str, Any]]) -> None:
        masks = keypoints = boxes = None
        if any("segmentation" in annotation for annotation in annotations):
            masks = [annotation.get("segmentation", []) for annotation in annotations]
        if any("keypoints" in annotation for annotation in annotations):
            rows = [annotation.get("keypoints", ()) for annotation in annotations]
            count = max(len(row) for row in rows)
            # An instance without keypoints has as many that are not visible.
            keypoints = np.array([row if len(row) else [0.0] * count for row in rows], np.float64)
            keypoints = keypoints.reshape(len(annotations), -1, 3)
        if all("bbox" in annotation for annotation in annotations):
            boxes = np.array([_xyxy(annotation) for annotation in annotations])
        classes = [annotation.get("category_id") for annotation in annotations]
        labels = None
        if None not in classes:
            crowds = [annotation.get("iscrowd", 0) for annotation in annotations]
            labels = _create_text_labels(classes, None, self._meta("thing_classes"), crowds)
        self.overlay_instances(
            labels=labels,
            boxes=boxes,
            masks=masks,
            keypoints=keypoints,
            assigned_colors=self._thing_colors(classes if labels else None, jittering=True),
        )

    def _draw_mask(self, mask: GenericMask, color: Color, alpha: float) -> None:
        # A subclass that draws polygons in its own way gets the outlines of bitmaps, too.
        if mask.is_polygons or type(self).draw_polygon is not Primitives.draw_polygon:
            for polygon in mask.polygons:
                self.draw_polygon(polygon.reshape(-1, 2), color, alpha=alpha)
        else:
            self._paint_region(mask.mask.view(np.bool_), color, None, alpha)

    def _draw_label(
        self, text: str, box: np.ndarray | None, mask: GenericMask | None, color: Color
    ) -> None:
        """Write a label at a box, or else in the middle of a mask or beside a small one, if it has
        a pixel."""
        if box is not None:
            anchors = self._label_anchors(box)
        else:
            runs = MaskRuns.of_mask(mask.mask != 0) if mask is not None else ()
            if len(runs) == 0:
                return
            box = np.array(runs.box(), np.float64)
            anchors = [(*runs.median(), 0.5, 0.5)]
            if self._is_small(box):
                anchors = self._label_anchors(box)
        size = self._font_size_beside(float(box[3] - box[1]))
        self._add_text(text, anchors, size, self._change_color_brightness(color, 0.7))

    def _connect(
        self,
        start: tuple[float, float] | None,
        end: tuple[float, float] | None,
        color: Color,
    ) -> None:
        if start is not None and end is not None:
            self.draw_line([start[0], end[0]], [start[1], end[1]], color)


def _create_text_labels(
    classes: Sequence[int] | None,
    scores: Sequence[float] | torch.Tensor | None,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[bool | int] | None = None,
) -> list[str] | None:
    """The labels of instances, such as "cat 95%" or "cat|crowd".

    Args:
        classes: of each instance.
        scores: of each instance, in [0, 1].
        class_names: without them, the numbers of the classes stand in the labels.
        is_crowd: whether each is a crowd.

    Returns:
        None where there are neither classes nor scores.
    """
    labels = None
    if classes is not None:
        labels = [_class_name(int(category), class_names) for category in classes]
    if scores is not None:
        percentages = [f"{float(score) * 100:.0f}%" for score in scores]
        if labels is None:
            labels = percentages
        else:
            labels = [f"{name} {value}" for name, value in zip(labels, percentages, strict=True)]
    if labels is not None and is_crowd is not None:
        labels = [
            f"{label}|crowd" if crowd else label
            for label, crowd in zip(labels, is_crowd, strict=True)
        ]
    return labels


def _class_name(category: int, names: Sequence[str] | None) -> str:
    return names[category] if names and 0 <= category < len(names) else str(category)


def _palette_color(
    palette: Sequence[Sequence[float]] | None, category: int
) -> tuple[float, float, float] | None:
    """The colour of a class, None if the palette has none for it."""
    if palette is None or not 0 <= category < len(palette):
        return None
    return _from_8_bits(palette[category])


def _from_8_bits(color: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (min(max(value / 255, 0.0), 1.0) for value in color[:3])
    return red, green, blue


def _to_list(values: Any) -> list[int] | None:
    if values is None:
        return None
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _as_boxes(boxes: Boxes | RotatedBoxes | np.ndarray | torch.Tensor) -> np.ndarray:
    """Rows of four or five, float64."""
    tensor = getattr(boxes, "tensor", boxes)
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu().numpy()
    rows = np.asarray(tensor, np.float64)
    if rows.size == 0 and rows.ndim < 2:
        return np.zeros((0, 4))
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise ValueError(f"boxes must have the shape (N, 4) or (N, 5), got {list(rows.shape)}")
    return rows


def _as_keypoints(keypoints: Keypoints | np.ndarray | torch.Tensor) -> np.ndarray:
    tensor = keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu().numpy()
    return np.asarray(tensor, np.float64)


def _common_length(**fields: Any) -> int:
    lengths = {name: len(field) for name, field in fields.items() if field is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"different numbers of instances: {lengths}")
    return next(iter(lengths.values()), 0)


def _fill_colors(colors: Sequence[Color | None] | None, count: int) -> list[Color]:
    return [
        random_color(rgb=True, maximum=1) if color is None else color
        for color in (colors if colors is not None else [None] * count)
    ]


def _largest_first(
    boxes: np.ndarray | None, masks: Sequence[GenericMask] | None, count: int
) -> list[int]:
    if boxes is not None:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    elif masks is not None:
        areas = np.array([mask.area() for mask in masks])
    else:
        return list(range(count))
    return np.argsort(-areas, kind="stable").tolist()


def _union(masks: Sequence[GenericMask], shape: tuple[int, ...]) -> np.ndarray:
    union = np.zeros(shape, np.uint8)
    for mask in masks:
        np.bitwise_or(union, mask.mask, out=union)
    return union


def _middle(
    first: tuple[float, float] | None, second: tuple[float, float] | None
) -> tuple[float, float] | None:
    if first is None or second is None:
        return None
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2


def _xyxy(annotation: dict[str, Any]) -> Sequence[float]:
    box = annotation["bbox"]
    if len(box) == 5:
        return box
    return BoxMode.convert(list(box), annotation["bbox_mode"], BoxMode.XYXY_ABS)


def _read_image(path: str, mode: str | None = None) -> np.ndarray:
    from detectron2.utils.file_io import PathManager

    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def _ids_from_rgb(image: np.ndarray) -> np.ndarray:
    """Ids of segments from an image of COCO's panoptic format."""
    red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
    return red + 256 * green + 65536 * blue
