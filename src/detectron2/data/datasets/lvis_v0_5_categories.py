"""The categories of LVIS v0.5."""

from typing import Any

from detectron2.data.datasets._lvis_table import lvis_categories

LVIS_CATEGORIES: list[dict[str, Any]] = lvis_categories(column=1)
"""Dicts of ``id``, ``name``, ``synset``, ``synonyms`` and ``frequency``, by ``id``."""
