"""Deltas against NumPy in float64, losses against those of single boxes."""

import math

import numpy as np
import pytest
import torch
from fvcore.nn import giou_loss as fvcore_giou_loss

from detectron2.layers import ciou_loss, diou_loss
from detectron2.modeling.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
    _dense_box_regression_loss,
    _giou_loss,
)
from detectron2.structures import Boxes


def random_boxes(n, generator_seed=0, size=200.0):
    g = torch.Generator().manual_seed(generator_seed)
    corner = torch.rand(n, 2, generator=g) * size
    return torch.cat([corner, corner + 4 + torch.rand(n, 2, generator=g) * size], dim=1)


def random_rotated_boxes(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(n, 5, generator=g)
    return torch.cat([values[:, :2] * 200, 4 + values[:, 2:4] * 90, values[:, 4:] * 360 - 180], 1)


def centre_form(boxes):
    boxes = boxes.double().numpy()
    sides = boxes[..., 2:] - boxes[..., :2]
    return (boxes[..., :2] + boxes[..., 2:]) / 2, sides


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1, 2, 3, 4)])
@pytest.mark.parametrize("n", [0, 1, 30])
def test_deltas(weights, n):
    a, b = random_boxes(n, 1), random_boxes(n, 2)
    transform = Box2BoxTransform(weights)
    deltas = transform.get_deltas(a, b)
    (ca, sa), (cb, sb) = centre_form(a), centre_form(b)
    wanted = np.concatenate([(cb - ca) / sa, np.log(sb / sa)], axis=1) * np.array(weights)
    np.testing.assert_allclose(deltas, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(transform.apply_deltas(deltas, a), b, rtol=1e-4, atol=1e-3)


def test_deltas_of_several_classes_and_images():
    transform = Box2BoxTransform((1.0, 2.0, 3.0, 4.0))
    boxes = random_boxes(6)
    deltas = torch.randn(6, 12)
    together = transform.apply_deltas(deltas, boxes)
    for k in range(3):
        columns = slice(4 * k, 4 * k + 4)
        torch.testing.assert_close(
            together[:, columns], transform.apply_deltas(deltas[:, columns], boxes)
        )
    batch = torch.randn(2, 6, 4)
    of_batch = transform.apply_deltas(batch, boxes)
    for i in range(2):
        torch.testing.assert_close(of_batch[i], transform.apply_deltas(batch[i], boxes))
    torch.testing.assert_close(transform.get_deltas(boxes, of_batch), batch, rtol=1e-3, atol=1e-3)


def test_sides_grow_no_more_than_the_clamp():
    boxes = random_boxes(5)
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    grown = transform.apply_deltas(torch.full((5, 4), 1e6), boxes)
    ratio = (grown[:, 2:] - grown[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    torch.testing.assert_close(ratio, torch.full((5, 2), 1000 / 16), rtol=0.2, atol=0)
    # From below there is none.
    assert transform.apply_deltas(torch.tensor([[0, 0, -200.0, 0]]), boxes[:1]).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_deltas(dtype):
    boxes = random_boxes(5) + 2000
    deltas = (torch.randn(5, 4) / 4).to(dtype)
    for transform in (Box2BoxTransform((1.0,) * 4), Box2BoxTransformLinear()):
        result = transform.apply_deltas(deltas, boxes)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert result.dtype == wide
        torch.testing.assert_close(result, transform.apply_deltas(deltas.to(wide), boxes))


def test_degenerate_source():
    boxes = random_boxes(3)
    flat = boxes.clone()
    flat[1, 2] = flat[1, 0]
    with pytest.raises(AssertionError, match=r"got 0\.0"):
        Box2BoxTransform((1.0,) * 4).get_deltas(flat, boxes)


@pytest.mark.parametrize("weights", [(1.0,) * 5, (10.0, 10.0, 5.0, 5.0, 2.0), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("n", [0, 1, 30])
def test_rotated(weights, n):
    a, b = random_rotated_boxes(n, 1), random_rotated_boxes(n, 2)
    transform = Box2BoxTransformRotated(weights)
    deltas = transform.get_deltas(a, b)
    x, y = a.double().numpy(), b.double().numpy()
    turn = (y[:, 4:] - x[:, 4:] + 180) % 360 - 180
    wanted = np.concatenate(
        [(y[:, :2] - x[:, :2]) / x[:, 2:4], np.log(y[:, 2:4] / x[:, 2:4]), np.deg2rad(turn)], 1
    )
    np.testing.assert_allclose(deltas, wanted * np.array(weights), rtol=1e-4, atol=2e-5)
    back = transform.apply_deltas(deltas, a)
    torch.testing.assert_close(back[:, :4], b[:, :4], rtol=1e-4, atol=1e-3)
    turned = (back[:, 4] - b[:, 4] + 180) % 360 - 180
    assert (turned.abs() < 1e-2).all()
    assert ((back[:, 4] >= -180) & (back[:, 4] < 180)).all()
    classes = transform.apply_deltas(torch.cat([deltas, deltas * 0], dim=1), a)
    torch.testing.assert_close(classes[:, :5], back)
    torch.testing.assert_close(classes[:, 5:9], a[:, :4], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_linear(normalize):
    transform = Box2BoxTransformLinear(normalize)
    points = torch.tensor([[8.0, 8, 16, 16], [16, 8, 24, 16]])
    boxes = torch.tensor([[0.0, 2, 30, 40], [4, 1, 80, 90]])
    deltas = transform.get_deltas(points, boxes)
    wanted = torch.tensor([[12.0, 10, 18, 28], [16, 11, 60, 78]])
    torch.testing.assert_close(deltas, wanted / 8 if normalize else wanted)
    torch.testing.assert_close(transform.apply_deltas(deltas, points), boxes)
    nothing = transform.apply_deltas(-deltas, points)
    torch.testing.assert_close(nothing, torch.tensor([[12.0, 12] * 2, [20.0, 12] * 2]))


def test_bad_shapes():
    transform = Box2BoxTransform((1.0,) * 4)
    with pytest.raises(ValueError, match=r"\[3, 5\]"):
        transform.apply_deltas(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"\[3, 7\]"):
        transform.apply_deltas(torch.zeros(3, 7), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"\[3, 5\]"):
        transform.get_deltas(torch.zeros(3, 4), torch.zeros(3, 5))


def test_giou_loss():
    a, b = random_boxes(40, 1), random_boxes(40, 2)
    a[0] = b[0]
    a[1] = b[1] + 1000
    torch.testing.assert_close(_giou_loss(a, b), fvcore_giou_loss(a, b))


LOSSES = {
    "giou": lambda a, b: fvcore_giou_loss(a, b, reduction="sum"),
    "diou": lambda a, b: diou_loss(a, b, reduction="sum"),
    "ciou": lambda a, b: ciou_loss(a, b, reduction="sum"),
}


def dense_problem(n=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    anchors = [Boxes(random_boxes(12, 1)), Boxes(random_boxes(5, 2))]
    deltas = [torch.randn(n, len(x), 4, generator=g).requires_grad_() for x in anchors]
    gt_boxes = [random_boxes(17, 3 + i) for i in range(n)]
    mask = torch.rand(n, 17, generator=g) < 0.4
    # What anchors without an object are matched with.
    for boxes, of_image in zip(gt_boxes, mask, strict=True):
        boxes[~of_image] = 0
    return anchors, deltas, gt_boxes, mask


@pytest.fixture
def not_counting(monkeypatch):
    """The way that other devices than the CPU go, which do not count the foreground."""
    monkeypatch.setattr(
        "detectron2.modeling.box_regression._counts_foreground", lambda device: False
    )


@pytest.fixture(params=["counting", "not_counting"])
def counting(request):
    """Both ways."""
    if request.param == "not_counting":
        request.getfixturevalue("not_counting")


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("kind", ["smooth_l1", *LOSSES])
@pytest.mark.parametrize("most", [None, 20, 1000])
def test_dense_loss(kind, most):
    transform = Box2BoxTransform((1.0, 1.0, 2.0, 2.0))
    anchors, deltas, gt_boxes, mask = dense_problem()
    wanted = torch.zeros(())
    for i in range(2):
        for row in mask[i].nonzero()[:, 0].tolist():
            anchor = torch.cat([x.tensor for x in anchors])[row : row + 1]
            delta = torch.cat([x[i] for x in deltas])[row : row + 1]
            target = gt_boxes[i][row : row + 1]
            if kind == "smooth_l1":
                difference = (delta - transform.get_deltas(anchor, target)).abs()
                smooth = torch.where(difference < 0.5, difference**2, difference - 0.25)
                wanted = wanted + smooth.sum()
            else:
                wanted = wanted + LOSSES[kind](transform.apply_deltas(delta, anchor), target)
    wanted_grads = torch.autograd.grad(wanted, deltas)
    loss = _dense_box_regression_loss(
        anchors, transform, deltas, gt_boxes, mask, kind, 0.5, max_foreground=most
    )
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(torch.autograd.grad(loss, deltas), wanted_grads)


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("kind", ["smooth_l1", "giou"])
@pytest.mark.parametrize("most", [None, 3])
def test_dense_loss_of_no_foreground(kind, most):
    anchors, deltas, gt_boxes, mask = dense_problem()
    loss = _dense_box_regression_loss(
        anchors,
        Box2BoxTransformLinear() if kind == "giou" else Box2BoxTransform((1.0,) * 4),
        deltas,
        gt_boxes,
        torch.zeros_like(mask),
        kind,
        max_foreground=most,
    )
    assert loss.item() == 0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, deltas))


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("kind", ["smooth_l1", *LOSSES])
@pytest.mark.parametrize("most", [None, 20])
def test_predictions_of_the_background_do_not_count(kind, most):
    anchors, deltas, gt_boxes, mask = dense_problem()
    transform = Box2BoxTransform((1.0,) * 4, scale_clamp=math.inf)
    for of_level, is_chosen in zip(deltas, mask.split([x.size(1) for x in deltas], 1), strict=True):
        of_level.data[~is_chosen] = 1e30
    loss = _dense_box_regression_loss(
        anchors, transform, deltas, gt_boxes, mask, kind, max_foreground=most
    )
    assert loss.isfinite()
    grads = torch.cat(torch.autograd.grad(loss, deltas), dim=1)
    assert grads.isfinite().all()
    assert not grads[~mask].any()
    assert grads[mask].any(dim=1).all()


@pytest.mark.usefixtures("not_counting")
def test_dense_loss_tells_of_more_foreground_than_was_promised():
    anchors, deltas, gt_boxes, mask = dense_problem()
    loss = _dense_box_regression_loss(
        anchors, Box2BoxTransform((1.0,) * 4), deltas, gt_boxes, mask, max_foreground=2
    )
    assert math.isnan(loss.item())


def test_unknown_loss():
    anchors, deltas, gt_boxes, mask = dense_problem()
    with pytest.raises(ValueError, match="'huber'"):
        _dense_box_regression_loss(
            anchors, Box2BoxTransform((1.0,) * 4), deltas, gt_boxes, mask, "huber"
        )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripts():
    class Holder(torch.nn.Module):
        def __init__(self, transform):
            super().__init__()
            self.transform = transform

        def forward(self, deltas: torch.Tensor, boxes: torch.Tensor):
            moved = self.transform.apply_deltas(deltas, boxes)
            return moved, self.transform.get_deltas(boxes, moved)

    for transform, boxes in (
        (Box2BoxTransform((1.0, 2.0, 3.0, 4.0)), random_boxes(5)),
        (Box2BoxTransformLinear(), random_boxes(5)),
        (Box2BoxTransformRotated((1.0, 1.0, 2.0, 2.0, 1.0)), random_rotated_boxes(5)),
    ):
        module = Holder(transform)
        deltas = torch.rand(5, boxes.size(1))
        for a, b in zip(
            torch.jit.script(module)(deltas, boxes), module(deltas, boxes), strict=True
        ):
            torch.testing.assert_close(a, b)
