"""Predictions for images as they come from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class DefaultPredictor:
    """Predictions for images as they come from a file, on one device, without a data set.

    It loads ``cfg.MODEL.WEIGHTS``, resizes images as the configuration says for testing, and
    converts them to the configured colour order.

    Attributes:
        cfg: a copy of the configuration.
        model: in evaluation mode.
        aug: the resizing.
        input_format: ``"RGB"`` or ``"BGR"``, what the model takes.
        metadata: of the first data set in ``cfg.DATASETS.TEST``; missing if there is none.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of a model that takes BGR or RGB images.

        Raises:
            ValueError: the model takes another format.
        """
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model

        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise ValueError(
                f'DefaultPredictor needs INPUT.FORMAT "RGB" or "BGR", not {cfg.INPUT.FORMAT!r}'
            )
        self.cfg = cfg.clone()
        self.model = build_model(self.cfg)
        self.model.eval()
        if cfg.DATASETS.TEST:
            from detectron2.data import MetadataCatalog

            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        self._load(cfg.MODEL.WEIGHTS)
        self.aug = ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )
        self.input_format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray | Sequence[np.ndarray]) -> Any:
        """Predict.

        Args:
            original_image: (H, W, 3) uint8, BGR whatever the model takes; or a list of such
                images, of any sizes, which go through the model as one batch.

        Returns:
            What the model returns for the image, at the image's own size; for a list, a list of
            that.

        Raises:
            ValueError: an image has another shape.
        """
        if isinstance(original_image, np.ndarray):
            return self.model([self._prepare(original_image)])[0]
        images = list(original_image)
        return self.model([self._prepare(image) for image in images]) if images else []

    def _load(self, weights: str) -> None:
        from detectron2.checkpoint import DetectionCheckpointer

        DetectionCheckpointer(self.model).load(weights)

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must have the shape (H, W, 3), not {image.shape}")
        height, width = image.shape[:2]
        if self.input_format == "RGB":
            image = image[:, :, ::-1]
        resized = self.aug.get_transform(image).apply_image(image)
        # Channels first; made contiguous while it is still bytes.
        pixels = np.ascontiguousarray(resized.transpose(2, 0, 1)).astype("float32")
        tensor = torch.as_tensor(pixels, device=self.cfg.MODEL.DEVICE)
        return {"image": tensor, "height": height, "width": width}
