"""The focal loss against fvcore's, with a target of 0 or 1 for each class."""

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from torch.nn import functional as F  # noqa: N812

from detectron2._ops.sigmoid_focal_loss import formulation
from detectron2.modeling._focal_loss import sigmoid_focal_loss_sum


def expected(logits, labels, alpha, gamma):
    valid = labels >= 0
    targets = F.one_hot(labels[valid], logits.size(1) + 1)[:, :-1]
    return sigmoid_focal_loss(
        logits[valid].float(), targets.float(), alpha=alpha, gamma=gamma, reduction="sum"
    )


def problem(rows=50, classes=6, scale=3.0):
    logits = torch.randn(rows, classes) * scale
    labels = torch.randint(-1, classes + 1, (rows,))
    return logits, labels


each_way = pytest.mark.parametrize("function", [sigmoid_focal_loss_sum, formulation])


@each_way
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.0), (0.5, 1.5)])
@pytest.mark.parametrize("scale", [3.0, 60.0])
def test_loss_and_gradient(function, alpha, gamma, scale):
    logits, labels = problem(scale=scale)
    results = []
    for f in (function, expected):
        x = logits.clone().requires_grad_()
        loss = f(x, labels, alpha, gamma)
        (3 * loss).backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


def test_negative_alpha_weighs_all_alike():
    logits, labels = problem()
    loss = sigmoid_focal_loss_sum(logits, labels, -1.0, 2.0)
    torch.testing.assert_close(loss, expected(logits, labels, -1.0, 2.0), rtol=1e-5, atol=1e-5)


@each_way
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(function, dtype):
    logits, labels = problem(400)
    x = logits.to(dtype).requires_grad_()
    loss = function(x, labels, 0.25, 2.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad.dtype == dtype
    wide = x.detach().float().requires_grad_()
    wanted = expected(wide, labels, 0.25, 2.0)
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.float(), wide.grad, rtol=1e-2, atol=1e-4)


@each_way
@pytest.mark.parametrize("label", [-1, 3])
def test_without_positives(function, label):
    x = torch.randn(7, 3, requires_grad=True)
    loss = function(x, torch.full((7,), label), 0.25, 2.0)
    loss.backward()
    assert (loss.item() > 0) == (label == 3)
    assert x.grad.any() == (label == 3)


@each_way
def test_nothing(function):
    x = torch.zeros(0, 3, requires_grad=True)
    loss = function(x, torch.zeros(0, dtype=torch.int64), 0.25, 2.0)
    loss.backward()
    assert loss.item() == 0
    assert x.grad.shape == (0, 3)


@each_way
def test_what_is_ignored_may_be_anything(function):
    logits, labels = problem()
    wild = torch.where((labels == -1)[:, None], torch.nan, logits).requires_grad_()
    loss = function(wild, labels, 0.25, 2.0)
    loss.backward()
    torch.testing.assert_close(loss, expected(logits, labels, 0.25, 2.0), rtol=1e-5, atol=1e-5)
    assert wild.grad.isfinite().all()
