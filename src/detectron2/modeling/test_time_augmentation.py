"""Detection in several sizes of an image, and mirrored, whose results are merged."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.config.config import CfgNode, configurable
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils._lazy import lazy_attributes

__all__ = ["DatasetMapperTTA", "GeneralizedRCNNWithTTA"]

_TRANSFORMS = "detectron2.data.transforms"

# Of the data package, which the models do without.
__getattr__ = lazy_attributes(
    __name__,
    {
        "RandomFlip": _TRANSFORMS,
        "ResizeShortestEdge": _TRANSFORMS,
        "ResizeTransform": _TRANSFORMS,
        "apply_augmentations": _TRANSFORMS,
        "read_image": "detectron2.data.detection_utils",
    },
)

# So low that it leaves out what has no score at all.
_SCORE_THRESH = 1e-8


class DatasetMapperTTA:
    """Makes an image's augmented versions: each size, and, with ``flip``, each also mirrored."""

    @configurable
    def __init__(self, min_sizes: list[int], max_size: int, flip: bool) -> None:
        """
        Args:
            min_sizes: lengths of the shorter side.
            max_size: the longer side's length at most.
            flip: whether to mirror, too.
        """
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        aug = cfg.TEST.AUG
        return {"min_sizes": aug.MIN_SIZES, "max_size": aug.MAX_SIZE, "flip": aug.FLIP}

    def __call__(self, dataset_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """Augment.

        Args:
            dataset_dict: ``image``, ``(C, H, W)``; ``height`` and ``width`` of the original.

        Returns:
            A dict for each version: a copy with another ``image``, and ``transforms``, which lead
            from the original to it.
        """
        from detectron2.data.transforms import (
            RandomFlip,
            ResizeShortestEdge,
            ResizeTransform,
            apply_augmentations,
        )

        image = dataset_dict["image"].permute(1, 2, 0).cpu().numpy()
        size = image.shape[:2]
        original_size = (dataset_dict["height"], dataset_dict["width"])
        to_given: Transform = NoOpTransform()
        if size != original_size:
            to_given = ResizeTransform(*original_size, *size)

        others = {name: value for name, value in dataset_dict.items() if name != "image"}
        versions = []
        for min_size in self.min_sizes:
            resize = ResizeShortestEdge(min_size, self.max_size)
            augmentations = [[resize]]
            if self.flip:
                augmentations.append([resize, RandomFlip(prob=1.0)])
            for augmentation in augmentations:
                augmented, transforms = apply_augmentations(augmentation, image.copy())
                version = copy.deepcopy(others)
                version["image"] = torch.from_numpy(
                    np.ascontiguousarray(augmented.transpose(2, 0, 1))
                )
                version["transforms"] = to_given + transforms
                versions.append(version)
        return versions


class GeneralizedRCNNWithTTA(nn.Module):
    """A :class:`GeneralizedRCNN` that is applied to several versions of each image.

    Boxes of all versions go through NMS together; masks are averages over the versions.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        tta_mapper: Any = None,
        batch_size: int = 3,
    ) -> None:
        """
        Args:
            cfg: the model's, of which thresholds, the number of classes and, without
                ``tta_mapper``, ``TEST.AUG`` are used.
            model: a :class:`GeneralizedRCNN`, or one that is distributed.
            tta_mapper: gives, of a dict with an image, its versions, as
                :class:`DatasetMapperTTA` does.
            batch_size: versions that are put through the model at a time.

        Raises:
            ValueError: a model of another kind, with keypoints, or with given proposals.
        """
        super().__init__()
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not isinstance(model, GeneralizedRCNN):
            raise ValueError(
                f"test-time augmentation is for GeneralizedRCNN, got {type(model).__name__}"
            )
        self.cfg = cfg.clone()
        if self.cfg.MODEL.KEYPOINT_ON:
            raise ValueError("test-time augmentation has no keypoints, got MODEL.KEYPOINT_ON=True")
        if self.cfg.MODEL.LOAD_PROPOSALS:
            raise ValueError(
                "test-time augmentation has no given proposals, got MODEL.LOAD_PROPOSALS=True"
            )
        self.model = model
        self.tta_mapper = DatasetMapperTTA(cfg) if tta_mapper is None else tta_mapper
        self.batch_size = batch_size

    @contextmanager
    def _turn_off_roi_heads(self, attrs: list[str]) -> Iterator[None]:
        """Set attributes of the RoI heads, such as ``mask_on``, to False meanwhile."""
        heads = self.model.roi_heads
        before = {name: getattr(heads, name) for name in attrs if hasattr(heads, name)}
        try:
            for name in before:
                setattr(heads, name, False)
            yield
        finally:
            for name, value in before.items():
                setattr(heads, name, value)

    def _batch_inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
    ) -> list[Instances]:
        """``model.inference`` of any number of inputs, some at a time, without post-processing."""
        outputs = []
        for start in range(0, len(batched_inputs), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            given = None if detected_instances is None else detected_instances[chunk]
            outputs.extend(self.model.inference(batched_inputs[chunk], given, do_postprocess=False))
        return outputs

    # Transforms take arrays, which have no gradient.
    @torch.no_grad()
    def __call__(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect, as :meth:`GeneralizedRCNN.forward` does, but without gradients.

        Args:
            batched_inputs: as there; without ``image`` it is read from ``file_name``.
        """
        return [self._inference_one_image(self._with_image(x)) for x in batched_inputs]

    def _with_image(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample = dict(sample)
        if "image" not in sample:
            from detectron2.data.detection_utils import read_image

            image = read_image(sample.pop("file_name"), self.model.input_format)
            sample["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if "height" not in sample and "width" not in sample:
            sample["height"], sample["width"] = sample["image"].shape[1:]
        return sample

    def _inference_one_image(self, input: dict[str, Any]) -> dict[str, Instances]:
        size = (input["height"], input["width"])
        augmented_inputs, tfms = self._get_augmented_inputs(input)
        with self._turn_off_roi_heads(["mask_on", "keypoint_on"]):
            boxes, scores, classes = self._get_augmented_boxes(augmented_inputs, tfms)
        merged = self._merge_detections(boxes, scores, classes, size)
        if self.cfg.MODEL.MASK_ON:
            rescaled = self._rescale_detected_boxes(augmented_inputs, merged, tfms)
            outputs = self._batch_inference(augmented_inputs, rescaled)
            merged.pred_masks = self._reduce_pred_masks(outputs, tfms)
            merged = detector_postprocess(merged, *size)
        return {"instances": merged}

    def _get_augmented_inputs(
        self, input: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[Any]]:
        """The versions of an image, and for each what leads from the original to it."""
        versions = self.tta_mapper(input)
        return versions, [version.pop("transforms") for version in versions]

    def _get_augmented_boxes(
        self, augmented_inputs: list[dict[str, Any]], tfms: list[Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Detections of all versions together: boxes ``(N, 4)`` in the original image, scores and
        classes ``(N,)``."""
        outputs = self._batch_inference(augmented_inputs)
        boxes = torch.cat([x.pred_boxes.tensor for x in outputs])
        by_version = np.split(boxes.cpu().numpy(), np.cumsum([len(x) for x in outputs])[:-1])
        original = np.concatenate(
            [t.inverse().apply_box(b) for t, b in zip(tfms, by_version, strict=True)]
        )
        return (
            torch.from_numpy(original).to(boxes.device),
            torch.cat([x.scores for x in outputs]),
            torch.cat([x.pred_classes for x in outputs]),
        )

    def _merge_detections(
        self,
        all_boxes: torch.Tensor,
        all_scores: torch.Tensor,
        all_classes: torch.Tensor,
        shape_hw: tuple[int, int],
    ) -> Instances:
        """NMS of what :meth:`_get_augmented_boxes` returned, in an image of (height, width)."""
        num_classes = self.cfg.MODEL.ROI_HEADS.NUM_CLASSES
        scores = all_scores.new_zeros((len(all_boxes), num_classes + 1))
        scores.scatter_(1, all_classes[:, None], all_scores[:, None])
        merged, _ = fast_rcnn_inference_single_image(
            all_boxes,
            scores,
            shape_hw,
            _SCORE_THRESH,
            self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return merged

    def _rescale_detected_boxes(
        self,
        augmented_inputs: list[dict[str, Any]],
        merged_instances: Instances,
        tfms: list[Any],
    ) -> list[Instances]:
        """The merged detections in each version of the image."""
        boxes = merged_instances.pred_boxes.tensor
        boxes_on_host = boxes.cpu().numpy()
        rescaled = []
        for version, transform in zip(augmented_inputs, tfms, strict=True):
            of_version = torch.from_numpy(transform.apply_box(boxes_on_host)).to(boxes.device)
            rescaled.append(
                Instances(
                    tuple(version["image"].shape[1:3]),
                    pred_boxes=Boxes(of_version),
                    pred_classes=merged_instances.pred_classes,
                    scores=merged_instances.scores,
                )
            )
        return rescaled

    def _reduce_pred_masks(self, outputs: list[Instances], tfms: list[Any]) -> torch.Tensor:
        """The averages, ``(N, 1, M, M)``, of the masks of all versions, turned back."""
        masks = [
            output.pred_masks.flip(dims=[3]) if _mirrors(transform) else output.pred_masks
            for output, transform in zip(outputs, tfms, strict=True)
        ]
        return torch.stack(masks).mean(dim=0)


def _mirrors(transform: Any) -> bool:
    return sum(isinstance(t, HFlipTransform) for t in transform.transforms) % 2 == 1
