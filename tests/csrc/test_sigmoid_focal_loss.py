"""torch.ops.detectron2.sigmoid_focal_loss against a loop in NumPy's float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2._ops.sigmoid_focal_loss import sigmoid_focal_loss as eager_loss

from .harness import (
    DTYPES,
    check_compiled,
    check_raises,
    check_traceable,
    compute_dtype,
    on_each_device,
    strided,
)

sigmoid_focal_loss = torch.ops.detectron2.sigmoid_focal_loss


def slow_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> float:
    total = 0.0
    for row, label in zip(logits.double().numpy(), labels.tolist(), strict=True):
        for column, x in enumerate(row):
            if label < 0:
                continue
            wrong = -x if column == label else x
            weight = alpha if column == label else 1 - alpha
            p = np.exp(-np.logaddexp(0, -wrong))
            total += weight * p**gamma * np.logaddexp(0, wrong)
    return total


def problem(rows: int, classes: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, classes) * scale, torch.randint(-1, classes + 1, (rows,))


@on_each_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.0), (0.5, 1.5)])
@pytest.mark.parametrize("shape", [(1, 1), (30, 7), (3, 5000), (700, 3)])
def test_against_a_loop(device, dtype, is_strided, alpha, gamma, shape):
    logits, labels = problem(*shape)
    logits = logits.to(dtype)
    wanted = slow_loss(logits, labels, alpha, gamma)
    if is_strided:
        logits, labels = strided(logits), strided(labels)
    loss = sigmoid_focal_loss(logits.to(device), labels.to(device), alpha, gamma)
    assert loss.shape == ()
    assert loss.dtype == compute_dtype(dtype)
    assert loss.item() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@on_each_device
@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_gradients(device, gamma):
    """The gradient, and its own."""
    logits, labels = problem(9, 4)
    logits = logits.double().to(device).requires_grad_()
    labels = labels.to(device)
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, labels, 0.25, gamma), logits, eps=1e-6, atol=1e-7
    )
    assert torch.autograd.gradgradcheck(
        lambda x: eager_loss(x, labels, 0.25, gamma), logits, eps=1e-6, atol=1e-6
    )


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_in_half_precision(device, dtype):
    logits, labels = problem(40, 6)
    half = logits.to(dtype).to(device).requires_grad_()
    wide = half.detach().double().requires_grad_()
    for x in (half, wide):
        sigmoid_focal_loss(x, labels.to(device), 0.25, 2.0).backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad.double(), wide.grad, rtol=1e-2, atol=1e-4)


@on_each_device
def test_extreme_logits(device):
    inf = float("inf")
    logits = torch.tensor([[-1e4, -200.0, 200, 1e4]], device=device, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0], device=device), 0.25, 2.0)
    assert loss.item() == pytest.approx(0.25 * 1e4 + 0.75 * (200 + 1e4))
    loss.backward()
    assert logits.grad.tolist() == [[pytest.approx(x) for x in (-0.25, 0, 0.75, 0.75)]]
    for value in (inf, float("nan")):
        wild = torch.tensor([[value, 1.0]], device=device)
        assert not sigmoid_focal_loss(wild, torch.tensor([2], device=device), 0.25, 2.0).isfinite()


@on_each_device
def test_rows_that_are_left_out_may_hold_anything(device):
    logits, labels = problem(30, 5)
    labels[::3] = -1
    wild = torch.where((labels < 0)[:, None], torch.nan, logits).to(device).requires_grad_()
    loss = sigmoid_focal_loss(wild, labels.to(device), 0.25, 2.0)
    assert loss.item() == pytest.approx(slow_loss(logits, labels, 0.25, 2.0), rel=1e-5)
    loss.backward()
    assert wild.grad.isfinite().all()
    assert not wild.grad[::3].any()


@on_each_device
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty(device, shape):
    logits = torch.zeros(shape, device=device, requires_grad=True)
    labels = torch.zeros(shape[0], dtype=torch.int64, device=device)
    loss = sigmoid_focal_loss(logits, labels, 0.25, 2.0)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.shape == shape


@pytest.mark.gpu
def test_cpu_and_cuda_agree_on_many():
    logits, labels = problem(100_000, 80)
    on_cuda = sigmoid_focal_loss(logits.cuda(), labels.cuda(), 0.25, 2.0)
    on_cpu = sigmoid_focal_loss(logits.double(), labels, 0.25, 2.0)
    torch.testing.assert_close(on_cuda.cpu().double(), on_cpu, rtol=1e-5, atol=0)


@on_each_device
def test_tracing(device):
    logits, labels = problem(6, 4)
    logits, labels = logits.to(device).requires_grad_(), labels.to(device)
    check_traceable(sigmoid_focal_loss, (logits, labels, 0.25, 2.0))
    more = [x.to(device) for x in problem(9, 3)]
    check_compiled(
        lambda x, y: sigmoid_focal_loss(x, y, 0.25, 2.0), (logits.detach(), labels), tuple(more)
    )


@on_each_device
def test_bad_arguments(device):
    logits = torch.zeros(3, 2, device=device)
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    check_raises(r"logits must have the shape \(M, K\)", sigmoid_focal_loss, labels, labels, 1, 2)
    check_raises("got 3 and 2", sigmoid_focal_loss, logits, labels[:2], 1, 2)
    check_raises("labels must be int64, got int32", sigmoid_focal_loss, logits, labels.int(), 1, 2)
    check_raises("logits must be float32", sigmoid_focal_loss, logits.long(), labels, 1, 2)
    check_raises("gamma must not be negative, got -1", sigmoid_focal_loss, logits, labels, 1, -1)
