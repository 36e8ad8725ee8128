"""Box losses, against their formulas box by box in float64."""

import math

import pytest
import torch

from detectron2.layers import ciou_loss, diou_loss

EPS = 1e-7


def random_boxes(seed, count, extent=60.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * extent
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * extent / 2
    return torch.cat([corners, corners + sides], dim=1)


def reference(a, b, is_complete):
    """Equations 7 to 11 of the paper, for two boxes."""
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    shared = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    iou = shared / (union + EPS)
    d2 = ((ax0 + ax1 - bx0 - bx1) / 2) ** 2 + ((ay0 + ay1 - by0 - by1) / 2) ** 2
    c2 = (max(ax1, bx1) - min(ax0, bx0)) ** 2 + (max(ay1, by1) - min(ay0, by0)) ** 2
    loss = 1 - iou + d2 / (c2 + EPS)
    if is_complete:
        angle = math.atan((bx1 - bx0) / (by1 - by0)) - math.atan((ax1 - ax0) / (ay1 - ay0))
        v = 4 / math.pi**2 * angle**2
        loss += v * v / (1 - iou + v + EPS)
    return loss


LOSSES = pytest.mark.parametrize("loss", [diou_loss, ciou_loss])


@LOSSES
@pytest.mark.parametrize("count", [0, 1, 50])
def test_against_the_reference(loss, count):
    boxes1, boxes2 = random_boxes(1, count), random_boxes(2, count)
    if count > 1:
        boxes2[0] = boxes1[0]
        boxes2[1] = boxes1[1] + torch.tensor([2.0, 1, -2, -1])  # inside, mostly
        boxes2[2] = boxes1[2] + 1000
    expected = torch.tensor(
        [
            reference(a, b, loss is ciou_loss)
            for a, b in zip(boxes1.tolist(), boxes2.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(loss(boxes1, boxes2), expected)
    single = loss(boxes1.float(), boxes2.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss(boxes1, boxes2, reduction="sum"), expected.sum())
    mean = loss(boxes1, boxes2, reduction="mean")
    torch.testing.assert_close(mean, expected.sum() / max(count, 1))
    if count:
        torch.testing.assert_close(loss(boxes1[0], boxes2[0]), expected[0])


@LOSSES
def test_nothing_stays_on_the_graph(loss):
    boxes = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("mean", "sum"):
        value = loss(boxes, boxes, reduction=reduction)
        assert value.item() == 0
        value.backward()
    assert boxes.grad.shape == (0, 4)


def test_gradients():
    boxes1, boxes2 = random_boxes(3, 8).requires_grad_(True), random_boxes(4, 8)
    assert torch.autograd.gradcheck(diou_loss, (boxes1, boxes2))

    # The paper's gradient of the complete loss takes alpha for a constant.
    diou_grad = torch.autograd.grad(diou_loss(boxes1, boxes2).sum(), boxes1)[0]
    ciou_grad = torch.autograd.grad(ciou_loss(boxes1, boxes2).sum(), boxes1)[0]
    for i in range(8):
        x0, y0, x1, y1 = boxes1[i].tolist()
        width, height = x1 - x0, y1 - y0
        target = (boxes2[i, 2] - boxes2[i, 0]) / (boxes2[i, 3] - boxes2[i, 1])
        angle = math.atan(target) - math.atan(width / height)
        v = 4 / math.pi**2 * angle**2
        iou = 1 - reference(boxes1[i].tolist(), boxes2[i].tolist(), False)
        a, b = boxes1[i].detach(), boxes2[i]
        d2 = (((a[:2] + a[2:]) - (b[:2] + b[2:])) / 2).square().sum()
        c2 = (torch.max(a[2:], b[2:]) - torch.min(a[:2], b[:2])).square().sum()
        alpha = v / (1 - (iou + d2 / (c2 + EPS)) + v + EPS)
        # Equation 12, with the divisor that the paper drops.
        by_width = -8 / math.pi**2 * angle * height / (width**2 + height**2)
        by_height = 8 / math.pi**2 * angle * width / (width**2 + height**2)
        extra = alpha * torch.tensor(
            [-by_width, -by_height, by_width, by_height], dtype=torch.float64
        )
        torch.testing.assert_close(ciou_grad[i] - diou_grad[i], extra, rtol=1e-6, atol=1e-9)


@LOSSES
def test_boxes_without_area_have_finite_losses_and_gradients(loss):
    boxes1 = torch.tensor(
        [[5.0, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9], [5, 5, 5, 5], [0, 0, 4, 4]],
        requires_grad=True,
    )
    boxes2 = torch.tensor([[1.0, 1, 8, 9], [1, 1, 8, 9], [1, 1, 8, 9], [5, 5, 5, 5], [4, 0, 4, 9]])
    values = loss(boxes1, boxes2)
    assert values.isfinite().all()
    assert (values >= 0).all()
    values.sum().backward()
    assert boxes1.grad.isfinite().all()


@LOSSES
def test_boxes_that_touch_have_the_gradient_of_boxes_apart(loss):
    boxes1 = torch.tensor([[0.0, 0, 4, 4]] * 2, dtype=torch.float64, requires_grad=True)
    boxes2 = torch.tensor([[4.0, 0, 8, 5], [4 + 1e-7, 0, 8, 5]], dtype=torch.float64)
    (grads,) = torch.autograd.grad(loss(boxes1, boxes2).sum(), boxes1)
    torch.testing.assert_close(grads[0], grads[1])


@LOSSES
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 3), (torch.bfloat16, 3)])
def test_half_precision_does_not_overflow(loss, dtype, digits):
    """Areas of 1,000,000 square pixels; float16 ends at 65,504."""
    boxes1 = torch.tensor([[0.0, 0, 1000, 1000]]).to(dtype)
    boxes2 = torch.tensor([[0.0, 0, 1000, 500]]).to(dtype)
    expected = loss(boxes1.double(), boxes2.double())
    torch.testing.assert_close(loss(boxes1, boxes2).double(), expected, rtol=1e-5, atol=1e-6)


@LOSSES
def test_bad_arguments_raise_with_the_values(loss):
    boxes = random_boxes(5, 3)
    flipped = boxes.clone()
    flipped[1] = torch.tensor([9.0, 2, 3, 4])
    with pytest.raises(ValueError, match=r"1 have not, the first of them \[9.0, 2.0, 3.0, 4.0\]"):
        loss(flipped, boxes)
    loss(boxes, flipped)  # targets are the caller's business
    with pytest.raises(ValueError, match="got 'average'"):
        loss(boxes, boxes, reduction="average")
