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
        return [
            {"instances": instances, "sem_seg": of_image[:, : image.shape[1], : image.shape[2]]}
            for instances, of_image, image in zip(
                detections, logits, [x["image"] for x in batched_inputs], strict=True
            )
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
