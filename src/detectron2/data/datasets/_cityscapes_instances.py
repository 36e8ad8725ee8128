"""Instances of one image of Cityscapes, from polygons or from a mask of ids."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.structures.boxes import BoxMode
from detectron2.utils._mask_contours import mask_contours

INSTANCE_CLASS_IDS: list[int] = [c["id"] for c in CITYSCAPES_CATEGORIES if c["isthing"]]
"""Label ids of the classes that have instances and are evaluated."""

# Label ids of what is not evaluated; -1 is not drawn at all.
_OTHER_LABEL_IDS = {
    "unlabeled": 0,
    "ego vehicle": 1,
    "rectification border": 2,
    "out of roi": 3,
    "static": 4,
    "dynamic": 5,
    "ground": 6,
    "parking": 9,
    "rail track": 10,
    "guard rail": 14,
    "bridge": 15,
    "tunnel": 16,
    "polegroup": 18,
    "caravan": 29,
    "trailer": 30,
    "license plate": -1,
}
_LABEL_IDS = {c["name"]: c["id"] for c in CITYSCAPES_CATEGORIES} | _OTHER_LABEL_IDS

_GROUP = "group"

# Masks of instances have 1000 times the label id plus a number, or the label id for a group.
_INSTANCE_DIVISOR = 1000


def instances_from_polygons(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The visible parts of an image's instances.

    Args:
        objects: of the annotation file, from back to front.

    Returns:
        Standard annotations with label ids, from front to back.
    """
    try:
        import shapely
    except ImportError as error:
        raise ImportError(
            "the package shapely is needed to load Cityscapes' polygons; without it, "
            "load_cityscapes_instances(..., from_json=False) reads masks"
        ) from error

    annotations = []
    in_front: Any = shapely.Polygon()
    for item in reversed(objects):
        label_id = _label_id(item["label"])
        if "deleted" in item or label_id < 0:
            continue
        corners = np.asarray(item["polygon"], dtype=np.float64).reshape(-1, 2)
        if len(corners) < 3:
            continue
        # Corners are indices of pixels that belong to the object: its border is half a pixel
        # outside of their centres.
        polygon = shapely.Polygon(corners + 0.5).buffer(0.5, quad_segs=4)
        if label_id in INSTANCE_CLASS_IDS:
            visible = polygon.difference(in_front)
            parts = [g for g in getattr(visible, "geoms", [visible]) if g.geom_type == "Polygon"]
            parts = [part for part in parts if not part.is_empty]
            if not parts:
                continue
            annotations.append(
                {
                    "iscrowd": item["label"].endswith(_GROUP),
                    "category_id": label_id,
                    # Polygons have no holes here, so that those made by smaller objects are lost.
                    "segmentation": [np.ravel(p.exterior.coords).tolist() for p in parts],
                    "bbox": shapely.MultiPolygon(parts).bounds,
                    "bbox_mode": BoxMode.XYXY_ABS,
                }
            )
        in_front = in_front.union(polygon)
    return annotations


def _label_id(label: str) -> int:
    if label in _LABEL_IDS:
        return _LABEL_IDS[label]
    single = label.removesuffix(_GROUP)
    if single not in _LABEL_IDS:
        raise ValueError(f"there is no label {label!r}; there are {sorted(_LABEL_IDS)}")
    return _LABEL_IDS[single]


def instances_from_mask(mask: np.ndarray, to_polygons: bool) -> list[dict[str, Any]]:
    """An image's instances.

    Args:
        mask: ids of instances, integers ``(H, W)``.
        to_polygons: give the outlines, through the centres of the border's pixels; otherwise run
            lengths.

    Returns:
        Standard annotations with label ids, by id. Instances that are a line of pixels are left
        out, in polygons.
    """
    annotations = []
    for instance_id in np.unique(mask):
        is_group = instance_id < _INSTANCE_DIVISOR
        label_id = int(instance_id if is_group else instance_id // _INSTANCE_DIVISOR)
        if label_id not in INSTANCE_CLASS_IDS:
            continue
        is_instance = mask == instance_id
        rows, columns = (np.flatnonzero(is_instance.any(axis=axis)) for axis in (1, 0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        if to_polygons:
            borders, _ = mask_contours(is_instance)
            segmentation: Any = [(b + 0.5).ravel().tolist() for b in borders if len(b) >= 3]
            if not segmentation:
                continue
        else:
            segmentation = mask_util.encode(np.asfortranarray(is_instance, dtype=np.uint8))
        annotations.append(
            {
                "iscrowd": bool(is_group),
                "category_id": label_id,
                "segmentation": segmentation,
                "bbox": [float(side) for side in box],
                "bbox_mode": BoxMode.XYXY_ABS,
            }
        )
    return annotations
