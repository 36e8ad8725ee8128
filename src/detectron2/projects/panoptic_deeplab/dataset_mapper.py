"""From a record of a panoptic data set to a sample that Panoptic-DeepLab is trained on."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform

from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T  # noqa: N812
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator

__all__ = ["PanopticDeeplabDatasetMapper"]


class PanopticDeeplabDatasetMapper:
    """Reads the image and the panoptic annotation of a record, augments both, and makes targets.

    It is called with a record in the standard format, which it leaves as it is, and returns a copy
    with "image", ``(C, H, W)``, and what :class:`PanopticDeepLabTargetGenerator` makes.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation | Transform],
        image_format: str,
        panoptic_target_generator: Callable[[np.ndarray, list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        """
        Args:
            augmentations: applied one after another.
            image_format: see :func:`~detectron2.data.detection_utils.read_image`.
            panoptic_target_generator: makes targets of the ids of each pixel's segment, ``(H, W)``,
                and of "segments_info".
        """
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.panoptic_target_generator = panoptic_target_generator
        logging.getLogger(__name__).info("Augmentations of training: %s", augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments that ``cfg`` asks for.

        Images are resized, cropped if ``INPUT.CROP.ENABLED``, and flipped at random. Classes are
        those of the first data set in ``DATASETS.TRAIN``.
        """
        options = cfg.INPUT
        augmentations: list[T.Augmentation | Transform] = [
            T.ResizeShortestEdge(
                options.MIN_SIZE_TRAIN, options.MAX_SIZE_TRAIN, options.MIN_SIZE_TRAIN_SAMPLING
            )
        ]
        if options.CROP.ENABLED:
            augmentations.append(T.RandomCrop(options.CROP.TYPE, options.CROP.SIZE))
        augmentations.append(T.RandomFlip())
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        generator = PanopticDeepLabTargetGenerator(
            ignore_label=metadata.ignore_label,
            thing_ids=list(metadata.thing_dataset_id_to_contiguous_id.values()),
            sigma=options.GAUSSIAN_SIGMA,
            ignore_stuff_in_offset=options.IGNORE_STUFF_IN_OFFSET,
            small_instance_area=options.SMALL_INSTANCE_AREA,
            small_instance_weight=options.SMALL_INSTANCE_WEIGHT,
            ignore_crowd_in_semantic=options.IGNORE_CROWD_IN_SEMANTIC,
        )
        return {
            "augmentations": augmentations,
            "image_format": options.FORMAT,
            "panoptic_target_generator": generator,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map a record with "file_name", "pan_seg_file_name" and "segments_info"."""
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], self.image_format)
        utils.check_image_size(dataset_dict, image)
        ids = _segment_ids(utils.read_image(dataset_dict.pop("pan_seg_file_name"), "RGB"))
        aug_input = T.AugInput(image, sem_seg=ids)
        self.augmentations(aug_input)
        image = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        dataset_dict["image"] = torch.from_numpy(image)
        targets = self.panoptic_target_generator(aug_input.sem_seg, dataset_dict["segments_info"])
        dataset_dict.update(targets)
        return dataset_dict


def _segment_ids(colors: np.ndarray) -> np.ndarray:
    """int32 ``(H, W)`` of COCO's panoptic images: R + 256 G + 256² B."""
    red, green, blue = (colors[:, :, i].astype(np.int32) for i in range(3))
    return red + (green << 8) + (blue << 16)
