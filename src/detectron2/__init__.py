"""Object detection and segmentation: models, data, training and evaluation on PyTorch."""

from detectron2.utils.env import setup_environment

__version__ = "0.7.0"

setup_environment()
