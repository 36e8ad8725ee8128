"""Registration of a loader and metadata under one name."""

import functools
import os
from collections.abc import Callable
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog


def register(
    name: str,
    loader: "functools.partial[Any]",
    metadata: dict[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Register a data set and set its metadata, both or neither.

    Registering the same function with the same arguments again changes nothing.

    Args:
        name: of the data set.
        loader: a function with its arguments.
        metadata: attributes to set.
        overwrite: replace the loader and all metadata that are there under this name.

    Raises:
        AssertionError: the name is taken by another data set, or has other metadata.
    """
    is_there = name in DatasetCatalog and _is_same(DatasetCatalog[name], loader)
    if overwrite and name in MetadataCatalog:
        # The object stays: others may hold it.
        attributes = vars(MetadataCatalog.get(name))
        attributes.clear()
        attributes["name"] = name
    if overwrite or not is_there:
        DatasetCatalog.register(name, loader, overwrite=overwrite)
    try:
        MetadataCatalog.get(name).set(**metadata)
    except AssertionError:
        if not is_there:
            DatasetCatalog.remove(name)
        raise


def register_annotation_file(
    name: str,
    load: Callable[[str, str, str], list[dict[str, Any]]],
    json_file: str,
    image_root: str,
    evaluator_type: str,
    metadata: dict[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Register a data set of a file with annotations, as :func:`register` does.

    Args:
        name: of the data set.
        load: makes records of the file, the images' folder and the data set's name.
        json_file: the annotations.
        image_root: the folder of the images.
        evaluator_type: of the metadata.
        metadata: further attributes to set, which take precedence.
        overwrite: see there.
    """
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    register(
        name,
        functools.partial(load, json_file, image_root, name),
        {
            "json_file": json_file,
            "image_root": image_root,
            "evaluator_type": evaluator_type,
            **metadata,
        },
        overwrite=overwrite,
    )


def _is_same(one: Any, other: "functools.partial[Any]") -> bool:
    return isinstance(one, functools.partial) and (one.func, one.args, one.keywords) == (
        other.func,
        other.args,
        other.keywords,
    )
