"""Losses and results of keypoint heads."""

import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.keypoint_head import (
    BaseKeypointRCNNHead,
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from detectron2.structures import Boxes, Instances, heatmaps_to_keypoints
from detectron2.utils.events import EventStorage

from .roi_toys import random_boxes, targets

KEYPOINTS, SIDE = 3, 6


def instances(*counts: int) -> list[Instances]:
    result = []
    for count in counts:
        of_image = targets(count)
        of_image.proposal_boxes = Boxes(of_image.gt_boxes.tensor + 5)  # Leaves some points out.
        result.append(of_image)
    return result


def slow_loss(
    logits: torch.Tensor, of_images: list[Instances], normalizer: float | None
) -> torch.Tensor:
    total, visible, row = torch.zeros(()), 0, 0
    for x in of_images:
        for i in range(len(x)):
            x0, y0, x1, y1 = x.proposal_boxes.tensor[i].tolist()
            for k in range(KEYPOINTS):
                px, py, v = x.gt_keypoints.tensor[i, k].tolist()
                if v > 0 and x0 <= px <= x1 and y0 <= py <= y1:
                    column = min(int((px - x0) / (x1 - x0) * SIDE), SIDE - 1)
                    line = min(int((py - y0) / (y1 - y0) * SIDE), SIDE - 1)
                    total = total - logits[row, k].flatten().log_softmax(0)[line * SIDE + column]
                    visible += 1
            row += 1
    assert 0 < visible < row * KEYPOINTS
    return total / (visible if normalizer is None else normalizer)


@pytest.mark.parametrize("normalizer", [None, 7.0])
def test_loss_and_gradient(normalizer: float | None) -> None:
    of_images = instances(4, 0, 3)
    logits = torch.randn(7, KEYPOINTS, SIDE, SIDE, requires_grad=True)
    with EventStorage() as storage:
        loss = keypoint_rcnn_loss(logits, of_images, normalizer)
        assert not storage.latest()
    loss.backward()
    again = logits.detach().clone().requires_grad_()
    wanted = slow_loss(again, of_images, normalizer)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(logits.grad, again.grad)


@pytest.mark.parametrize("count", [0, 2])
def test_no_visible_keypoints(count: int) -> None:
    (x,) = instances(count)
    x.gt_keypoints.tensor[..., 2] = 0
    logits = torch.randn(count, KEYPOINTS, SIDE, SIDE, requires_grad=True)
    skipped = []
    for _ in range(2):
        with EventStorage() as storage:
            loss = keypoint_rcnn_loss(logits, [x], None)
            skipped.append(storage.latest()["kpts_num_skipped_batches"][0])
            assert storage.smoothing_hints() == {"kpts_num_skipped_batches": False}
    assert skipped[1] == skipped[0] + 1
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().sum()) == 0


def test_inference() -> None:
    heatmaps = torch.randn(5, KEYPOINTS, SIDE, SIDE)
    boxes = random_boxes(5)
    of_images = [Instances((60, 80), pred_boxes=Boxes(b)) for b in boxes.split([2, 0, 3])]
    keypoint_rcnn_inference(heatmaps, of_images)
    found = heatmaps_to_keypoints(heatmaps, boxes)
    assert [len(x.pred_keypoints) for x in of_images] == [2, 0, 3]
    assert torch.equal(torch.cat([x.pred_keypoints for x in of_images]), found[..., [0, 1, 3]])
    assert torch.equal(torch.cat([x.pred_keypoint_heatmaps for x in of_images]), heatmaps)


def test_head() -> None:
    head = KRCNNConvDeconvUpsampleHead(
        ShapeSpec(channels=4),
        num_keypoints=KEYPOINTS,
        conv_dims=[6, 7],
        loss_weight=2.0,
        loss_normalizer=5.0,
    )
    assert list(head.state_dict()) == [
        f"{name}.{kind}"
        for name in ("conv_fcn1", "conv_fcn2", "score_lowres")
        for kind in ("weight", "bias")
    ]
    x, of_images = torch.randn(3, 4, 2, 2), instances(2, 1)
    before = x.clone()
    heatmaps = head.layers(x)
    assert heatmaps.shape == (3, KEYPOINTS, 8, 8)
    assert torch.equal(x, before)
    with EventStorage():
        loss = head(x, of_images)["loss_keypoint"]
        # The normaliser is an image's.
        torch.testing.assert_close(loss, 2 * keypoint_rcnn_loss(heatmaps, of_images, 10.0))
        head.loss_normalizer = "visible"
        loss = head(x, of_images)["loss_keypoint"]
        torch.testing.assert_close(loss, 2 * keypoint_rcnn_loss(heatmaps, of_images, None))
    torch.compile(head.layers, backend="eager", fullgraph=True)(x)
    with pytest.raises(ValueError, match="'seen'"):
        BaseKeypointRCNNHead(num_keypoints=3, loss_normalizer="seen")
