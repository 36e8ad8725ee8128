"""Drawings of annotations, to look at."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from detectron2.data.catalog import Metadata, MetadataCatalog


def draw_annotation_file(
    load: Callable[[str, str, str], list[dict[str, Any]]], folder: str, description: str | None
) -> None:
    """Draw what the command line names: an annotation file, the images' folder and a data set.

    Args:
        load: makes records of the three.
        folder: as for :func:`draw_records`.
        description: of the command.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("json_file")
    parser.add_argument("image_root")
    parser.add_argument("dataset_name", help="whose metadata to use")
    arguments = parser.parse_args()
    records = load(arguments.json_file, arguments.image_root, arguments.dataset_name)
    draw_records(records, MetadataCatalog.get(arguments.dataset_name), folder)


def draw_records(records: list[dict[str, Any]], metadata: Metadata, folder: str) -> None:
    """Write each image with its annotations into ``folder``, under its own base name."""
    import numpy as np
    from PIL import Image

    import detectron2.data.datasets  # noqa: F401  # the built-in data sets' metadata
    from detectron2.utils.file_io import PathManager
    from detectron2.utils.visualizer import Visualizer

    os.makedirs(folder, exist_ok=True)
    for record in records:
        with PathManager.open(record["file_name"], "rb") as file:
            image = np.asarray(Image.open(file).convert("RGB"))
        drawing = Visualizer(image, metadata=metadata).draw_dataset_dict(record)
        drawing.save(os.path.join(folder, os.path.basename(record["file_name"])))
