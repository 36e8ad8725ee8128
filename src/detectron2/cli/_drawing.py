"""Predictions drawn over their images."""

from __future__ import annotations

from typing import Any

import numpy as np


class Drawer:
    """Draws what a model says about an image, or about one frame of a video after another."""

    def __init__(self, metadata: Any, *, is_video: bool, scale: float = 1.0) -> None:
        """
        Args:
            metadata: of the data set whose classes the model knows.
            is_video: the images are consecutive frames.
            scale: of the drawn images; frames keep their size.
        """
        from detectron2.utils.video_visualizer import VideoVisualizer

        self._metadata = metadata
        self._scale = scale
        # It gives an object the same colour in all frames.
        self._video = VideoVisualizer(metadata) if is_video else None

    def draw(self, image: np.ndarray, prediction: dict[str, Any]) -> Any:
        """Draw panoptic segments if there are any, else semantic ones, and instances.

        Args:
            image: (H, W, 3) uint8, RGB.
            prediction: on the CPU; what a model returns for an image.

        Returns:
            A VisImage.
        """
        if self._video is not None:
            return self._draw_frame(image, prediction)
        from detectron2.utils.visualizer import Visualizer

        visualizer = Visualizer(image, self._metadata, scale=self._scale)
        if "panoptic_seg" in prediction:
            return visualizer.draw_panoptic_seg(*prediction["panoptic_seg"])
        if "sem_seg" in prediction:
            visualizer.draw_sem_seg(prediction["sem_seg"].argmax(dim=0))
        if "instances" in prediction:
            visualizer.draw_instance_predictions(prediction["instances"])
        return visualizer.output

    def _draw_frame(self, image: np.ndarray, prediction: dict[str, Any]) -> Any:
        if "panoptic_seg" in prediction:
            return self._video.draw_panoptic_seg_predictions(image, *prediction["panoptic_seg"])
        if "sem_seg" in prediction:
            return self._video.draw_sem_seg(image, prediction["sem_seg"].argmax(dim=0))
        return self._video.draw_instance_predictions(image, prediction["instances"])
