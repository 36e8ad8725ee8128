"""Transforms of images and their annotations, and augmentations that make them."""
