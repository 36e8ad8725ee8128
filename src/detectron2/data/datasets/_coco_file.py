"""Annotation files of COCO's format, read and indexed."""

import contextlib
import dataclasses
import gc
import json
from collections.abc import Iterator
from typing import Any

from detectron2.data.datasets._findings import Findings
from detectron2.utils.file_io import PathManager


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the cycle collector from going through millions of new objects over and over."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(path: str, *, must_be_finite: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        must_be_finite: take no NaN, Infinity or -Infinity, which are no JSON, but are what Python
            and others write.

    Raises:
        ValueError: it is no JSON, or not finite. The message names the file and the place.
    """
    constants: list[str] = []

    def note_constant(name: str) -> float:
        constants.append(name)
        return float(name)

    with open(PathManager.get_local_path(path), encoding="utf-8") as file:
        try:
            content = json.load(file, parse_constant=note_constant)
        except ValueError as error:
            raise ValueError(f"{path} is not a JSON file: {error}") from error
    if constants and must_be_finite:
        where = _find_non_finite(content) or "a value that another of the same name hides"
        raise ValueError(f"{path} has {len(constants)} numbers that are not finite, first: {where}")
    return content


def _find_non_finite(content: Any, where: str = "") -> str | None:
    """The place of the first NaN or infinity, and what is there."""
    if isinstance(content, float):
        return f"{where} = {content}" if content - content != 0 else None
    if isinstance(content, dict):
        record_id = f"(id {content['id']})" if "id" in content else ""
        items: Any = ((f"{where}{record_id}.{key}".lstrip("."), v) for key, v in content.items())
    elif isinstance(content, list):
        items = ((f"{where}[{i}]", v) for i, v in enumerate(content))
    else:
        return None
    return next(filter(None, (_find_non_finite(value, place) for place, value in items)), None)


@dataclasses.dataclass
class CocoFile:
    """The parts of an annotation file."""

    path: str
    images: list[dict[str, Any]]
    """Ascending by ``id``."""
    annotations: dict[Any, list[dict[str, Any]]]
    """Id of an image → its annotations, in the file's order. Images without any are left out."""
    categories: list[dict[str, Any]]
    """Ascending by ``id``."""
    findings: Findings
    """What is odd but does not keep the file from being used."""

    def error(self, record: str, message: str) -> ValueError:
        """An error about a record, to be raised."""
        return ValueError(f"{self.path}: {record}: {message}")


def read_coco_file(
    path: str, *, name_key: str = "file_name", unique_annotation_ids: bool = True
) -> CocoFile:
    """Read a file and group its annotations by image.

    Args:
        path: the JSON file. Lists that it lacks count as empty, except ``images``.
        name_key: the field that gives an image's file.
        unique_annotation_ids: demand that they are.

    Raises:
        ValueError: a part, an id, or another field that every record needs is missing, or an id is
            there twice.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "images" not in content:
        raise ValueError(f"{path} is not an annotation file of COCO's format: it has no 'images'")
    parts = {key: _part(path, content, key) for key in ("images", "annotations", "categories")}
    needed = {
        "images": ("id", "height", "width", name_key),
        "annotations": ("id", "image_id", "category_id"),
        "categories": ("id",),
    }
    for part, keys in needed.items():
        if part == "annotations" and not unique_annotation_ids:
            keys = keys[1:]
        _check_keys(path, part, parts[part], keys)
        if keys[0] == "id":
            _check_unique(path, part, parts[part])
    for image in parts["images"]:
        _check_image(path, image, name_key)
    findings = Findings()
    annotations = _by_image(path, parts["images"], parts["annotations"], findings)
    by_id = {part: sorted(parts[part], key=lambda r: r["id"]) for part in ("images", "categories")}
    return CocoFile(path, by_id["images"], annotations, by_id["categories"], findings)


def _part(path: str, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = content.get(key) or []
    if not isinstance(records, list) or not all(type(record) is dict for record in records):
        raise ValueError(f"{path}: {key!r} must be a list of objects")
    return records


def _check_keys(path: str, part: str, records: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    for key in keys:
        lacking = [i for i, record in enumerate(records) if key not in record]
        if lacking:
            raise ValueError(
                f"{path}: {len(lacking)} of {len(records)} {part} have no {key!r}, "
                f"first {part}[{lacking[0]}]: {str(records[lacking[0]])[:200]}"
            )


def _check_unique(path: str, part: str, records: list[dict[str, Any]]) -> None:
    ids = [record["id"] for record in records]
    strange = next((i for i in ids if type(i) not in (int, str)), None)
    if strange is not None or len({type(i) for i in ids}) > 1:
        raise ValueError(
            f"{path}: ids of {part} must all be integers, or all strings; "
            f"got {strange if strange is not None else [*set(map(type, ids))]}"
        )
    number = len(set(ids))
    if number != len(ids):
        seen: set[Any] = set()
        repeated = next(i for i in ids if i in seen or seen.add(i))
        raise ValueError(
            f"{path}: ids of {part} must be unique, but {len(ids)} have {number} ids; "
            f"first repeated: {repeated}"
        )


def _check_image(path: str, image: dict[str, Any], name_key: str) -> None:
    sides = (image["height"], image["width"])
    if not all(type(side) in (int, float) and side > 0 for side in sides):
        raise ValueError(
            f"{path}: image {image['id']}: height and width must be positive, got {sides}"
        )
    if not isinstance(image[name_key], str):
        raise ValueError(
            f"{path}: image {image['id']}: {name_key!r} must be a string, got {image[name_key]!r}"
        )


def _by_image(
    path: str,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    findings: Findings,
) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for i, annotation in enumerate(annotations):
        image_id = annotation["image_id"]
        if isinstance(image_id, (dict, list)):
            raise ValueError(f"{path}: annotations[{i}]: 'image_id' must be an id, got {image_id}")
        groups.setdefault(image_id, []).append(annotation)
    known = {image["id"] for image in images}
    for image_id in groups.keys() - known:
        strays = groups.pop(image_id)
        findings.add(
            "annotations left out, as the file does not list their images",
            f"annotation {strays[0].get('id')} of image {image_id!r}",
            len(strays),
        )
    return groups
