"""Drawings of annotations, to look at."""

import os
from typing import Any

from detectron2.data.catalog import Metadata


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
