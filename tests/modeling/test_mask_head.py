"""Losses and results of mask heads, pixel by pixel."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import (
    BaseMaskRCNNHead,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from .roi_toys import targets

K, SIDE = 5, 6


def instances(*counts: int) -> list[Instances]:
    result = []
    for count in counts:
        of_image = targets(count, num_classes=K)
        of_image.proposal_boxes = Boxes(of_image.gt_boxes.tensor + 4 * torch.rand(count, 4))
        result.append(of_image)
    return result


def slow_loss(logits: torch.Tensor, of_images: list[Instances]) -> torch.Tensor:
    losses, row = [], 0
    for x in of_images:
        for i in range(len(x)):
            target = x.gt_masks[i].crop_and_resize(x.proposal_boxes.tensor[i : i + 1], SIDE)[0]
            channel = int(x.gt_classes[i]) if logits.size(1) > 1 else 0
            losses.append(F.binary_cross_entropy_with_logits(logits[row, channel], target.float()))
            row += 1
    return torch.stack(losses).mean()


@pytest.mark.parametrize("channels", [1, K])
@pytest.mark.parametrize("bitmaps", [False, True])
def test_loss_and_gradient(channels: int, bitmaps: bool) -> None:
    of_images = instances(4, 0, 3)
    if bitmaps:
        for x in of_images:
            x.gt_masks = BitMasks.from_polygon_masks(x.gt_masks, 60, 80)
    logits = torch.randn(7, channels, SIDE, SIDE, requires_grad=True)
    with EventStorage():
        loss = mask_rcnn_loss(logits, of_images)
    loss.backward()
    again = logits.detach().clone().requires_grad_()
    wanted = slow_loss(again, of_images)
    wanted.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(logits.grad, again.grad)


def test_loss_of_half_precision_is_float32() -> None:
    of_images, logits = instances(3), torch.randn(3, K, SIDE, SIDE)
    with EventStorage():
        half = mask_rcnn_loss(logits.half(), of_images)
        full = mask_rcnn_loss(logits.half().float(), of_images)
    assert half.dtype == torch.float32
    assert torch.equal(half, full)


def test_loss_of_nothing_stays_on_the_graph() -> None:
    logits = torch.zeros(0, K, SIDE, SIDE, requires_grad=True)
    without_masks = Instances((60, 80), gt_classes=torch.zeros(0).long())
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, [without_masks])
        assert not storage.latest()
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None


def test_events() -> None:
    x = instances(1)[0]
    x.gt_classes = torch.zeros(1).long()
    # A target of ones in its upper half.
    x.proposal_boxes = Boxes(x.gt_boxes.tensor * torch.tensor([1.0, 1, 1, 2]))
    x.proposal_boxes.tensor[:, 3] -= x.gt_boxes.tensor[:, 1]
    logits = torch.ones(1, K, SIDE, SIDE)
    logits[0, 0, SIDE // 2 :] = -1
    logits[0, 0, [0, -1, -2]] *= -1
    with EventStorage() as storage:
        mask_rcnn_loss(logits, [x])
        latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == pytest.approx(
        {
            "mask_rcnn/accuracy": 1 - 3 / SIDE,
            "mask_rcnn/false_positive": 2 / (SIDE // 2),
            "mask_rcnn/false_negative": 1 / (SIDE // 2),
        }
    )


def test_pictures_every_period() -> None:
    with EventStorage(4) as storage:
        mask_rcnn_loss(torch.randn(2, K, SIDE, SIDE), instances(2), vis_period=3)
        assert not storage._vis_data
        storage.iter = 6
        mask_rcnn_loss(torch.randn(2, K, SIDE, SIDE), instances(2), vis_period=3)
    names = [name for name, _, _ in storage._vis_data]
    assert names == [f"Left: mask prediction;   Right: mask GT ({i})" for i in range(2)]
    assert storage._vis_data[0][1].shape == (3, SIDE, 2 * SIDE)


@pytest.mark.parametrize("channels", [1, K])
def test_inference(channels: int) -> None:
    logits, of_images = torch.randn(5, channels, SIDE, SIDE), [Instances((9, 9)) for _ in range(3)]
    classes = [torch.tensor([0, 4]), torch.zeros(0).long(), torch.tensor([2, 2, 1])]
    for x, c in zip(of_images, classes, strict=True):
        x.pred_classes = c
    mask_rcnn_inference(logits, of_images)
    assert [x.pred_masks.shape for x in of_images] == [(n, 1, SIDE, SIDE) for n in (2, 0, 3)]
    got = torch.cat([x.pred_masks for x in of_images])[:, 0]
    for row, c in enumerate(torch.cat(classes).tolist()):
        torch.testing.assert_close(got[row], logits[row, c if channels > 1 else 0].sigmoid())


def test_head() -> None:
    head = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=4), num_classes=K, conv_dims=[6, 7], loss_weight=2.0
    )
    assert list(head.state_dict()) == [
        f"{name}.{kind}"
        for name in ("mask_fcn1", "deconv", "predictor")
        for kind in ("weight", "bias")
    ]
    x, of_images = torch.randn(3, 4, SIDE // 2, SIDE // 2), instances(3)
    before = x.clone()
    with EventStorage():
        loss = head(x, of_images)["loss_mask"]
        torch.testing.assert_close(loss, 2 * mask_rcnn_loss(head.layers(x), of_images))
    assert torch.equal(x, before)
    of_images[0].pred_classes = of_images[0].gt_classes
    assert head.eval()(x, of_images)[0].pred_masks.shape == (3, 1, SIDE, SIDE)
    torch.compile(head.layers, backend="eager", fullgraph=True)(x)
    with pytest.raises(ValueError, match="conv_dims"):
        MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=K, conv_dims=[])
    with pytest.raises(NotImplementedError, match="BaseMaskRCNNHead has no layers"):
        BaseMaskRCNNHead()(x, of_images)
