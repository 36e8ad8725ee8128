"""Annotations, moved to where they are in a transformed image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fvcore.transforms.transform import HFlipTransform, Transform, TransformList

from detectron2.data._rle import decode_rle
from detectron2.structures import BoxMode
from detectron2.structures._polygons import check_polygon


def get_bbox(annotation: dict[str, Any]) -> list[float] | np.ndarray:
    """The box of an annotation, as (x0, y0, x1, y1); of a rotated one the hull."""
    return BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)


def finite_array(name: str, values: Any, count: int | None = None) -> np.ndarray:
    """A new float64 array.

    Args:
        name: of the values, for the message.
        values: numbers.
        count: how many there must be, in one dimension; None allows any shape.

    Raises:
        ValueError: they are not finite, or others.
    """
    array = np.array(values, dtype=np.float64)
    if count is not None and array.shape != (count,):
        raise ValueError(f"{name} must be {count} numbers, got {values!r:.200}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {values!r:.200}")
    return array


def _box_xyxy(annotation: dict[str, Any]) -> np.ndarray:
    mode = BoxMode(annotation["bbox_mode"])
    box = finite_array("bbox", annotation["bbox"], 5 if mode == BoxMode.XYWHA_ABS else 4)
    box = BoxMode.convert(box[None], mode, BoxMode.XYXY_ABS)[0]
    # One of negative width or height is empty, and not the box between its corners, which is what
    # a transform would make of it.
    box[2:] = np.maximum(box[2:], box[:2])
    return box


def _clip(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    height, width = image_size
    return np.minimum(boxes.clip(min=0), [width, height, width, height])


def transform_rotated_box(annotation: dict[str, Any], transforms: Transform) -> None:
    """Move the box of an annotation to where it is in the transformed image, as a rotated box.

    Args:
        annotation: with "bbox" and "bbox_mode", which are replaced: "bbox" becomes float64
            (cx, cy, w, h, angle in degrees).
        transforms: that were applied to the image, each with an ``apply_rotated_box``.
    """
    mode = BoxMode(annotation["bbox_mode"])
    box = finite_array("bbox", annotation["bbox"], 5 if mode == BoxMode.XYWHA_ABS else 4)[None]
    if mode != BoxMode.XYWHA_ABS:
        box = BoxMode.convert(box, mode, BoxMode.XYWH_ABS)
        box = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
    annotation["bbox"] = np.asarray(transforms.apply_rotated_box(box))[0]
    annotation["bbox_mode"] = BoxMode.XYWHA_ABS


def polygon_vertices(polygon: Any) -> np.ndarray:
    """The vertices of ``[x0, y0, x1, y1, ...]``, a new array ``(V, 2)``; ValueError for others."""
    values = finite_array("a polygon", polygon)
    check_polygon(values)
    return values.reshape(-1, 2)


def _transform_mask(
    segmentation: Any, transforms: Transform, image_size: tuple[int, int]
) -> np.ndarray:
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
    elif isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        mask = segmentation
    else:
        raise ValueError(
            "a segmentation is a list of polygons [x0, y0, x1, y1, ...], an RLE as a dict, or a "
            f"mask as an array (H, W), got {type(segmentation).__name__} {segmentation!r:.100}"
        )
    moved = transforms.apply_segmentation(mask)
    if tuple(moved.shape[:2]) != tuple(image_size):
        raise ValueError(
            f"a mask of the size {mask.shape} becomes {moved.shape[:2]}, but the transformed image "
            f"is {tuple(image_size)} (height, width): the mask was not of the image's size"
        )
    return moved


def _move_polygons(
    polygons_of: list[list[np.ndarray]], transforms: Transform
) -> list[list[np.ndarray]]:
    """The polygons ``(V, 2)`` of each instance, moved and flat."""
    parts = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
    if any(type(part).apply_polygons is not Transform.apply_polygons for part in parts):
        # A crop, say, may leave polygons out or cut them apart.
        moved = [transforms.apply_polygons(polygons) for polygons in polygons_of]
        return [[np.asarray(p).reshape(-1) for p in polygons] for polygons in moved]
    # Vertex by vertex, so all at once.
    flat = [polygon for polygons in polygons_of for polygon in polygons]
    if not flat:
        return polygons_of
    moved = np.asarray(transforms.apply_coords(np.concatenate(flat))).reshape(-1)
    pieces = iter(np.split(moved, np.cumsum([polygon.size for polygon in flat])[:-1]))
    return [[next(pieces) for _ in polygons] for polygons in polygons_of]


@contextmanager
def _naming(index: int | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if index is None:
            raise
        raise ValueError(f"annotation {index}: {type(error).__name__}: {error}") from error


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: Transform | Sequence[Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Move box, segmentation and keypoints to where they are in the transformed image.

    Args:
        annotation: changed in place. The box becomes float64 (x0, y0, x1, y1), clipped to the
            image, of a rotated one the hull; polygons become a list of float64 arrays, RLE and
            masks arrays ``(H, W)``, keypoints float64 ``(K, 3)``.
        transforms: that were applied to the image.
        image_size: of the transformed image.
        keypoint_hflip_indices: see :func:`create_keypoint_hflip_indices`.

    Returns:
        ``annotation``.

    Raises:
        ValueError: values that are not finite, or of the wrong number, form or size.
    """
    if isinstance(transforms, (tuple, list)):
        transforms = TransformList(list(transforms))
    transform_annotations(
        {None: annotation}, transforms, image_size, keypoint_hflip_indices=keypoint_hflip_indices
    )
    return annotation


def transform_annotations(
    annotations: dict[int | None, dict[str, Any]],
    transforms: Transform,
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
    rotated_boxes: bool = False,
) -> None:
    """:func:`transform_instance_annotations` for the annotations of an image, in few calls.

    Args:
        annotations: by their numbers, which errors tell; None tells none. Changed in place.
        transforms, image_size, keypoint_hflip_indices: see there.
        rotated_boxes: boxes are to become (cx, cy, w, h, angle in degrees), not clipped.
    """
    if not annotations:
        return
    boxes = []
    for index, annotation in annotations.items():
        with _naming(index):
            if rotated_boxes:
                transform_rotated_box(annotation, transforms)
            else:
                boxes.append(_box_xyxy(annotation))
    if not rotated_boxes:
        moved = _clip(np.asarray(transforms.apply_box(np.stack(boxes))), image_size)
        for annotation, box in zip(annotations.values(), moved, strict=True):
            annotation["bbox"] = box
            annotation["bbox_mode"] = BoxMode.XYXY_ABS
    with_polygons, polygons_of = [], []
    for index, annotation in annotations.items():
        with _naming(index):
            if "keypoints" in annotation:
                annotation["keypoints"] = transform_keypoint_annotations(
                    annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
                )
            if "segmentation" not in annotation:
                continue
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, list):
                polygons_of.append([polygon_vertices(polygon) for polygon in segmentation])
                with_polygons.append(annotation)
            else:
                annotation["segmentation"] = _transform_mask(segmentation, transforms, image_size)
    for annotation, polygons in zip(
        with_polygons, _move_polygons(polygons_of, transforms), strict=True
    ):
        annotation["segmentation"] = polygons


def transform_keypoint_annotations(
    keypoints: Sequence[float] | np.ndarray,
    transforms: Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> np.ndarray:
    """Move keypoints to where they are in the transformed image.

    Those outside it are no longer labelled, and those that are not labelled are zeros. A
    transform that mirrors exchanges left and right, by ``keypoint_hflip_indices``.

    Args:
        keypoints: x, y, visibility of each; flat or ``(K, 3)``.
        transforms: that were applied to the image.
        image_size: of the transformed image, whose borders belong to it.
        keypoint_hflip_indices: see :func:`create_keypoint_hflip_indices`.

    Returns:
        float64 ``(K, 3)``.

    Raises:
        ValueError: values that are not finite or no triples, or mirroring without indices of the
            right number.
    """
    values = finite_array("keypoints", keypoints)
    if values.size % 3:
        raise ValueError(f"keypoints are triples x, y, visibility, got {keypoints!r:.200}")
    points = values.reshape(-1, 3)
    xy = np.asarray(transforms.apply_coords(points[:, :2].copy()))
    height, width = image_size
    inside = ((xy >= 0) & (xy <= [width, height])).all(axis=1)
    points[:, :2] = xy
    points[:, 2][~inside] = 0
    parts = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
    if sum(isinstance(part, HFlipTransform) for part in parts) % 2 == 1:
        if keypoint_hflip_indices is None:
            raise ValueError(
                "keypoints of a mirrored image need keypoint_hflip_indices, as left and right are "
                "exchanged: see create_keypoint_hflip_indices"
            )
        if len(keypoint_hflip_indices) != len(points):
            raise ValueError(
                f"{len(points)} keypoints do not fit {len(keypoint_hflip_indices)} "
                "keypoint_hflip_indices"
            )
        points = points[np.asarray(keypoint_hflip_indices, dtype=np.int64)]
    points[points[:, 2] == 0] = 0
    return points
