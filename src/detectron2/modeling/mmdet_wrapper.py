"""Backbones and detectors of MMDetection 2, in the interfaces of this library.

The package ``mmdet`` is needed only where a model is given as a configuration of it, and for
masks in training.
"""

import importlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.utils.events import get_event_storage

__all__ = ["MMDetBackbone", "MMDetDetector"]


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here: MMDetection 2 (the package mmdet), see "
            "https://mmdetection.readthedocs.io"
        ) from error


def _build(model: nn.Module | Mapping, kind: str) -> nn.Module:
    """A module as it is; of a configuration, what ``mmdet.models.build_{kind}`` makes."""
    if not isinstance(model, Mapping):
        return model
    from omegaconf import DictConfig, OmegaConf

    if isinstance(model, DictConfig):
        model = OmegaConf.to_container(model, resolve=True)
    # It wants attributes, which dicts do not have.
    config = _import("mmcv.utils").ConfigDict(model)
    return getattr(_import("mmdet.models"), f"build_{kind}")(config)


class MMDetBackbone(Backbone):
    """A backbone of MMDetection, and what it calls a neck.

    Args:
        backbone: maps images to feature maps, a list; a module, or the configuration of one.
        neck: maps those to other feature maps; a module, or the configuration of one.
        output_shapes: of the feature maps.
        output_names: their names; None: ``"out0"``, ``"out1"`` and so on.

    Raises:
        ValueError: there are not as many names as shapes.
    """

    def __init__(
        self,
        backbone: nn.Module | Mapping,
        neck: nn.Module | Mapping | None = None,
        *,
        output_shapes: list[ShapeSpec],
        output_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = _build(backbone, "backbone")
        self.neck = None if neck is None else _build(neck, "neck")
        for module in (self.backbone, self.neck):
            for part in module if isinstance(module, nn.Sequential) else [module]:
                if part is not None and hasattr(part, "init_weights"):
                    part.init_weights()
            if module is not None:
                module.train()  # what freezes stages and norms there
        if output_names is None:
            output_names = [f"out{i}" for i in range(len(output_shapes))]
        if len(output_names) != len(output_shapes):
            raise ValueError(f"got names {output_names} for {len(output_shapes)} outputs")
        self._output_shapes = dict(zip(output_names, output_shapes, strict=True))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, C, H, W)`` to feature maps by name.

        Raises:
            ValueError: there are not as many feature maps as ``output_shapes``.
        """
        features = self.backbone(x)
        if self.neck is not None:
            features = self.neck(features)
        if not isinstance(features, Sequence) or len(features) != len(self._output_shapes):
            count = len(features) if isinstance(features, Sequence) else type(features).__name__
            raise ValueError(f"expected {len(self._output_shapes)} feature maps, got {count}")
        return dict(zip(self._output_shapes, features, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature map, by name."""
        return self._output_shapes


class MMDetDetector(nn.Module):
    """A detector of MMDetection as a meta architecture.

    Args:
        detector: has ``forward_train`` and ``simple_test``; a module, or the configuration of one.
        size_divisibility: what height and width are padded to multiples of.
        pixel_mean: of each channel of the images.
        pixel_std: standard deviation of each channel.
    """

    def __init__(
        self,
        detector: nn.Module | Mapping,
        *,
        size_divisibility: int = 32,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.detector = _build(detector, "detector")
        if hasattr(self.detector, "init_weights"):
            self.detector.init_weights()
        self.size_divisibility = size_divisibility
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        if self.pixel_mean.shape != self.pixel_std.shape:
            raise ValueError(f"got {pixel_mean} and {pixel_std} for mean and deviation")

    @property
    def device(self) -> torch.device:
        """Where the model lies, and images are moved to."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """Detect objects, or in training compute the losses.

        Args:
            batched_inputs: dicts with ``"image"`` ``(C, H, W)``; all or none with ``"height"`` and
                ``"width"``, the size in which results are wanted; in training ``"instances"``.

        Returns:
            In training the losses by name. Otherwise a dict for each image, with ``"instances"``.

        Raises:
            ValueError: some inputs have a wanted size, and some do not.
        """
        images = [
            (sample["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            for sample in batched_inputs
        ]
        batch = ImageList.from_tensors(images, size_divisibility=self.size_divisibility).tensor
        rescales = {"height" in sample for sample in batched_inputs}
        if len(rescales) > 1:
            raise ValueError("either all inputs have a height and width, or none, got some")
        metas = [_meta(sample, batch.shape[-2:]) for sample in batched_inputs]
        if self.training:
            instances = [sample["instances"].to(self.device) for sample in batched_inputs]
            return _losses(self._forward_train(batch, metas, instances))
        results = self.detector.simple_test(batch, metas, rescale=rescales == {True})
        return [
            {"instances": _instances(result, meta["ori_shape"][:2])}
            for result, meta in zip(results, metas, strict=True)
        ]

    def _forward_train(
        self, batch: torch.Tensor, metas: list[dict[str, Any]], instances: list[Instances]
    ) -> dict[str, Any]:
        masks = None
        if instances[0].has("gt_masks"):
            masks = [_masks(x.gt_masks, batch.shape[-2:]) for x in instances]
        return self.detector.forward_train(
            batch,
            metas,
            [x.gt_boxes.tensor for x in instances],
            [x.gt_classes for x in instances],
            gt_masks=masks,
        )


def _meta(sample: dict[str, Any], padded: Sequence[int]) -> dict[str, Any]:
    """What MMDetection wants to know of an image; sizes are (height, width, channels)."""
    channels, height, width = sample["image"].shape
    wanted, scale = (height, width), 1.0
    if "height" in sample:
        wanted = (sample["height"], sample["width"])
        scale = np.array([width / wanted[1], height / wanted[0]] * 2, dtype=np.float32)
    return {
        "img_shape": (height, width, channels),
        "ori_shape": (*wanted, channels),
        "pad_shape": (*padded, channels),
        "scale_factor": scale,
        "flip": False,
    }


def _masks(masks: PolygonMasks | BitMasks, size: Sequence[int]) -> Any:
    """Masks as MMDetection has them, within the padded image."""
    structures = _import("mmdet.core")
    height, width = size
    if isinstance(masks, PolygonMasks):
        return structures.PolygonMasks(masks.polygons, height, width)
    if isinstance(masks, BitMasks):
        below, right = height - masks.tensor.shape[1], width - masks.tensor.shape[2]
        padded = nn.functional.pad(masks.tensor, (0, right, 0, below))
        return structures.BitmapMasks(padded.byte().cpu().numpy(), height, width)
    raise TypeError(f"gt_masks must be PolygonMasks or BitMasks, got {type(masks).__name__}")


def _instances(result: Any, size: tuple[int, int]) -> Instances:
    """Detections of one image from arrays ``(N, 5)``, and masks, of each class."""
    boxes, masks = result if isinstance(result, tuple) else (result, None)
    if isinstance(masks, tuple):  # of Mask Scoring R-CNN, with scores
        masks = masks[0]
    boxes_and_scores = torch.from_numpy(np.concatenate(boxes))
    counts = torch.tensor([len(of_class) for of_class in boxes])
    instances = Instances(size)
    instances.pred_boxes = Boxes(boxes_and_scores[:, :4])
    instances.scores = boxes_and_scores[:, 4]
    instances.pred_classes = torch.arange(len(boxes)).repeat_interleave(counts)
    if masks is not None and len(boxes_and_scores) > 0:
        instances.pred_masks = torch.stack([torch.as_tensor(mask) for mask in chain(*masks)])
    return instances


def _losses(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The losses among ``values``, lists summed up; the others go to the event storage."""
    losses = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            total = value.mean()
        elif isinstance(value, list):
            total = sum(x.mean() for x in value)
        else:
            raise TypeError(f"{name} must be a tensor or a list of them, got {type(value)}")
        if "loss" in name:
            losses[name] = total
        else:
            get_event_storage().put_scalar(name, torch.as_tensor(total).detach())
    return losses
