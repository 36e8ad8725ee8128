"""Test-time augmentation, with versions of an image that the tests make themselves."""

from typing import Any

import pytest
import torch
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, ScaleTransform, TransformList
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.structures import Boxes, Instances

from .roi_toys import OneMapBackbone

SIZE = (40, 60)


class BrightBox(nn.Module):
    """Detects the box around the bright pixels, whose mask is bright on the left."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_on, self.batches = True, []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Any, features: Any, proposals: Any, gt: Any) -> tuple[list, dict]:
        assert not self.mask_on, "boxes come first"
        self.batches.append(len(images))
        results = []
        for image, size in zip(images, images.image_sizes, strict=True):
            rows, columns = (image[0] > 128).nonzero(as_tuple=True)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = torch.tensor([box]).float() * self.scale
            results.append(
                Instances(
                    size,
                    pred_boxes=Boxes(boxes),
                    scores=torch.tensor([0.5 + 0.01 * len(self.batches)]),
                    pred_classes=torch.tensor([1]),
                )
            )
        return results, {}

    def forward_with_given_boxes(self, features: Any, instances: list) -> list:
        assert self.mask_on
        self.given = instances
        for x in instances:
            x.pred_masks = torch.tensor([1.0, 0.0]).expand(len(x), 1, 2, 2).clone()
        return instances


def versions(sample: dict[str, Any]) -> list[dict[str, Any]]:
    """The image itself, twice as large, and the latter mirrored."""
    h, w = sample["image"].shape[1:]
    large = F.interpolate(sample["image"][None].float(), scale_factor=2)[0]
    scale = ScaleTransform(h, w, 2 * h, 2 * w)
    return [
        {"image": sample["image"], "transforms": TransformList([NoOpTransform()])},
        {"image": large, "transforms": TransformList([scale])},
        {
            "image": large.flip(2),
            "transforms": TransformList([scale, HFlipTransform(2 * w)]),
        },
    ]


def config(mask_on: bool = True) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = mask_on
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    return cfg


def model() -> GeneralizedRCNN:
    class Proposals(nn.Module):
        def forward(self, *args: Any) -> tuple[list, dict]:
            return [], {}

    return GeneralizedRCNN(
        backbone=OneMapBackbone(),
        proposal_generator=Proposals(),
        roi_heads=BrightBox(),
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    ).eval()


def picture() -> torch.Tensor:
    image = torch.zeros(3, *SIZE)
    image[:, 10:30, 5:45] = 255
    return image


@pytest.mark.parametrize("mask_on", [True, False])
def test_merged(mask_on: bool) -> None:
    plain = model()
    augmented = GeneralizedRCNNWithTTA(config(mask_on), plain, versions, batch_size=2)
    (result,) = augmented([{"image": picture()}])
    instances = result["instances"]
    # All versions agree on the box, and the best scored stands for them.
    assert instances.image_size == SIZE
    assert instances.pred_boxes.tensor.tolist() == [[5, 10, 45, 30]]
    assert instances.scores.tolist() == pytest.approx([0.52])
    assert instances.pred_classes.tolist() == [1]
    assert plain.roi_heads.batches == [2, 1]
    assert plain.roi_heads.mask_on
    assert instances.has("pred_masks") == mask_on
    if mask_on:
        # Two versions are bright on the left, the mirrored one, turned back, on the right.
        mask = instances.pred_masks[0]
        assert bool(mask[17:23, 12:20].all())
        assert not bool(mask[:, 28:].any())
        mirrored = plain.roi_heads.given[-1]
        assert mirrored.image_size == (80, 120)
        assert mirrored.pred_boxes.tensor.tolist() == [[30, 20, 110, 60]]


def test_merged_are_all_that_have_a_score() -> None:
    augmented = GeneralizedRCNNWithTTA(config(), model(), versions)
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 8, 9], [0, 0, 9, 9], [20, 0, 29, 9]])
    scores = torch.tensor([1e-4, 2e-4, 3e-4, 0])
    merged = augmented._merge_detections(boxes, scores, torch.tensor([0, 0, 2, 1]), SIZE)
    assert merged.pred_classes.tolist() == [2, 0]
    assert merged.scores.tolist() == pytest.approx([3e-4, 2e-4])


def test_turned_off_heads_are_turned_on_after_an_error() -> None:
    augmented = GeneralizedRCNNWithTTA(config(), model(), versions)
    heads, seen = augmented.model.roi_heads, []

    def fail() -> None:
        with augmented._turn_off_roi_heads(["mask_on", "keypoint_on"]):
            seen.append(heads.mask_on)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False]
    assert heads.mask_on is True
    assert not hasattr(heads, "keypoint_on")


def test_what_is_not_supported() -> None:
    with pytest.raises(ValueError, match="Linear"):
        GeneralizedRCNNWithTTA(config(), nn.Linear(1, 1))
    for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
        cfg = config()
        cfg.MODEL[key] = True
        with pytest.raises(ValueError, match=f"{key}=True"):
            GeneralizedRCNNWithTTA(cfg, model())
