"""What detectors have in common that predict at every location of their feature maps."""

from typing import Any

import numpy as np
import torch
from torch import nn

# Code written for upstream imports some of these names from here.
from detectron2.layers import move_device_like
from detectron2.modeling._graph_replay import ReplayedModel
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.meta_arch._images import (
    ground_truth,
    move_like,
    normalized_batch,
    output_size,
    pixel_statistic,
)
from detectron2.modeling.postprocessing import detector_postprocess, detector_postprocess_batch
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils.events import get_event_storage

__all__ = [
    "Boxes",
    "DenseDetector",
    "detector_postprocess",
    "move_device_like",
    "permute_to_N_HWA_K",
]

# Of the data package, which inference does without.
__getattr__ = lazy_attributes(__name__, {"convert_image_to_rgb": "detectron2.data.detection_utils"})

# Detections that are drawn of an image.
_SHOWN_DETECTIONS = 20


def permute_to_N_HWA_K(tensor: torch.Tensor, K: int) -> torch.Tensor:  # noqa: N802, N803
    """Put predictions into the order of the anchors: ``(N, A * K, H, W)`` to ``(N, H * W * A, K)``.

    Args:
        tensor: predictions, those of an anchor one after the other.
        K: predictions an anchor.
    """
    assert tensor.dim() == 4, f"predictions must be (N, A * K, H, W), got {list(tensor.shape)}"
    by_anchor = tensor.unflatten(1, [tensor.shape[1] // K, K])
    return by_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3)


class DenseDetector(ReplayedModel):
    """A backbone, and a head that predicts for each of the anchors on its feature maps.

    Subclasses define :meth:`forward_training` and ``forward_inference(images, features,
    predictions)``, which gives Instances for each image.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str] | None = None,
        *,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        """Args:
        backbone: makes feature maps of a batch of images.
        head: called with a list of feature maps; gives tuples of lists of predictions.
        head_in_features: names of the feature maps that the head takes; None: all, from the
            finest to the coarsest.
        pixel_mean: of each channel, what is subtracted.
        pixel_std: of each channel, what is divided by.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        if head_in_features is None:
            shapes = backbone.output_shape()
            head_in_features = sorted(shapes, key=lambda name: shapes[name].stride)
        self.head_in_features = list(head_in_features)
        self.register_buffer("pixel_mean", pixel_statistic(pixel_mean), persistent=False)
        self.register_buffer("pixel_std", pixel_statistic(pixel_std), persistent=False)

    @property
    def device(self):  # Without a type, which TorchScript would not find.
        """Where the model, and with it the input, is."""
        return self.pixel_mean.device

    def _move_to_current_device(self, x: torch.Tensor) -> torch.Tensor:
        return move_like(x, self.pixel_mean)

    # Without a return type: TorchScript takes the one of the branch that it compiles.
    def forward(self, batched_inputs: list[dict[str, torch.Tensor]]):
        """Detect, or compute losses.

        Args:
            batched_inputs: a dict for each image, with ``image``, ``(C, H, W)`` with values in
                [0, 255]; optionally ``height`` and ``width``, the size of the output; in training
                ``instances``, the ground truth.

        Returns:
            In training losses by name; otherwise for each image ``{"instances": Instances}``. A
            script returns the Instances themselves, in the pixels of the input.
        """
        images = self.preprocess_image(batched_inputs)
        if not torch.jit.is_scripting() and not self.training:
            replayed = self._replayed(images)
            if replayed is not None:
                return self._postprocess(replayed, batched_inputs, images)
        features = self.backbone(images.tensor)
        maps = [features[name] for name in self.head_in_features]
        predictions = self.head(maps)
        if not torch.jit.is_scripting() and self.training:
            return self._losses(batched_inputs, images, maps, predictions)
        results = self.forward_inference(images, maps, predictions)
        if torch.jit.is_scripting():
            return results
        else:  # TorchScript leaves out what is in this branch.
            return self._postprocess(results, batched_inputs, images)

    @torch.jit.unused
    def _postprocess(
        self, results: list[Instances], batched_inputs: Any, images: Any
    ) -> list[dict[str, Instances]]:
        """Results in the size that each input asks for."""
        sizes = [
            output_size(x, size) for x, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        return [{"instances": x} for x in detector_postprocess_batch(results, sizes)]

    @torch.jit.unused
    def _replayed(self, images: Any) -> list[Instances] | None:
        """What ``forward_inference`` gives, by a CUDA graph; None if there is none."""
        return None

    @torch.jit.unused
    def _losses(
        self, batched_inputs: Any, images: Any, features: Any, predictions: Any
    ) -> dict[str, torch.Tensor]:
        gt_instances = ground_truth(batched_inputs, self.device)
        assert gt_instances is not None, (
            f"training needs 'instances' in the input, got {sorted(batched_inputs[0])}"
        )
        return self.forward_training(images, features, predictions, gt_instances)

    @torch.jit.unused
    def forward_training(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: list[list[torch.Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """Compute losses, by name.

        Args:
            images: N images.
            features: of each level, ``(N, C, H_i, W_i)``.
            predictions: what the head gives of them.
            gt_instances: of each image, with ``gt_boxes`` and ``gt_classes``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward_training")

    def preprocess_image(self, batched_inputs: list[dict[str, torch.Tensor]]) -> ImageList:
        """Normalise and pad the images of a batch, on the model's device."""
        images = [self._move_to_current_device(x["image"]) for x in batched_inputs]
        return normalized_batch(
            images,
            self.pixel_mean,
            self.pixel_std,
            self.backbone.size_divisibility,
            self.backbone.padding_constraints,
        )

    def _transpose_dense_predictions(
        self, predictions: list[list[torch.Tensor]], dims_per_anchor: list[int]
    ) -> list[list[torch.Tensor]]:
        """Each kind of prediction in the order of the anchors, see :func:`permute_to_N_HWA_K`."""
        assert len(predictions) == len(dims_per_anchor), (
            f"the head gave {len(predictions)} kinds of predictions, not {len(dims_per_anchor)}"
        )
        results: list[list[torch.Tensor]] = []
        for of_levels, dims in zip(predictions, dims_per_anchor):  # noqa: B905
            results.append([permute_to_N_HWA_K(x, dims) for x in of_levels])
        return results

    @torch.jit.unused
    def _ema_update(
        self, name: str, value: Any, initial_value: float, momentum: float = 0.9
    ) -> Any:
        """Update the moving average that is kept as the attribute ``name``, and return it.

        Args:
            name: of the attribute, which is not part of the state dict.
            value: a number, or a tensor of one, on whose device the average then stays.
            initial_value: the average before the first update.
            momentum: weight of the old average.
        """
        average = getattr(self, name, initial_value)
        if isinstance(average, torch.Tensor) and isinstance(value, torch.Tensor):
            average = average.to(value.device)
        average = average * momentum + value * (1 - momentum)
        setattr(self, name, average)
        return average

    @torch.jit.unused
    def visualize_training(
        self, batched_inputs: list[dict[str, Any]], results: list[Instances]
    ) -> None:
        """Put an image of the ground truth and of the best detections of the first input.

        Args:
            batched_inputs: as for :meth:`forward`, with ``instances``.
            results: detections of each image, in the pixels of the input.
        """
        from detectron2.data.detection_utils import convert_image_to_rgb
        from detectron2.utils.visualizer import Visualizer

        assert len(batched_inputs) == len(results), (
            f"got {len(batched_inputs)} images and results of {len(results)}"
        )
        sample = batched_inputs[0]
        image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), self.input_format)
        gt = Visualizer(image, None).overlay_instances(boxes=sample["instances"].gt_boxes)
        height, width = image.shape[:2]
        detections = detector_postprocess(results[0], height, width)
        boxes = detections.pred_boxes.tensor[:_SHOWN_DETECTIONS].detach().cpu().numpy()
        predicted = Visualizer(image, None).overlay_instances(boxes=boxes)
        both = np.concatenate([gt.get_image(), predicted.get_image()], axis=0)
        name = f"Top: GT bounding boxes; Bottom: {_SHOWN_DETECTIONS} Highest Scoring Results"
        get_event_storage().put_image(name, both.transpose(2, 0, 1))
