"""Data sets and modules that the command line names."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from detectron2.cli._errors import UsageError


def prepare(args: argparse.Namespace) -> list[ModuleType]:
    """Do what ``--import`` and ``--dataset`` ask for; returns the imported modules."""
    modules = []
    for name in args.modules:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            raise UsageError(f"--import {name}: {error}") from error
    for text in getattr(args, "datasets", ()):
        _register(text)
    return modules


def config_functions(modules: list[ModuleType]) -> list[Callable[[Any], None]]:
    """The functions ``add_…_config`` of modules, which add keys to a configuration."""
    return [
        function
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("add_") and name.endswith("_config") and callable(function)
    ]


def _register(text: str) -> None:
    from detectron2.data.datasets import register_coco_instances
    from detectron2.data.shapes import register_shapes

    name, _, path = text.partition("=")
    if not name or not path:
        raise UsageError(f"--dataset {text}: write NAME=PATH")
    try:
        if os.path.isdir(path):
            register_shapes(name, path)
            return
        file, _, images = path.partition(":")
        if not os.path.isfile(file):
            raise UsageError(f"--dataset {text}: there is no {file}")
        images = images or os.path.join(os.path.dirname(file), "images")
        if not os.path.isdir(images):
            raise UsageError(f"--dataset {text}: there is no folder {images} with the images")
        register_coco_instances(name, {}, file, images)
    except (AssertionError, FileNotFoundError) as error:
        raise UsageError(f"--dataset {text}: {error}") from error


def registered_name(name: str) -> str:
    """``name``, if it is that of a data set."""
    from difflib import get_close_matches

    from detectron2.data import DatasetCatalog

    names = DatasetCatalog.list()
    if name not in names:
        similar = get_close_matches(name, names)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        raise UsageError(
            f"no data set is registered as {name!r}; {hint}--dataset {name}=PATH registers one"
        )
    return name


def check_files(names: Iterable[str]) -> None:
    """Raise a UsageError unless data sets are registered, and what their metadata name is there.

    Of a data set that a training will be evaluated on, that is better told before.
    """
    from detectron2.data import MetadataCatalog
    from detectron2.utils.file_io import PathManager

    for name in names:
        metadata = MetadataCatalog.get(registered_name(name))
        for key in ("json_file", "image_root"):
            path = metadata.get(key)
            if isinstance(path, str) and not PathManager.exists(path):
                raise _not_there(name, path)


def load_records(name: str) -> list[dict[str, Any]]:
    """The records of a data set; its files are there, or a UsageError tells what is not."""
    from detectron2.data import DatasetCatalog

    try:
        return DatasetCatalog.get(registered_name(name))
    except FileNotFoundError as error:
        raise _not_there(name, error.filename or error) from error


def _not_there(name: str, missing: object) -> UsageError:
    return UsageError(
        f"the data set {name} is not there: {missing} is missing; data sets are looked for below "
        "$DETECTRON2_DATASETS (default: datasets), others are given by --dataset"
    )


def metadata_with_classes(name: str) -> Any:
    """The metadata of a data set, with its classes' names where they stand in its file."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None and name in DatasetCatalog:
        file = metadata.get("json_file")
        if file is not None and os.path.exists(file):
            # Reading the annotations sets the names.
            DatasetCatalog.get(name)
    return metadata
