"""Datasets, and what makes batches of them."""

from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]
