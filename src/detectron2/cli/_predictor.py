"""Predictions for images of either kind of configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detectron2.cli._config import (
    build_trained_model,
    dataset_names,
    device_of,
    is_lazy,
    weights_of,
)
from detectron2.cli._datasets import metadata_with_classes
from detectron2.cli._errors import UsageError
from detectron2.cli._weights import load_trained
from detectron2.engine import DefaultPredictor

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from detectron2.config import CfgNode


class Predictor(DefaultPredictor):
    """By a configuration of keys; weights of another model are an error."""

    def _load(self, weights: str) -> None:
        load_trained(self.model, weights)


class LazyPredictor:
    """As ``DefaultPredictor``, by the model and the test mapper of a lazy config."""

    def __init__(self, cfg: DictConfig) -> None:
        from omegaconf import OmegaConf

        from detectron2.config import instantiate
        from detectron2.data.transforms import AugmentationList

        mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
        if mapper is None:
            raise UsageError("the configuration has no dataloader.test.mapper to resize images by")
        self._format = mapper.image_format
        self._augmentations = AugmentationList([instantiate(a) for a in mapper.augmentations])
        self._device = device_of(cfg)
        self.model = build_trained_model(cfg)

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Predict for (H, W, 3) uint8 images, BGR."""
        return self.model([self._prepare(image) for image in images])

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        from detectron2.data.transforms import AugInput

        height, width = image.shape[:2]
        if self._format == "RGB":
            image = image[:, :, ::-1]
        input = AugInput(np.ascontiguousarray(image))
        self._augmentations(input)
        pixels = np.ascontiguousarray(input.image.transpose(2, 0, 1)).astype("float32")
        tensor = torch.as_tensor(pixels, device=self._device)
        return {"image": tensor, "height": height, "width": width}


def build_predictor(cfg: CfgNode | DictConfig) -> Any:
    """A function from a list of images to a list of what the model says."""
    if is_lazy(cfg):
        return LazyPredictor(cfg)
    if not weights_of(cfg):
        raise UsageError("no weights: --weights names a checkpoint")
    return Predictor(cfg)


def metadata_of(cfg: CfgNode | DictConfig) -> Any:
    """Metadata of the first data set for testing; empty if there is none."""
    names = dataset_names(cfg, "test")
    return metadata_with_classes(names[0] if names else "__without_metadata")
