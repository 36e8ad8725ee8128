"""From a record of a dataset to a sample that models take."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.transforms.transform import Transform

from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T  # noqa: N812
from detectron2.data._annotations import transform_annotations
from detectron2.data._image_files import read_sem_seg

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Reads the image of a record, augments it, and moves its annotations along.

    It is called with a record in the standard format, which it leaves as it is, and returns a copy
    with what models take:

    - "image": ``(C, H, W)``, uint8 or what the augmentations make of it;
    - "sem_seg": int64 ``(H, W)``, if the record has "sem_seg_file_name";
    - "instances": :class:`Instances` with ``gt_boxes``, ``gt_classes``, ``gt_masks`` and
      ``gt_keypoints``, in training and if the record has "annotations". Crowds, and instances of
      which nothing is left in the image, are left out;
    - "proposals": :class:`Instances` with ``proposal_boxes`` and ``objectness_logits``, if they
      are asked for.

    Errors tell the image file and its id, those of an annotation also its number.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
        use_rotated_boxes: bool = False,
    ) -> None:
        """
        Args:
            is_train: whether annotations are needed.
            augmentations: applied one after another.
            image_format: see :func:`~detectron2.data.detection_utils.read_image`.
            use_instance_mask: give masks.
            use_keypoint: give keypoints.
            instance_mask_format: "polygon" or "bitmask".
            keypoint_hflip_indices: see
                :func:`~detectron2.data.detection_utils.create_keypoint_hflip_indices`.
            precomputed_proposal_topk: give so many of the record's proposals; None gives none.
            recompute_boxes: take boxes around the augmented masks instead of the augmented boxes,
                which are too large after a crop. Needs masks.
            use_rotated_boxes: give :class:`RotatedBoxes`, without masks and keypoints; annotations
                may have boxes of any mode.

        Raises:
            ValueError: ``recompute_boxes`` without masks, or of rotated boxes.
        """
        if recompute_boxes and (use_rotated_boxes or not use_instance_mask):
            raise ValueError("recompute_boxes needs use_instance_mask, and no use_rotated_boxes")
        self.is_train = is_train
        self.image_format = image_format
        self.augmentations = T.AugmentationList(augmentations)
        self.proposal_topk = precomputed_proposal_topk
        self.use_rotated_boxes = use_rotated_boxes
        self.recompute_boxes = recompute_boxes
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.use_keypoint = use_keypoint
        self.keypoint_hflip_indices = keypoint_hflip_indices
        logging.getLogger(__name__).info(
            "Augmentations of %s: %s", "training" if is_train else "inference", augmentations
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The arguments that ``cfg`` asks for.

        The augmentations are those of ``build_augmentation``, in training after a crop if
        ``INPUT.CROP.ENABLED``; boxes are recomputed then if there are masks.
        """
        augmentations = utils.build_augmentation(cfg, is_train)
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        arguments = {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
            "use_rotated_boxes": cfg.MODEL.ANCHOR_GENERATOR.NAME == "RotatedAnchorGenerator",
        }
        if cfg.MODEL.KEYPOINT_ON:
            arguments["keypoint_hflip_indices"] = utils.create_keypoint_hflip_indices(
                cfg.DATASETS.TRAIN
            )
        if cfg.MODEL.LOAD_PROPOSALS:
            topk = "TRAIN" if is_train else "TEST"
            arguments["precomputed_proposal_topk"] = cfg.DATASETS[
                f"PRECOMPUTED_PROPOSAL_TOPK_{topk}"
            ]
        return arguments

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Transform, image_shape: tuple[int, int]
    ) -> None:
        """Replace "annotations" by "instances"."""
        annotations = {}
        for index, annotation in enumerate(dataset_dict.pop("annotations")):
            if annotation.get("iscrowd", 0) != 0:
                continue
            if not self.use_instance_mask:
                annotation.pop("segmentation", None)
            if not self.use_keypoint:
                annotation.pop("keypoints", None)
            annotations[index] = annotation
        transform_annotations(
            annotations,
            transforms,
            image_shape,
            keypoint_hflip_indices=self.keypoint_hflip_indices,
            rotated_boxes=self.use_rotated_boxes,
        )
        kept = list(annotations.values())
        if self.use_rotated_boxes:
            instances = utils.annotations_to_instances_rotated(kept, image_shape)
        else:
            instances = utils.annotations_to_instances(
                kept, image_shape, mask_format=self.instance_mask_format
            )
        if self.recompute_boxes and instances.has("gt_masks"):
            # The box of a crop of a box is larger than that of the object's part in the crop.
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The sample of a record; see the class."""
        return self._augment(self._read(dataset_dict))

    __call__.stages = ("_read", "_augment")  # See MapDataset.read.

    def _read(self, dataset_dict: dict[str, Any]) -> _ReadRecord:
        record = _copy_record(dataset_dict, with_annotations=self.is_train)
        image = utils.read_image(record["file_name"], format=self.image_format)
        utils.check_image_size(record, image)
        sem_seg = None
        if "sem_seg_file_name" in record:
            sem_seg = read_sem_seg(record.pop("sem_seg_file_name"))
            if sem_seg.shape != image.shape[:2]:
                raise utils.SizeMismatchError(
                    f"the semantic segmentation of {utils.describe_record(record)} is "
                    f"{sem_seg.shape}, but the image is {image.shape[:2]} (height, width)"
                )
        return _ReadRecord(record, image, sem_seg)

    def _augment(self, read: _ReadRecord) -> dict[str, Any]:
        try:
            return self._augment_record(*read)
        except ValueError as error:
            raise ValueError(f"{utils.describe_record(read.record)}: {error}") from error
        except Exception as error:
            # Of an augmentation, say: another type would be a surprise.
            error.add_note(f"The record is that of {utils.describe_record(read.record)}.")
            raise

    def _augment_record(
        self, record: dict[str, Any], image: np.ndarray, sem_seg: np.ndarray | None
    ) -> dict[str, Any]:
        inputs = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(inputs)
        image_shape = inputs.image.shape[:2]
        record["image"] = to_chw(inputs.image)
        if inputs.sem_seg is not None:
            record["sem_seg"] = torch.from_numpy(inputs.sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            utils.transform_proposals(
                record, image_shape, transforms, proposal_topk=self.proposal_topk
            )
        if "annotations" in record:
            self._transform_annotations(record, transforms, image_shape)
        return record


class _ReadRecord(NamedTuple):
    record: dict[str, Any]
    image: np.ndarray
    sem_seg: np.ndarray | None


def _copy_record(record: dict[str, Any], with_annotations: bool) -> dict[str, Any]:
    """A copy that may be changed, but for the insides of polygons and RLEs, which are many, and
    which nothing changes."""
    result = {
        key: copy.deepcopy(value)
        for key, value in record.items()
        if key not in ("annotations", "proposal_boxes", "proposal_objectness_logits")
    }
    for key in ("proposal_boxes", "proposal_objectness_logits"):
        if key in record:
            result[key] = record[key]
    if with_annotations and "annotations" in record:
        result["annotations"] = [
            {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in annotation.items()}
            for annotation in record["annotations"]
        ]
    return result


def to_chw(image: np.ndarray) -> torch.Tensor:
    """An image ``(H, W, C)`` or ``(H, W)`` as a new contiguous tensor ``(C, H, W)``."""
    image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    result = np.empty(image.shape, image.dtype)
    np.copyto(result, image)
    return torch.from_numpy(result)
