"""From the records of datasets to what models train on: images, annotations, proposals.

Boxes, polygons and keypoints are in absolute pixels, image sizes are (height, width).
"""

# ruff: noqa: F401  (some names are here for those who import them from here)

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform

from detectron2.config import CfgNode
from detectron2.data import transforms as T  # noqa: N812
from detectron2.data._annotations import (
    get_bbox,
    transform_instance_annotations,
    transform_keypoint_annotations,
)
from detectron2.data._ground_truth import (
    annotations_to_instances,
    annotations_to_instances_rotated,
    filter_empty_instances,
)
from detectron2.data._image_files import (
    _M_RGB2YUV,
    _M_YUV2RGB,
    _apply_exif_orientation,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    read_image,
)
from detectron2.data.catalog import MetadataCatalog
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
    polygons_to_bitmask,
)

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "annotations_to_instances_rotated",
    "build_augmentation",
    "build_transform_gen",
    "check_image_size",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
    "transform_proposals",
]


class SizeMismatchError(ValueError):
    """An image whose size is not the one that its record gives."""


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare an image with the "width" and "height" of its record, or fill these in.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    expected = dataset_dict.get("width", width), dataset_dict.get("height", height)
    if expected != (width, height):
        raise SizeMismatchError(
            f"the image {describe_record(dataset_dict)} is {width} x {height} (width x height), "
            f"but its record says {expected[0]} x {expected[1]}; an image that is stored turned "
            "by its EXIF orientation counts as it is seen"
        )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)


def describe_record(dataset_dict: dict[str, Any]) -> str:
    """Which record it is, for messages."""
    name = repr(dataset_dict.get("file_name"))
    image_id = dataset_dict.get("image_id")
    return name if image_id is None else f"{name} (image_id {image_id!r})"


def transform_proposals(
    dataset_dict: dict[str, Any],
    image_shape: tuple[int, int],
    transforms: Transform,
    *,
    proposal_topk: int,
    min_box_size: float = 0,
) -> None:
    """Move the proposals of a record to where they are in the transformed image.

    The fields "proposal_boxes", "proposal_bbox_mode" and "proposal_objectness_logits" are replaced
    by "proposals": :class:`Instances` with ``proposal_boxes`` and ``objectness_logits`` (float32),
    in the order that they had. Nothing is done for a record without proposals.

    Args:
        dataset_dict: changed in place.
        image_shape: of the transformed image.
        transforms: that were applied to the image.
        proposal_topk: the first so many are kept.
        min_box_size: those are left out before that whose sides, clipped, are not longer.

    Raises:
        ValueError: boxes that are not finite, or as many logits.
    """
    if "proposal_boxes" not in dataset_dict:
        return
    boxes = BoxMode.convert(
        np.asarray(dataset_dict.pop("proposal_boxes"), dtype=np.float64).reshape(-1, 4),
        dataset_dict.pop("proposal_bbox_mode"),
        BoxMode.XYXY_ABS,
    )
    logits = torch.as_tensor(
        np.asarray(dataset_dict.pop("proposal_objectness_logits")).astype(np.float32)
    )
    if len(logits) != len(boxes) or not np.isfinite(boxes).all():
        raise ValueError(
            f"{describe_record(dataset_dict)} has {len(boxes)} proposals and {len(logits)} logits, "
            f"{int((~np.isfinite(boxes).all(axis=1)).sum())} of the boxes are not finite"
        )
    moved = Boxes(transforms.apply_box(boxes)) if len(boxes) else Boxes(torch.zeros(0, 4))
    moved.clip(image_shape)
    keep = moved.nonempty(threshold=min_box_size).nonzero()[:proposal_topk, 0]
    dataset_dict["proposals"] = Instances(
        image_shape, proposal_boxes=moved[keep], objectness_logits=logits[keep]
    )


def _names(dataset_names: str | Iterable[str]) -> list[str]:
    return [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)


def create_keypoint_hflip_indices(dataset_names: str | list[str]) -> list[int]:
    """Which keypoint takes each one's place in a mirrored image.

    Args:
        dataset_names: of datasets whose metadata have the same ``keypoint_names`` and
            ``keypoint_flip_map`` (pairs of names that are each other's mirror images).

    Returns:
        An index for each keypoint; its own for those on the axis.
    """
    dataset_names = _names(dataset_names)
    for key in ("keypoint_names", "keypoint_flip_map"):
        check_metadata_consistency(key, dataset_names)
    metadata = MetadataCatalog.get(dataset_names[0])
    names = list(metadata.keypoint_names)
    mirror = dict(metadata.keypoint_flip_map)
    mirror |= {right: left for left, right in mirror.items()}
    return [names.index(mirror.get(name, name)) for name in names]


def get_fed_loss_cls_weights(
    dataset_names: str | list[str], freq_weight_power: float = 1.0
) -> torch.Tensor:
    """How likely each class is to be drawn for the federated loss.

    Args:
        dataset_names: of datasets whose metadata have the same ``class_image_count``: a list of
            dicts with "id" and "image_count".
        freq_weight_power: of the number of images.

    Returns:
        float32 ``(classes,)``, by ascending id: the number of images to that power.
    """
    dataset_names = _names(dataset_names)
    check_metadata_consistency("class_image_count", dataset_names)
    counts = MetadataCatalog.get(dataset_names[0]).class_image_count
    ordered = [category["image_count"] for category in sorted(counts, key=lambda c: c["id"])]
    return torch.tensor(ordered).float() ** freq_weight_power


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict[str, Any]
) -> T.CropTransform:
    """A random crop that contains the centre of an instance, to within a pixel.

    Args:
        crop_size: (height, width).
        image_size: (height, width), at least as large.
        instance: an annotation with "bbox" and "bbox_mode".

    Raises:
        ValueError: the crop is larger than the image, or the centre outside of it.
    """
    crop_size = np.asarray(crop_size, dtype=np.int32)
    size = np.asarray(image_size, dtype=np.int32)
    x0, y0, x1, y1 = get_bbox(instance)
    centre = np.array([(y0 + y1) / 2, (x0 + x1) / 2])
    if (centre > size).any() or (centre < 0).any():
        raise ValueError(
            f"the box {(x0, y0, x1, y1)} has its centre outside the image {image_size}"
        )
    if (crop_size > size).any():
        raise ValueError(f"a crop of {crop_size.tolist()} does not fit into an image {image_size}")
    least = np.maximum(np.floor(centre).astype(np.int32) - crop_size, 0)
    most = np.minimum(size - crop_size, np.ceil(centre).astype(np.int32))
    top = np.random.randint(least[0], most[0] + 1)
    left = np.random.randint(least[1], most[1] + 1)
    return T.CropTransform(int(left), int(top), int(crop_size[1]), int(crop_size[0]))


def check_metadata_consistency(key: str, dataset_names: list[str]) -> None:
    """Make sure that all datasets have the same value of one entry of their metadata.

    Raises:
        AttributeError: one has no such entry.
        ValueError: the values differ, or there is no dataset.
    """
    if not dataset_names:
        raise ValueError(f"there is no dataset whose {key} could be looked at")
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    for name, value in zip(dataset_names, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"{key} of the datasets differ: {values[0]!r:.300} of {dataset_names[0]!r}, "
                f"{value!r:.300} of {name!r}"
            )


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation | Transform]:
    """The augmentations that ``cfg.INPUT`` asks for: resizing, and flipping for training.

    Cropping is not among them: :class:`DatasetMapper` puts it before them.
    """
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation | Transform] = [
        T.ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    ]
    flip = cfg.INPUT.RANDOM_FLIP
    if flip not in ("horizontal", "vertical", "none"):
        raise ValueError(
            f"INPUT.RANDOM_FLIP must be 'horizontal', 'vertical' or 'none', got {flip!r}"
        )
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return augmentations


build_transform_gen = build_augmentation
"""The older name of :func:`build_augmentation`."""
