"""Pascal VOC: objects in XML files, one an image."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._findings import Findings
from detectron2.data.datasets._registration import register
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = [
    "CLASS_NAMES",
    "BoxMode",
    "DatasetCatalog",
    "MetadataCatalog",
    "load_voc_instances",
    "register_pascal_voc",
]

# fmt: off
CLASS_NAMES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
# fmt: on
"""The 20 classes, in the order of their ids."""

logger = logging.getLogger(__name__)


def load_voc_instances(
    dirname: str, split: str, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Load the boxes of a split; those of difficult objects, too.

    Args:
        dirname: the folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        split: such as ``"train"``, ``"val"``, ``"trainval"`` or ``"test"``.
        class_names: all classes, in the order of their ids.

    Returns:
        Records in the standard format. ``image_id`` is the file's name without its ending. Boxes
        are XYXY_ABS: ``xmin`` and ``ymin`` of the file, which count pixels from 1, less 1.

    Raises:
        ValueError: a file has no size, or an object of another class. It names the file.
    """
    with PathManager.open(os.path.join(dirname, "ImageSets", "Main", split + ".txt")) as file:
        # Lists of one class have a second column.
        image_ids = [line.split()[0] for line in file if line.strip()]
    folder = PathManager.get_local_path(os.path.join(dirname, "Annotations", ""))
    class_ids = {name: i for i, name in enumerate(class_names)}
    findings = Findings()
    records = []
    for image_id in image_ids:
        path = os.path.join(folder, image_id + ".xml")
        try:
            root = ElementTree.parse(path).getroot()
            records.append(
                {
                    "file_name": os.path.join(dirname, "JPEGImages", image_id + ".jpg"),
                    "image_id": image_id,
                    "height": int(_text(root, "size/height")),
                    "width": int(_text(root, "size/width")),
                    "annotations": [_annotation(o, class_ids) for o in root.iterfind("object")],
                }
            )
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        for annotation in records[-1]["annotations"]:
            x0, y0, x1, y1 = annotation["bbox"]
            if x1 <= x0 or y1 <= y0:
                findings.add("boxes without area", f"{annotation['bbox']} of {path}")
    findings.log(logger, f"{split} of {dirname}")
    return records


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return text


def _annotation(element: ElementTree.Element, class_ids: dict[str, int]) -> dict[str, Any]:
    name = _text(element, "name")
    if name not in class_ids:
        raise ValueError(f"there is no class {name!r}; there are {list(class_ids)}")
    x0, y0, x1, y1 = (
        float(_text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return {
        "category_id": class_ids[name],
        "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
    }


def register_pascal_voc(
    name: str,
    dirname: str,
    split: str,
    year: int,
    class_names: Sequence[str] = CLASS_NAMES,
    *,
    overwrite: bool = False,
) -> None:
    """Register a split of Pascal VOC, or of a data set in its format.

    Args:
        name: of the data set.
        dirname: see :func:`load_voc_instances`.
        split: likewise.
        year: 2007 or 2012, which says how average precision is computed.
        class_names: all classes, in the order of their ids.
        overwrite: replace the data set and metadata that have the name.
    """
    class_names = list(class_names)
    register(
        name,
        functools.partial(load_voc_instances, dirname, split, class_names),
        {"thing_classes": class_names, "dirname": dirname, "year": year, "split": split},
        overwrite=overwrite,
    )
