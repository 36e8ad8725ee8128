"""Heads that classify points, and the loss on masks, against loops."""

import math

import numpy as np
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.projects.point_rend.mask_head import calculate_uncertainty
from detectron2.projects.point_rend.point_head import (
    POINT_HEAD_REGISTRY,
    ImplicitPointHead,
    StandardPointHead,
    build_point_head,
    roi_mask_point_loss,
)
from detectron2.projects.point_rend.semantic_seg import (
    calculate_uncertainty as uncertainty_of_pixels,
)
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from .project_models import make_config


def make_head(channels, **options):
    values = {
        "NUM_CLASSES": 3,
        "FC_DIM": 6,
        "NUM_FC": 2,
        **{k: v for k, v in options.items() if "ENABLED" not in k},
    }
    cfg = make_config(
        add_pointrend_config,
        {f"MODEL.POINT_HEAD.{k}": v for k, v in values.items()},
        {f"MODEL.IMPLICIT_POINTREND.{k}": v for k, v in options.items() if "ENABLED" in k},
    )
    return build_point_head(cfg, ShapeSpec(channels=channels))


def test_registered():
    assert POINT_HEAD_REGISTRY.get("StandardPointHead") is StandardPointHead
    assert POINT_HEAD_REGISTRY.get("ImplicitPointHead") is ImplicitPointHead


@pytest.mark.parametrize("each_layer", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
def test_standard_head(each_layer, agnostic):
    head = make_head(4, COARSE_PRED_EACH_LAYER=each_layer, CLS_AGNOSTIC_MASK=agnostic)
    assert list(head.state_dict()) == [
        f"{layer}.{name}" for layer in ("fc1", "fc2", "predictor") for name in ("weight", "bias")
    ]
    fine, coarse = torch.randn(2, 4, 5), torch.randn(2, 3, 5)
    logits = head(fine, coarse)
    state = {name: value.detach().squeeze(-1) for name, value in head.state_dict().items()}
    for r, p in np.ndindex(2, 5):
        x = torch.cat([fine[r, :, p], coarse[r, :, p]])
        for layer in ("fc1", "fc2"):
            bias = head.state_dict()[f"{layer}.bias"]
            x = (state[f"{layer}.weight"] @ x + bias).clamp(min=0)
            if each_layer:
                x = torch.cat([x, coarse[r, :, p]])
        expected = state["predictor.weight"] @ x + head.predictor.bias.detach()
        torch.testing.assert_close(logits[r, :, p].detach(), expected)


@pytest.mark.parametrize(
    ("features", "positions", "width"), [(True, True, 260), (True, False, 4), (False, True, 256)]
)
def test_implicit_head(features, positions, width):
    head = make_head(
        4,
        NAME="ImplicitPointHead",
        IMAGE_FEATURE_ENABLED=features,
        POS_ENC_ENABLED=positions,
    )
    assert head.in_channels == width
    assert head.num_params == (width + 1) * 6 + 7 * 6 + 7 * 3
    names = ["positional_encoding_gaussian_matrix"] if positions else []
    assert list(head.state_dict()) == names
    fine, coords = torch.randn(2, 4, 5), torch.rand(2, 5, 2)
    parameters = torch.randn(2, head.num_params)
    logits = head(fine, coords, parameters)
    assert logits.shape == (2, 3, 5)
    sizes = [width * 6, 36, 18, 6, 6, 3]
    for r, p in np.ndindex(2, 5):
        x = []
        if positions:
            matrix = head.positional_encoding_gaussian_matrix
            angles = [
                2 * math.pi * sum((2 * coords[r, p, i] - 1) * matrix[i, k] for i in range(2))
                for k in range(128)
            ]
            x += [torch.sin(a) for a in angles] + [torch.cos(a) for a in angles]
        if features:
            x += list(fine[r, :, p])
        x = torch.stack(x)
        w1, w2, w3, b1, b2, b3 = parameters[r].split(sizes)
        x = (w1.view(6, width) @ x + b1).clamp(min=0)
        x = (w2.view(6, 6) @ x + b2).clamp(min=0)
        expected = w3.view(3, 6) @ x + b3
        torch.testing.assert_close(logits[r, :, p], expected, rtol=1e-3, atol=1e-3)


def test_positions_are_encoded_in_float32():
    head = make_head(4, NAME="ImplicitPointHead", IMAGE_FEATURE_ENABLED=False)
    coords = torch.rand(2, 5, 2)
    encoded = head._encoded(coords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head._encoded(coords), encoded)


def test_implicit_head_without_instances():
    head = make_head(4, NAME="ImplicitPointHead")
    empty = torch.zeros(0, head.num_params, requires_grad=True)
    logits = head(torch.zeros(0, 4, 5), torch.zeros(0, 5, 2), empty)
    assert logits.shape == (0, 3, 5)
    logits.sum().backward()


def test_bad_implicit_head():
    with pytest.raises(ValueError, match="got neither"):
        make_head(4, NAME="ImplicitPointHead", IMAGE_FEATURE_ENABLED=False, POS_ENC_ENABLED=False)
    head = make_head(4, NAME="ImplicitPointHead")
    with pytest.raises(ValueError, match=r"\[1, 7\]"):
        head(torch.zeros(1, 4, 5), torch.zeros(1, 5, 2), torch.zeros(1, 7))


def instances(classes):
    return [Instances((9, 9), gt_classes=torch.tensor(c, dtype=torch.int64)) for c in classes]


@pytest.mark.parametrize("maps", [1, 4])
def test_point_loss(maps):
    logits = 2 * torch.randn(3, maps, 6)
    labels = torch.rand(3, 6)
    labels[:, :2] = torch.tensor([0.0, 1.0])
    labels[1, 3:5] = -1
    with EventStorage() as storage:
        loss = roi_mask_point_loss(logits, instances([[3, 0], [], [2]]), labels)
    total, right, counted = 0.0, 0, 0
    for r, p in np.ndindex(3, 6):
        label = labels[r, p].item()
        if label != -1:
            logit = logits[r, [3, 0, 2][r] if maps > 1 else 0, p].item()
            probability = 1 / (1 + math.exp(-logit))
            total -= label * math.log(probability) + (1 - label) * math.log(1 - probability)
            right += (logit > 0) == (label >= 1)
            counted += 1
    assert counted == 16
    assert loss.item() == pytest.approx(total / 18, rel=1e-5)
    assert storage.latest()["point/accuracy"][0] == pytest.approx(right / counted)


def test_point_loss_of_nothing():
    logits = torch.zeros(0, 4, 6, requires_grad=True)
    loss = roi_mask_point_loss(logits, instances([[], []]), torch.zeros(0, 6))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


def test_uncertainty_of_masks():
    logits, classes = torch.randn(3, 4, 2, 5), torch.tensor([3, 0, 2])
    uncertainty = calculate_uncertainty(logits, classes)
    assert uncertainty.shape == (3, 1, 2, 5)
    for r, c in enumerate(classes):
        torch.testing.assert_close(uncertainty[r, 0], -logits[r, c].abs())
    one = logits[:, :1]
    torch.testing.assert_close(calculate_uncertainty(one, classes), -one.abs())


def test_uncertainty_of_pixels():
    logits = torch.randn(2, 4, 3, 5)
    # Two classes that are best.
    logits[0, 1:3, 0, 0] = 9
    best = logits.sort(dim=1, descending=True).values
    torch.testing.assert_close(uncertainty_of_pixels(logits), best[:, 1:2] - best[:, :1])
    assert uncertainty_of_pixels(logits)[0, 0, 0, 0] == 0
    with pytest.raises(ValueError, match=r"\[2, 1, 3, 5\]"):
        uncertainty_of_pixels(logits[:, :1])
