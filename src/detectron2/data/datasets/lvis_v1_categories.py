"""The categories of LVIS v1."""

from typing import Any

from detectron2.data.datasets._lvis_table import lvis_categories

LVIS_CATEGORIES: list[dict[str, Any]] = lvis_categories(column=0)
"""Dicts of ``id``, ``name``, ``synset``, ``synonyms`` and ``frequency``, by ``id``."""
