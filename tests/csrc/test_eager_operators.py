"""Layers call operators past torch.library's autograd code: the results must not differ by it."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradgradcheck

from detectron2.layers import ROIAlign
from detectron2.layers.deform_conv import deform_conv, modulated_deform_conv
from detectron2.layers.roi_align import multilevel_roi_align
from detectron2.layers.roi_align_rotated import roi_align_rotated
from detectron2.structures import Boxes, pairwise_iou

from .harness import on_each_device

ops = torch.ops.detectron2
PLACING = ([1, 1], [1, 1], [1, 1], 1, 1)


def random(*shape: int, device: str = "cpu", seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device)


def rotated_rois(device: str = "cpu") -> Tensor:
    rows = [[0, 4, 5, 6, 4, 30], [1, 3, 3, 2, 7, -70]]
    return torch.tensor(rows, dtype=torch.float32, device=device)


def upright_rois(device: str = "cpu") -> Tensor:
    return torch.tensor([[0, 1, 2, 6, 7], [1, 0, 0, 4, 3]], dtype=torch.float32, device=device)


@on_each_device
def test_gradients_are_those_of_the_operators(device: str) -> None:
    x = random(2, 16, 9, 8, device=device).requires_grad_()
    offset = random(2, 18, 9, 8, device=device, seed=1).requires_grad_()
    mask = torch.sigmoid(random(2, 9, 9, 8, device=device, seed=2)).requires_grad_()
    weight = random(16, 16, 3, 3, device=device, seed=3).requires_grad_()
    bias = random(16, device=device, seed=4).requires_grad_()
    boxes = upright_rois(device)[:, 1:].requires_grad_()
    rotated, upright = rotated_rois(device), upright_rois(device)
    levels = torch.tensor([0, 1], device=device)
    small = random(2, 16, 5, 4, device=device, seed=5).requires_grad_()
    cases = [
        (
            modulated_deform_conv(x, offset, mask, weight, bias, 1, 1),
            ops.deform_conv(x, offset, mask, weight, bias, *PLACING),
            (x, offset, mask, weight, bias),
        ),
        (
            deform_conv(x.detach(), offset.detach(), weight, 1, 1),
            ops.deform_conv(x.detach(), offset.detach(), None, weight, None, *PLACING),
            (weight,),
        ),
        (
            roi_align_rotated(x, rotated, (3, 2), 1.0, 2),
            ops.roi_align_rotated_forward(x, rotated, 1.0, 3, 2, 2),
            (x,),
        ),
        (
            multilevel_roi_align([x, small.detach()], upright, levels, 3, [1.0, 0.5], 2),
            ops.roi_align_forward([x, small.detach()], upright, levels, [1.0, 0.5], 3, 3, 2, True),
            (x,),
        ),
        (
            multilevel_roi_align([x.detach(), small], upright, levels, 3, [1.0, 0.5], 2),
            ops.roi_align_forward([x.detach(), small], upright, levels, [1.0, 0.5], 3, 3, 2, True),
            (small,),
        ),
        (pairwise_iou(Boxes(boxes), Boxes(boxes)), ops.pairwise_iou(boxes, boxes), (boxes,)),
    ]
    for number, (actual, expected, leaves) in enumerate(cases):
        assert torch.equal(actual, expected), number
        grad = random(*actual.shape, device=device, seed=6)
        for mine, theirs in zip(
            torch.autograd.grad(actual, leaves, grad),
            torch.autograd.grad(expected, leaves, grad),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_second_derivatives() -> None:
    x = random(2, 2, 9, 8).double().requires_grad_()
    rotated, upright = rotated_rois().double(), upright_rois().double()
    assert gradgradcheck(lambda x: roi_align_rotated(x**2, rotated, 2, 1.0, 1), x)
    assert gradgradcheck(lambda x: ROIAlign(2, 1.0, 1)(x**2, upright), x)


def test_transforms_are_not_taken_for_constants() -> None:
    """PyTorch has torch.func refuse operators with a registered gradient: an error, not zeros."""
    rois = rotated_rois()
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: roi_align_rotated(x, rois, 2, 1.0, 1).sum())(random(2, 2, 9, 8))


@on_each_device
@pytest.mark.parametrize("modulated", [False, True])
def test_convolution_under_autocast(modulated: bool, device: str) -> None:
    """The features and the weight in half precision, positions in theirs; gradients as given."""
    x = random(2, 16, 9, 8, device=device).requires_grad_()
    offset = random(2, 18, 9, 8, device=device, seed=1).requires_grad_()
    mask = torch.sigmoid(random(2, 9, 9, 8, device=device, seed=2)) if modulated else None
    weight = random(16, 16, 3, 3, device=device, seed=3).requires_grad_()
    bias = random(16, device=device, seed=4) if modulated else None
    leaves = (x, offset, weight)
    results = []
    for eager in (True, False):
        with torch.autocast(device, dtype=torch.bfloat16):
            if not eager:
                output = ops.deform_conv(x, offset, mask, weight, bias, *PLACING)
            elif modulated:
                output = modulated_deform_conv(x, offset, mask, weight, bias, 1, 1)
            else:
                output = deform_conv(x, offset, weight, 1, 1)
        assert output.dtype == torch.bfloat16
        grads = torch.autograd.grad(output.float().square().sum(), leaves)
        assert all(grad.dtype == torch.float32 for grad in grads)
        results.append((output, *grads))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


def test_float64_stays_under_autocast() -> None:
    x = random(1, 16, 5, 5).double()
    offset = torch.zeros(1, 18, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert deform_conv(x, offset, random(16, 16, 3, 3).double(), 1, 1).dtype == torch.float64


@pytest.mark.parametrize("is_rotated", [False, True])
def test_tangents_are_refused(is_rotated: bool) -> None:
    # PyTorch takes them for zero.
    x, rois = random(1, 3, 9, 8), (rotated_rois() if is_rotated else upright_rois())[:1]

    def pool(x: Tensor) -> Tensor:
        return roi_align_rotated(x, rois, 3, 1.0, 2) if is_rotated else ROIAlign(3, 1.0, 2)(x, rois)

    with forward_ad.dual_level():
        pooled = pool(x)  # which has none
        assert forward_ad.unpack_dual(pooled).tangent is None
        with pytest.raises(NotImplementedError, match=r"roi_align_\w+ has no forward-mode"):
            pool(forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(pool, (x,), (torch.ones_like(x),))
