"""Annotations of an image, put together as what models train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectron2.data._annotations import finite_array, get_bbox, polygon_vertices
from detectron2.data._rle import decode_rle
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes


def _to_bitmasks(segmentations: list[Any], image_size: tuple[int, int]) -> BitMasks:
    # Those that are no polygons are empty at first.
    polygons = [
        [polygon_vertices(p).reshape(-1) for p in segmentation]
        if isinstance(segmentation, list)
        else []
        for segmentation in segmentations
    ]
    masks = BitMasks.from_polygon_masks(polygons, *image_size).tensor
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if isinstance(segmentation, list):
            continue
        if isinstance(segmentation, dict):
            segmentation = decode_rle(segmentation)
        elif not isinstance(segmentation, np.ndarray):
            raise ValueError(
                "a mask is a list of polygons, an RLE as a dict, or an array (H, W), got "
                f"{type(segmentation).__name__}"
            )
        if segmentation.shape != tuple(image_size):
            raise ValueError(
                f"a mask must have the image's size {tuple(image_size)}, got {segmentation.shape}"
            )
        mask.copy_(torch.from_numpy(np.ascontiguousarray(segmentation)) != 0)
    return BitMasks(masks)


def _to_polygon_masks(segmentations: list[Any]) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(
            f"segmentations cannot be taken as polygons: {error}. RLE and masks need the mask "
            "format 'bitmask' (INPUT.MASK_FORMAT)"
        ) from error


def _field(annos: list[dict[str, Any]], name: str) -> list[Any] | None:
    """One field of all annotations; None if the first has none."""
    if not annos or name not in annos[0]:
        return None
    missing = [i for i, annotation in enumerate(annos) if name not in annotation]
    if missing:
        raise ValueError(f"the first annotation has {name}, but numbers {missing} have none")
    return [annotation[name] for annotation in annos]


def annotations_to_instances(
    annos: list[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Put the annotations of an image together as ground truth.

    Args:
        annos: as :func:`transform_instance_annotations` returns them, or in the standard format.
        image_size: of the image.
        mask_format: "polygon" or "bitmask"; polygons are rasterised for the latter.

    Returns:
        Instances with ``gt_boxes``, ``gt_classes`` (int64), and, where the first annotation has
        them, ``gt_masks`` (PolygonMasks or BitMasks) and ``gt_keypoints``.

    Raises:
        ValueError: segmentations that the format does not take; another format; boxes that are
            not finite.
    """
    boxes = [np.asarray(get_bbox(annotation), dtype=np.float32) for annotation in annos]
    array = np.stack(boxes) if boxes else np.zeros((0, 4), np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"boxes must be finite, got {array[~np.isfinite(array).all(1)].tolist()}")
    target = Instances(image_size)
    target.gt_boxes = Boxes(array)
    target.gt_classes = _classes(annos)
    if mask_format not in ("polygon", "bitmask"):
        raise ValueError(f"mask_format must be 'polygon' or 'bitmask', got {mask_format!r}")
    if (segmentations := _field(annos, "segmentation")) is not None:
        is_polygon = mask_format == "polygon"
        target.gt_masks = (
            _to_polygon_masks(segmentations)
            if is_polygon
            else _to_bitmasks(segmentations, image_size)
        )
    if (keypoints := _field(annos, "keypoints")) is not None:
        triples = [np.asarray(points, dtype=np.float32).reshape(-1, 3) for points in keypoints]
        target.gt_keypoints = Keypoints(np.stack(triples))
    return target


def _classes(annos: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([int(annotation["category_id"]) for annotation in annos]).long()


def annotations_to_instances_rotated(
    annos: list[dict[str, Any]], image_size: tuple[int, int]
) -> Instances:
    """Put annotations with rotated boxes together as ground truth.

    Args:
        annos: each with "bbox" (cx, cy, w, h, angle in degrees) and "category_id".
        image_size: of the image, to which boxes that are nearly upright are clipped.

    Returns:
        Instances with ``gt_boxes`` (RotatedBoxes) and ``gt_classes`` (int64).
    """
    boxes = [finite_array("bbox", annotation["bbox"], 5) for annotation in annos]
    target = Instances(image_size)
    target.gt_boxes = RotatedBoxes(np.array(boxes, dtype=np.float32).reshape(-1, 5))
    target.gt_boxes.clip(image_size)
    target.gt_classes = _classes(annos)
    return target


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Leave out instances of which nothing is in the image.

    Args:
        instances: with ``gt_boxes``, and perhaps ``gt_masks``.
        by_box: those whose box has a side not longer than ``box_threshold``.
        by_mask: those whose mask is empty.
        box_threshold: in pixels.
        return_mask: return also which were kept, bool ``(N,)``.

    Returns:
        New Instances; their fields share memory with those given if all are kept.

    Raises:
        ValueError: neither by box nor by mask.
    """
    if not by_box and not by_mask:
        raise ValueError("filter by box, by mask or both: by_box and by_mask are False")
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        masks = instances.gt_masks
        if isinstance(masks, BitMasks):
            # As nonempty(), in less than a tenth of its time.
            keep &= masks.get_bounding_boxes().tensor[:, 2] > 0
        else:
            keep &= masks.nonempty()
    # Masks are large, and mostly there is nothing to leave out: share them then.
    kept = instances[:] if bool(keep.all()) else instances[keep]
    return (kept, keep) if return_mask else kept
