"""Data sets as the check reads them: as raw as they come."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.data._check_report import DatasetReport
from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets._coco_file import read_json
from detectron2.data.datasets.coco import load_coco_json
from detectron2.data.datasets.lvis import load_lvis_json


@dataclasses.dataclass
class Source:
    """Records to check, and what is declared about them."""

    records: list[dict[str, Any]]
    """In the standard format, but as they are: with dataset ids, and boxes without a mode."""
    classes: dict[Any, str] | None
    """Declared category ids → names; None if nothing is declared."""
    num_keypoints: dict[Any, int]
    """Category ids → number of keypoints."""
    is_file: bool
    """Whether the annotations are those of a file, with ids of their own."""
    has_image_root: bool = True


def open_source(
    dataset: str | os.PathLike[str] | Sequence[dict[str, Any]],
    image_root: str | None,
    metadata: Metadata | None,
    report: DatasetReport,
) -> Source | None:
    """Read a data set; None if it cannot be, and the report says why.

    Raises:
        ValueError: there is no data set of this name, and no such file.
    """
    if not isinstance(dataset, (str, os.PathLike)):
        return _from_records(dataset, metadata or Metadata())
    name = os.fspath(dataset)
    if name in DatasetCatalog:
        loader = DatasetCatalog[name]
        file_loader = loader.func if isinstance(loader, functools.partial) else None
        if file_loader in (load_coco_json, load_lvis_json):
            path, root = loader.args[:2]
            is_lvis = file_loader is load_lvis_json
            return _from_file(path, image_root or root, report, is_lvis)
        return _from_loader(name, metadata or MetadataCatalog.get(name), report)
    if not os.path.isfile(name):
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{name!r} is neither a registered data set nor a file{hint}")
    return _from_file(name, image_root, report, is_lvis=False)


def _from_loader(name: str, metadata: Metadata, report: DatasetReport) -> Source | None:
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # of whatever kind a user's function raises
        report.errors.add("failures to load the data set", f"{type(error).__name__}: {error}")
        return None
    return _from_records(records, metadata)


def _from_records(records: Sequence[dict[str, Any]], metadata: Metadata) -> Source:
    names = metadata.get("thing_classes")
    keypoints = metadata.get("keypoint_names")
    classes = None if names is None else dict(enumerate(names))
    num_keypoints = {} if keypoints is None else dict.fromkeys(classes or (), len(keypoints))
    return Source(list(records), classes, num_keypoints, is_file=False)


def _from_file(
    path: str, image_root: str | None, report: DatasetReport, is_lvis: bool
) -> Source | None:
    try:
        content = read_json(path, must_be_finite=False)
    except (OSError, ValueError) as error:
        report.errors.add("failures to read the file", str(error))
        return None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        report.errors.add("files of another format than COCO's", f"{path} has no list of images")
        return None
    parts = {key: _objects(content, key, report) for key in ("images", "annotations", "categories")}
    if any("segments_info" in annotation for annotation in parts["annotations"][:1]):
        report.errors.add(
            "files of the panoptic format, of which only registered data sets can be checked", path
        )
        return None
    annotations = _group(parts["annotations"], parts["images"], report)
    records = []
    for image in parts["images"]:
        records.append(
            {
                "file_name": _image_path(image, image_root or "", is_lvis),
                "image_id": image.get("id"),
                "height": image.get("height"),
                "width": image.get("width"),
                "annotations": annotations[hashable(image.get("id"))],
            }
        )
    _check_categories(parts["categories"], report)
    categories = [c | {"id": hashable(c["id"])} for c in parts["categories"] if "id" in c]
    return Source(
        records,
        {c["id"]: str(c.get("name", c["id"])) for c in categories},
        {c["id"]: len(c["keypoints"]) for c in categories if _has_keypoints(c)},
        is_file=True,
        has_image_root=image_root is not None,
    )


def _image_path(image: dict[str, Any], root: str, is_lvis: bool) -> str | None:
    name = image.get("file_name")
    if is_lvis or (name is None and "coco_url" in image):
        name = "/".join(str(image.get("coco_url")).split("/")[-2:])
    if not isinstance(name, str):
        return None
    # As the loaders do.
    return root + name if is_lvis else os.path.join(root, name)


def _objects(content: dict[str, Any], key: str, report: DatasetReport) -> list[dict[str, Any]]:
    records = content.get(key) or []
    if not isinstance(records, list):
        report.errors.add("parts of the file that are no lists", f"{key!r}: {str(records)[:100]}")
        return []
    found = [record for record in records if isinstance(record, dict)]
    for record in records if len(found) < len(records) else ():
        if not isinstance(record, dict):
            report.errors.add(f"{key} that are no objects", str(record)[:100])
    return found


def _group(
    annotations: list[dict[str, Any]], images: list[dict[str, Any]], report: DatasetReport
) -> dict[Any, list[dict[str, Any]]]:
    """Group annotations by image, and check ids of annotations."""
    groups: dict[Any, list[dict[str, Any]]] = {hashable(image.get("id")): [] for image in images}
    seen: set[Any] = set()
    for i, annotation in enumerate(annotations):
        number, image_id = hashable(annotation.get("id")), hashable(annotation.get("image_id"))
        if number is None:
            report.errors.add("annotations without an id", f"annotations[{i}] of image {image_id}")
        elif number in seen:
            report.errors.add("repeated ids of annotations", f"{number}, in annotations[{i}]")
        seen.add(number)
        if number == 0:
            report.warnings.add(
                "annotations with the id 0, which COCO's own evaluation takes for unmatched",
                f"annotations[{i}] of image {image_id}",
            )
        if image_id in groups:
            groups[image_id].append(annotation)
        else:
            report.warnings.add(
                "annotations of images that are not listed, left out when loading",
                f"annotation {number} of image {image_id}",
            )
    return groups


def _check_categories(categories: list[dict[str, Any]], report: DatasetReport) -> None:
    seen: dict[str, set[Any]] = {"id": set(), "name": set()}
    for category in categories:
        for key, findings in (("id", report.errors), ("name", report.warnings)):
            value = hashable(category.get(key))
            if value is None:
                report.errors.add(f"categories without {key}", str(category)[:200])
            elif value in seen[key]:
                findings.add(f"categories that repeat {key}", str(category)[:200])
            seen[key].add(value)
        keypoints = category.get("keypoints")
        if keypoints is not None and not isinstance(keypoints, list):
            report.errors.add("categories whose keypoints are no list", str(category)[:200])


def _has_keypoints(category: dict[str, Any]) -> bool:
    keypoints = category.get("keypoints")
    return isinstance(keypoints, list) and bool(keypoints)


def hashable(value: Any) -> Any:
    """An id; what no id can be, such as a list, as text."""
    return value if value is None or isinstance(value, (int, float, str)) else repr(value)
