"""Datasets, and what makes batches of them."""

from detectron2.data import catalog
from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog

# The built-in data sets are registered when this is imported.
from detectron2.data import datasets  # isort: skip

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog", "catalog", "datasets"]
