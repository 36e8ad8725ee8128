"""Gradient clipping, by plain NumPy, and build_optimizer, which adds it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.solver import build_optimizer
from detectron2.solver.build import (
    GradientClipType,
    _generate_optimizer_class_with_gradient_clipping,
    create_gradient_clipper,
    maybe_add_gradient_clipping,
)

from .config import config

NORM_CASES = [(2.0, 0.5), (1.0, 2.0), (3.0, 0.1), (float("inf"), 0.3), (2.0, 1e4)]


def parameters_with_gradients(seed=0, device="cpu"):
    rng = np.random.default_rng(seed)
    gradients = [rng.normal(size=shape).astype(np.float32) for shape in [(7,), (3, 4), (1,), ()]]
    parameters = [
        nn.Parameter(torch.zeros(gradient.shape, device=device)) for gradient in gradients
    ]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient, device=device)
    return [*parameters, nn.Parameter(torch.zeros(2))], gradients


def clipped_by_norm(gradient, order, limit):
    norm = np.linalg.norm(gradient.astype(np.float64).ravel(), order)
    return gradient * min(1.0, limit / (norm + 1e-6))


def check_step(clip, expected):
    """A step of SGD with learning rate 1 moves zeros to minus the clipped gradients."""
    parameters, gradients = parameters_with_gradients()
    optimizer = maybe_add_gradient_clipping(config(clip=clip), torch.optim.SGD)(parameters, lr=1.0)
    optimizer.step()
    for parameter, gradient in zip(parameters, gradients, strict=False):
        np.testing.assert_allclose(-parameter.detach().numpy(), expected(gradient), rtol=1e-5)
    assert torch.equal(parameters[-1], torch.zeros(2))


def test_each_element_is_limited():
    clip = {"CLIP_TYPE": "value", "CLIP_VALUE": 0.3}
    check_step(clip, lambda gradient: np.clip(gradient, -0.3, 0.3))


@pytest.mark.parametrize(("order", "limit"), NORM_CASES)
def test_each_parameters_norm_is_limited_by_itself(order, limit):
    clip = {"CLIP_TYPE": "norm", "CLIP_VALUE": limit, "NORM_TYPE": order}
    check_step(clip, lambda gradient: clipped_by_norm(gradient, order, limit))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("order", "limit"), NORM_CASES)
def test_many_parameters_at_once_are_as_each_alone_in_pytorch(order, limit, device):
    together, _ = parameters_with_gradients(device=device)
    alone, _ = parameters_with_gradients(device=device)
    clipper = create_gradient_clipper(
        config(
            clip={"CLIP_TYPE": "norm", "CLIP_VALUE": limit, "NORM_TYPE": order}
        ).SOLVER.CLIP_GRADIENTS
    )
    clipper(together)
    for parameter in alone:
        nn.utils.clip_grad_norm_(parameter, limit, order)
    one, _ = parameters_with_gradients(device=device)
    clipper(one[1])
    assert torch.equal(one[1].grad, together[1].grad)
    for ours, theirs in zip(together[:-1], alone[:-1], strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_clipper_without_gradients_does_nothing():
    for clip_type in GradientClipType:
        clipper = create_gradient_clipper(
            config(clip={"CLIP_TYPE": clip_type.value}).SOLVER.CLIP_GRADIENTS
        )
        clipper([])
        clipper(nn.Parameter(torch.ones(1)))


def test_a_class_gives_a_subclass_and_an_instance_itself():
    cfg = config(clip={})
    clipping = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    assert clipping.__name__ == "AdamWWithGradientClip"
    assert issubclass(clipping, torch.optim.AdamW)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    assert maybe_add_gradient_clipping(cfg, optimizer) is optimizer
    assert type(optimizer).__name__ == "AdamWWithGradientClip"


def test_an_instance_clips_from_then_on():
    (parameter, *_), (gradient, *_) = parameters_with_gradients()
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    maybe_add_gradient_clipping(config(clip={"CLIP_VALUE": 0.1}), optimizer)
    optimizer.step()
    np.testing.assert_allclose(-parameter.detach().numpy(), np.clip(gradient, -0.1, 0.1))


def test_nothing_changes_if_clipping_is_off():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    for given in (torch.optim.SGD, optimizer):
        assert maybe_add_gradient_clipping(config(), given) is given
    assert type(optimizer) is torch.optim.SGD


def test_what_would_not_clip_is_an_error():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(ValueError, match="before"):
        maybe_add_gradient_clipping(config(clip={}), optimizer)
    with pytest.raises(ValueError, match="'values'"):
        maybe_add_gradient_clipping(config(clip={"CLIP_TYPE": "values"}), torch.optim.SGD)
    for clippers in ({}, {"per_param_clipper": print, "global_clipper": print}):
        with pytest.raises(ValueError, match="one of"):
            _generate_optimizer_class_with_gradient_clipping(torch.optim.SGD, **clippers)


@pytest.mark.parametrize("kind", ["per_param_clipper", "global_clipper"])
def test_clippers_of_ones_own(kind):
    def halve(parameters):
        for parameter in [parameters] if isinstance(parameters, torch.Tensor) else parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)

    parameters, gradients = parameters_with_gradients()
    halving = _generate_optimizer_class_with_gradient_clipping(torch.optim.SGD, **{kind: halve})
    groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    halving(groups, lr=1.0).step()
    for parameter, gradient in zip(parameters, gradients, strict=False):
        np.testing.assert_allclose(-parameter.detach().numpy(), gradient / 2)


def test_gradients_that_a_closure_makes_are_clipped():
    # Clipping before the closure runs would clip the gradients of the step before.
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = maybe_add_gradient_clipping(config(clip={"CLIP_VALUE": 0.25}), torch.optim.SGD)(
        [parameter], lr=1.0
    )

    def closure():
        optimizer.zero_grad()
        loss = (parameter * torch.tensor([3.0, -0.125])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0.0
    assert parameter.tolist() == [-0.25, 0.125]


@pytest.mark.parametrize("from_class", [True, False])
def test_hooks_of_a_step_run_once(from_class):
    class Fresh(torch.optim.SGD):
        """Its own class, since constructing an optimizer changes its class."""

        def step(self, closure=None):
            return super().step(closure)

    parameter = nn.Parameter(torch.zeros(1))
    cfg = config(clip={})
    if from_class:
        Fresh([parameter])
        optimizer = maybe_add_gradient_clipping(cfg, Fresh)([parameter])
    else:
        optimizer = maybe_add_gradient_clipping(cfg, Fresh([parameter]))
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    parameter.grad = torch.ones(1)
    optimizer.step()
    # Fresh.step and SGD.step are two steps of PyTorch's; clipping makes no third.
    inner = Fresh([parameter])
    of_inner = []
    inner.register_step_pre_hook(lambda *_: of_inner.append("pre"))
    inner.register_step_post_hook(lambda *_: of_inner.append("post"))
    inner.step()
    assert calls == of_inner


def test_copies_clip_too():
    parameter = nn.Parameter(torch.zeros(1))
    clipping = maybe_add_gradient_clipping(config(clip={"CLIP_VALUE": 0.5}), torch.optim.SGD)
    copied = copy.deepcopy(clipping([parameter], lr=1.0))
    (parameter,) = copied.param_groups[0]["params"]
    parameter.grad = torch.full((1,), 4.0)
    copied.step()
    assert parameter.item() == -0.5


def test_the_configured_optimizer():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    cfg = config(
        BASE_LR=0.02,
        BIAS_LR_FACTOR=2.0,
        WEIGHT_DECAY=0.25,
        WEIGHT_DECAY_NORM=0.5,
        MOMENTUM=0.75,
        NESTEROV=True,
    )
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.SGD
    seen = {
        id(parameter): (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert [seen[id(parameter)] for parameter in model.parameters()] == [
        (0.02, 0.25, 0.75, True),
        (0.04, 0.25, 0.75, True),
        (0.02, 0.5, 0.75, True),
        (0.04, 0.5, 0.75, True),
    ]
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert type(build_optimizer(cfg, model)).__name__ == "SGDWithGradientClip"


def test_the_configured_optimizer_is_plain_sgd():
    """Momentum and decay written out, over a few steps."""
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(config(BASE_LR=0.1, WEIGHT_DECAY=0.01), model)
    weight = model.weight.detach().double().numpy().copy()
    velocity = np.zeros_like(weight)
    for index in range(4):
        gradient = np.random.default_rng(index).normal(size=weight.shape)
        model.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        model.bias.grad = torch.zeros(2)
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.01 * weight
        weight -= 0.1 * velocity
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-5, atol=1e-6)
