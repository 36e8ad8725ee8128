"""What exported detectors compute: predictions in the pixels of the input, before post-processing.

Post-processing depends on the size of the output and makes masks of the size of the image.
"""

from typing import Any

import torch
from torch import nn

from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN


def predictions(model: nn.Module, batched_inputs: list[dict[str, torch.Tensor]]) -> Any:
    """Predict.

    Args:
        model: a meta-architecture.
        batched_inputs: as for its ``forward``, with tensors only.

    Returns:
        For each image ``{"instances": Instances}``, with ``pred_masks`` as probabilities relative
        to the boxes; of a `PanopticFPN` with ``sem_seg``, logits ``(K, H, W)`` of the image, too.
        Of another model what it returns.
    """
    if isinstance(model, PanopticFPN):
        detections, logits = model.inference(batched_inputs, do_postprocess=False)
        images = [sample["image"] for sample in batched_inputs]
        return [
            {"instances": instances, "sem_seg": _cropped(of_image, image)}
            for instances, of_image, image in zip(detections, logits, images, strict=True)
        ]
    if isinstance(model, GeneralizedRCNN):
        detections = model.inference(batched_inputs, do_postprocess=False)
        return [{"instances": instances} for instances in detections]
    if isinstance(model, DenseDetector):
        images = model.preprocess_image(batched_inputs)
        features = model.backbone(images.tensor)
        maps = [features[name] for name in model.head_in_features]
        detections = model.forward_inference(images, maps, model.head(maps))
        return [{"instances": instances} for instances in detections]
    return model(batched_inputs)


def _cropped(logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Logits of the padded image without the padding."""
    # Not by slices: a graph would hold for images with padding only, or for those without.
    rows = torch.arange(image.shape[1], device=logits.device)
    columns = torch.arange(image.shape[2], device=logits.device)
    return logits.index_select(1, rows).index_select(2, columns)
