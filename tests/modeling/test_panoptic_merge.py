"""The merge of instances and stuff, against one that goes step by step."""

from typing import Any

import numpy as np
import pytest
import torch

from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances

from .roi_toys import recorded_waits


def slow_merge(
    instances: Instances, labels: np.ndarray, overlap: float, area_thresh: float, score: float
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    panoptic, segments = np.zeros(labels.shape, np.int32), []
    scores, masks = instances.scores.tolist(), instances.pred_masks.numpy()
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if scores[i] < score:
            break
        area = masks[i].sum()
        if area == 0 or (masks[i] & (panoptic > 0)).sum() / area > overlap:
            continue
        panoptic[masks[i] & (panoptic == 0)] = len(segments) + 1
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": scores[i],
                "category_id": int(instances.pred_classes[i]),
                "instance_id": i,
            }
        )
    for label in np.unique(labels):
        free = (labels == label) & (panoptic == 0)
        if label == 0 or free.sum() < max(area_thresh, 1):
            continue
        panoptic[free] = len(segments) + 1
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": False,
                "category_id": int(label),
                "area": int(free.sum()),
            }
        )
    return panoptic, segments


def random_instances(count: int, size: tuple[int, int]) -> Instances:
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, 15, (2,)).tolist()
        height, width = torch.randint(0, 20, (2,)).tolist()
        mask[top : top + height, left : left + width] = True
    return Instances(
        size,
        scores=torch.rand(count),
        pred_classes=torch.randint(0, 9, (count,)),
        pred_masks=masks,
    )


@pytest.mark.parametrize("seed", range(8))
def test_equals_slow_one(seed: int) -> None:
    torch.manual_seed(seed)
    size = (25, 31)
    instances = random_instances(12, size)
    instances.scores[5] = instances.scores[6]  # A tie.
    labels = torch.randint(0, 5, (5, 7)).repeat_interleave(5, 0).repeat_interleave(5, 1)[:, :31]
    arguments = ((0.5, 40, 0.3), (0.2, 0, 0.0), (1.0, 100, 0.9), (0.0, 1, 0.5))[seed % 4]
    got, segments = combine_semantic_and_instance_outputs(instances, labels, *arguments)
    wanted, wanted_segments = slow_merge(instances, labels.numpy(), *arguments)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), wanted)
    assert segments == wanted_segments


def test_overlap_at_the_threshold_is_allowed() -> None:
    masks = torch.zeros(2, 1, 200, dtype=torch.bool)
    masks[0, 0, :29] = True
    masks[1, 0, :100] = True  # 29 of 100 are covered, and 0.29 * 100 is below 29.
    instances = Instances(
        (1, 200),
        scores=torch.tensor([0.9, 0.8]),
        pred_classes=torch.tensor([3, 4]),
        pred_masks=masks,
    )
    labels = torch.zeros(1, 200).long()
    _, segments = combine_semantic_and_instance_outputs(instances, labels, 0.29, 1, 0.5)
    assert [s["category_id"] for s in segments] == [3, 4]


def test_without_instances() -> None:
    labels = torch.tensor([[0, 2], [2, 2]])
    panoptic, segments = combine_semantic_and_instance_outputs(
        random_instances(0, (2, 2)), labels, 0.5, 3, 0.5
    )
    assert panoptic.tolist() == [[0, 1], [1, 1]]
    assert segments == [{"id": 1, "isthing": False, "category_id": 2, "area": 3}]


def test_negative_label() -> None:
    with pytest.raises(ValueError, match="-3"):
        combine_semantic_and_instance_outputs(
            random_instances(1, (1, 2)), torch.tensor([[0, -3]]), 0.5, 3, 0.5
        )


@pytest.mark.gpu
def test_waits_twice() -> None:
    instances = random_instances(12, (25, 31))
    labels = torch.randint(0, 5, (25, 31))
    wanted = combine_semantic_and_instance_outputs(instances, labels, 0.5, 10, 0.2)
    instances, labels = instances.to("cuda"), labels.cuda()
    with recorded_waits() as waits:
        got = combine_semantic_and_instance_outputs(instances, labels, 0.5, 10, 0.2)
    assert len(waits) <= 2, waits
    assert torch.equal(got[0].cpu(), wanted[0])
    assert got[1] == wanted[1]
