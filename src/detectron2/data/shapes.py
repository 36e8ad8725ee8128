"""A data set to try things on: drawn shapes, for every kind of model.

::

    python -m detectron2.data.shapes datasets/shapes --train 2000 --val 200

writes images, boxes, outlines, keypoints, rotated boxes, semantic and panoptic masks, in COCO's
formats; :func:`register_shapes` makes them known::

    register_shapes("shapes_train", "datasets/shapes/train")
    register_shapes("shapes_val", "datasets/shapes/val")

Shapes are textured, turned, of all sizes, cover each other, and lie on textures with noise and
stray lines: their outline alone tells what they are. A seed gives the same files everywhere, but
for what other versions of Pillow may compress differently.
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from detectron2.data import _shapes_annotations as annotations
from detectron2.data._shapes_geometry import KEYPOINT_FLIP_MAP, KEYPOINT_NAMES
from detectron2.data._shapes_geometry import SHAPE_CLASSES as _SHAPE_CLASSES
from detectron2.data._shapes_scene import STUFF_CLASSES, draw_scene
from detectron2.data.datasets import (
    load_coco_json,
    register_coco_instances,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets._registration import register
from detectron2.structures.boxes import BoxMode

__all__ = [
    "KEYPOINT_FLIP_MAP",
    "KEYPOINT_NAMES",
    "SHAPE_CLASSES",
    "STUFF_CLASSES",
    "load_rotated_shapes",
    "register_shapes",
    "write_shapes",
]

SHAPE_CLASSES: tuple[str, ...] = tuple(_SHAPE_CLASSES)

_MIN_SIDE = 32
# One more is the background's number in a mask of bytes.
_MAX_SHAPES = 255
_CHUNK = 32


def write_shapes(
    folder: str | os.PathLike[str],
    num_images: int,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    classes: Sequence[str] = SHAPE_CLASSES,
    *,
    max_shapes: int = 8,
    num_workers: int = 0,
) -> None:
    """Draw images and write them with their ground truth.

    ``folder`` gets ``images/*.jpg``, ``instances.json``, ``panoptic.json`` with ``panoptic/*.png``,
    and ``sem_seg/*.png`` (0: things, then ``STUFF_CLASSES``). Besides COCO's fields, annotations
    of instances have ``rotated_bbox``: centre, width and height in pixels and the counter-clockwise
    angle in degrees of the whole shape, covered parts included; everything else is of the visible
    part. Keypoints are ``KEYPOINT_NAMES`` of triangles and arrows.

    Image ``i`` of a seed is the same in data sets of any length.

    Args:
        folder: is made; must not have annotations yet.
        num_images: at least 1.
        size: height and width, at least 32 pixels.
        seed: at least 0.
        classes: of ``SHAPE_CLASSES``, in the order of their category ids, which start at 1.
        max_shapes: of an image, which has at least one.
        num_workers: processes that draw; 0: this one.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: there are annotations in the folder.
    """
    classes = tuple(classes)
    _check(num_images, size, seed, classes, max_shapes, num_workers)
    folder = Path(folder)
    instances_json, panoptic_json = folder / "instances.json", folder / "panoptic.json"
    if instances_json.exists():
        raise FileExistsError(f"{instances_json} is there already")
    for name in ("images", "panoptic", "sem_seg"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    write = functools.partial(
        _write_image, folder=folder, size=size, seed=seed, classes=classes, max_shapes=max_shapes
    )
    if num_workers:
        # Forked from a process that has no threads and has imported this module once.
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["detectron2.data.shapes"])
        with concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=server) as pool:
            written = list(pool.map(write, range(num_images), chunksize=_CHUNK))
    else:
        written = [write(index) for index in range(num_images)]

    height, width = size
    images = [
        {"id": i + 1, "file_name": f"{_stem(i)}.jpg", "height": height, "width": width}
        for i in range(num_images)
    ]
    instances = [
        {"image_id": i + 1} | annotation
        for i, (of_image, _) in enumerate(written)
        for annotation in of_image
    ]
    for i, annotation in enumerate(instances):
        annotation["id"] = i + 1
    panoptic = [
        {"image_id": i + 1, "file_name": f"{_stem(i)}.png", "segments_info": segments}
        for i, (_, segments) in enumerate(written)
    ]
    of_instances, of_segments = annotations.categories(classes)
    _write_json(panoptic_json, images, panoptic, of_segments)
    # Last, as its existence says that the data set is complete.
    _write_json(instances_json, images, instances, of_instances)


def _check(
    num_images: int,
    size: tuple[int, int],
    seed: int,
    classes: tuple[str, ...],
    max_shapes: int,
    num_workers: int,
) -> None:
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}")
    if len(size) != 2 or min(size) < _MIN_SIDE:
        raise ValueError(f"size must be (height, width) of at least {_MIN_SIDE}, got {size}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed}")
    unknown = [name for name in classes if name not in SHAPE_CLASSES]
    if unknown or not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes must be different ones of {SHAPE_CLASSES}, got {classes}")
    if not 1 <= max_shapes <= _MAX_SHAPES:
        raise ValueError(f"max_shapes must be in [1, {_MAX_SHAPES}], got {max_shapes}")
    if num_workers < 0:
        raise ValueError(f"num_workers must be at least 0, got {num_workers}")


def _stem(index: int) -> str:
    return f"{index + 1:06d}"


def _write_image(
    index: int,
    *,
    folder: Path,
    size: tuple[int, int],
    seed: int,
    classes: tuple[str, ...],
    max_shapes: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the annotations of instances and the panoptic segments."""
    scene = draw_scene(seed, index, size, classes, max_shapes)
    panoptic_mask, segments = annotations.panoptic_segments(scene, classes)
    stem = _stem(index)
    Image.fromarray(scene.image).save(folder / "images" / f"{stem}.jpg", quality=92)
    for name, mask in (("panoptic", panoptic_mask), ("sem_seg", annotations.semantic_mask(scene))):
        Image.fromarray(mask).save(folder / name / f"{stem}.png", compress_level=1)
    return annotations.instance_annotations(scene, classes), segments


def _write_json(
    path: Path,
    images: list[dict[str, Any]],
    content: list[dict[str, Any]],
    categories: list[dict[str, Any]],
) -> None:
    temporary = path.with_suffix(".tmp")
    # Not json.dump, which encodes piece by piece, in Python.
    temporary.write_text(
        json.dumps({"images": images, "annotations": content, "categories": categories})
    )
    temporary.replace(path)


def register_shapes(name: str, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Register a folder of :func:`write_shapes` in its variants.

    ``<name>`` has boxes, polygons and keypoints; ``<name>_rotated`` has rotated boxes instead;
    ``<name>_panoptic_separated`` has boxes, polygons and semantic masks for PanopticFPN, and
    ``<name>_panoptic_stuffonly`` semantic masks only.

    Args:
        name: of the data set.
        folder: with the annotations.
        overwrite: replace the data sets and metadata that have the names.

    Raises:
        FileNotFoundError: the folder holds no complete data set.
        AssertionError: a name is taken.
    """
    folder = os.path.abspath(folder)
    images = os.path.join(folder, "images")
    instances_json = os.path.join(folder, "instances.json")
    if not os.path.exists(instances_json):
        raise FileNotFoundError(f"{instances_json} is not there: has write_shapes() ended?")
    with open(os.path.join(folder, "panoptic.json")) as file:
        segments = json.load(file)["categories"]
    things = [c["name"] for c in segments if c["isthing"]]
    thing_ids = {c["id"]: i for i, c in enumerate(c for c in segments if c["isthing"])}
    stuff = [c for c in segments if not c["isthing"]]
    keypoints = {"keypoint_names": KEYPOINT_NAMES, "keypoint_flip_map": KEYPOINT_FLIP_MAP}

    register_coco_instances(name, keypoints, instances_json, images, overwrite=overwrite)
    register(
        name + "_rotated",
        functools.partial(load_rotated_shapes, folder),
        {
            "image_root": images,
            "evaluator_type": "rotated_coco",
            "thing_classes": things,
            "thing_dataset_id_to_contiguous_id": thing_ids,
        },
        overwrite=overwrite,
    )
    register_coco_panoptic_separated(
        name + "_panoptic",
        {
            "thing_classes": things,
            "thing_dataset_id_to_contiguous_id": thing_ids,
            # As with COCO: one class for all things comes first.
            "stuff_classes": ["things", *(c["name"] for c in stuff)],
            "stuff_dataset_id_to_contiguous_id": {
                0: 0,
                **{c["id"]: i + 1 for i, c in enumerate(stuff)},
            },
            **keypoints,
        },
        images,
        os.path.join(folder, "panoptic"),
        os.path.join(folder, "panoptic.json"),
        os.path.join(folder, "sem_seg"),
        instances_json,
        overwrite=overwrite,
    )


def load_rotated_shapes(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Load the rotated boxes of a folder of :func:`write_shapes`.

    Returns:
        Records whose annotations have ``bbox`` of the mode ``BoxMode.XYWHA_ABS``, without
        polygons and keypoints.
    """
    folder = os.fspath(folder)
    records = load_coco_json(
        os.path.join(folder, "instances.json"),
        os.path.join(folder, "images"),
        extra_annotation_keys=["rotated_bbox"],
    )
    with open(os.path.join(folder, "instances.json")) as file:
        ids = [category["id"] for category in json.load(file)["categories"]]
    for record in records:
        record["annotations"] = [
            {
                "iscrowd": annotation["iscrowd"],
                "category_id": ids.index(annotation["category_id"]),
                "bbox": annotation["rotated_bbox"],
                "bbox_mode": BoxMode.XYWHA_ABS,
            }
            for annotation in record["annotations"]
        ]
    return records


def main() -> None:
    """Write a data set of drawn shapes: folders train and val."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--train", type=int, default=2000, metavar="N", help="images to train on")
    parser.add_argument("--val", type=int, default=200, metavar="N", help="images to evaluate on")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0, help="val has the next one")
    parser.add_argument("--classes", nargs="+", default=SHAPE_CLASSES, choices=SHAPE_CLASSES)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: this one only")
    options = parser.parse_args()
    splits = (("train", options.train, options.seed), ("val", options.val, options.seed + 1))
    for split, num_images, seed in splits:
        folder = os.path.join(options.folder, split)
        write_shapes(
            folder,
            num_images,
            tuple(options.size),
            seed,
            options.classes,
            num_workers=options.workers,
        )
        print(f"{folder}: {num_images} images")


if __name__ == "__main__":
    main()
