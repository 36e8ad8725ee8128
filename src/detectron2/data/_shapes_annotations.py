"""The ground truth of a drawn image in COCO's formats."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectron2.data._shapes_geometry import KEYPOINT_NAMES, SHAPE_CLASSES, Placement
from detectron2.data._shapes_scene import STUFF_CLASSES, DrawnShape, Scene

# From here on, ids of segments in the panoptic masks are stuff.
_FIRST_STUFF_SEGMENT = 256

# Of a keypoint, as in COCO.
_OUTSIDE, _COVERED, _VISIBLE = 0, 1, 2


def instance_annotations(scene: Scene, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Annotations of the shapes that lack ``id`` and ``image_id``."""
    annotations = []
    for index, shape in enumerate(scene.shapes):
        points = np.concatenate([np.reshape(p, (-1, 2)) for p in shape.polygons])
        low, high = points.min(axis=0), points.max(axis=0)
        keypoints = _keypoints(scene, shape, index + 1)
        annotations.append(
            {
                "category_id": classes.index(shape.name) + 1,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": sum(map(_area, shape.polygons)),
                "iscrowd": 0,
                "segmentation": shape.polygons,
                "keypoints": keypoints,
                "num_keypoints": sum(v != _OUTSIDE for v in keypoints[2::3]),
                "rotated_bbox": _rotated_box(shape),
            }
        )
    return annotations


def _area(polygon: list[int]) -> int:
    x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
    return int(x @ np.roll(y, -1) - y @ np.roll(x, -1)) // 2


def _rotated_box(shape: DrawnShape) -> list[float]:
    """Centre, width, height and angle, of the two that give this box the one nearer to 0."""
    at = shape.placement
    angle = (at.angle + 90) % 180 - 90
    return [round(v, 3) for v in (at.center_x, at.center_y, at.width, at.height, angle)]


def _keypoints(scene: Scene, shape: DrawnShape, owner: int) -> list[float]:
    """``[x, y, visibility, ...]``, where (x, y) are indices of pixels, as COCO's are."""
    points = SHAPE_CLASSES[shape.name].keypoints
    if points is None:
        return [0, 0, _OUTSIDE] * len(KEYPOINT_NAMES)
    height, width = scene.owners.shape
    # The border's rounding may leave a keypoint just outside of the mask: look further inside.
    inner = _pixels(shape.placement, points * 0.8)
    result: list[float] = []
    for (x, y), (inner_x, inner_y) in zip(
        _pixels(shape.placement, points).tolist(), inner.tolist(), strict=True
    ):
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            result += [0, 0, _OUTSIDE]
            continue
        is_visible = scene.owners[round(inner_y), round(inner_x)] == owner
        result += [round(x, 2), round(y, 2), _VISIBLE if is_visible else _COVERED]
    return result


def _pixels(placement: Placement, points: np.ndarray) -> np.ndarray:
    return placement.apply(points) - 0.5


def panoptic_segments(
    scene: Scene, classes: Sequence[str]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The panoptic mask, ids of segments as colours, uint8 ``(H, W, 3)``; and the segments.

    Categories from 1 on are things, those after them stuff.
    """
    is_stuff = scene.owners == 0
    colors = np.zeros((*is_stuff.shape, 3), np.uint8)
    colors[..., 0] = np.where(is_stuff, scene.stuff, scene.owners)
    colors[..., 1] = is_stuff  # 256 and more
    ids = colors[..., 0] + _FIRST_STUFF_SEGMENT * is_stuff.astype(np.int16)
    areas = np.bincount(ids.ravel())
    segments = []
    for segment in np.flatnonzero(areas).tolist():
        is_thing = segment < _FIRST_STUFF_SEGMENT
        if is_thing:
            category = classes.index(scene.shapes[segment - 1].name) + 1
        else:
            category = len(classes) + segment - _FIRST_STUFF_SEGMENT + 1
        mask = ids == segment
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        x0, y0 = int(columns[0]), int(rows[0])
        segments.append(
            {
                "id": segment,
                "category_id": category,
                "bbox": [x0, y0, int(columns[-1]) + 1 - x0, int(rows[-1]) + 1 - y0],
                "area": int(areas[segment]),
                "iscrowd": 0,
            }
        )
    return colors, segments


def semantic_mask(scene: Scene) -> np.ndarray:
    """Uint8 ``(H, W)``: 0 for all things, then the stuff classes."""
    return np.where(scene.owners > 0, 0, scene.stuff + 1).astype(np.uint8)


def categories(classes: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of instances, and of panoptic segments."""
    things: list[dict[str, Any]] = [
        {"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(classes)
    ]
    segments = [category | {"isthing": 1} for category in things]
    for name in STUFF_CLASSES:
        segments.append(
            {
                "id": len(segments) + 1,
                "name": name,
                "supercategory": "background",
                "isthing": 0,
            }
        )
    with_keypoints = [
        category | ({"keypoints": list(KEYPOINT_NAMES)} if _has_keypoints(name) else {})
        for category, name in zip(things, classes, strict=True)
    ]
    return with_keypoints, segments


def _has_keypoints(name: str) -> bool:
    return SHAPE_CLASSES[name].keypoints is not None
