"""Whole models."""

from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model

__all__ = ["META_ARCH_REGISTRY", "build", "build_model"]
