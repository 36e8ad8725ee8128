"""Boxes, BoxMode and the pairwise functions, against NumPy loops in float64."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from detectron2.structures import (
    Boxes,
    BoxMode,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures.boxes import matched_pairwise_iou, pairwise_intersection

XYXY, XYWH, XYWHA = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS


def random_xyxy(seed, count, extent=100.0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-extent / 4, extent, (count, 2))
    sides = rng.uniform(0.5, extent / 2, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()


def overlap(a, b):
    """Area that two boxes (sequences of 4 floats) share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def loop(function, boxes1, boxes2):
    rows = [[function(a, b) for b in boxes2.tolist()] for a in boxes1.tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(boxes1), len(boxes2))


def iou(a, b):
    shared = overlap(a, b)
    return shared / (area(a) + area(b) - shared) if shared > 0 else 0.0


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (1, 1), (17, 23)])
def test_pairwise_functions(n, m):
    a, b = random_xyxy(1, n), random_xyxy(2, m)
    expected = {
        pairwise_intersection: loop(overlap, a, b),
        pairwise_iou: loop(iou, a, b),
        pairwise_ioa: loop(lambda p, q: overlap(p, q) / area(q), a, b),
    }
    for function, matrix in expected.items():
        result = function(Boxes(a), Boxes(b))
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), matrix, rtol=1e-5, atol=1e-6)


def test_pairwise_iou_of_degenerate_boxes_is_zero():
    boxes = Boxes([[5, 5, 5, 5], [0, 0, 0, 9], [0, 0, 10, 10], [10, 0, 20, 10], [10, 10, 20, 20]])
    assert torch.equal(pairwise_iou(boxes, boxes), torch.diag(torch.tensor([0.0, 0, 1, 1, 1])))
    assert torch.equal(pairwise_ioa(boxes, boxes), torch.diag(torch.tensor([0.0, 0, 1, 1, 1])))


def test_pairwise_iou_accepts_noncontiguous_boxes():
    a = random_xyxy(3, 9)
    strided = a.t().contiguous().t()
    assert not strided.is_contiguous()
    assert torch.equal(pairwise_iou(Boxes(strided), Boxes(a)), pairwise_iou(Boxes(a), Boxes(a)))


def test_matched_pairwise_iou():
    a, b = random_xyxy(4, 12), random_xyxy(5, 12)
    expected = loop(iou, a, b).diagonal()
    result = matched_pairwise_iou(Boxes(a), Boxes(b))
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError, match="12 and 11"):
        matched_pairwise_iou(Boxes(a), Boxes(b[:11]))


def test_point_box_distance_is_signed_left_top_right_bottom():
    points = torch.tensor([[3.0, 4.0], [-1.0, 9.0]])
    boxes = Boxes([[1, 2, 10, 20]])
    expected = torch.tensor([[[2.0, 2, 7, 16]], [[-2.0, 7, 11, 11]]])
    assert torch.equal(pairwise_point_box_distance(points, boxes), expected)


@pytest.mark.parametrize("empty", [[], torch.zeros(0), torch.zeros(3, 0), torch.zeros(0, 7)])
def test_empty_input_of_any_shape_is_no_boxes(empty):
    boxes = Boxes(empty)
    assert boxes.tensor.shape == (0, 4)
    assert len(boxes) == 0
    assert boxes.area().shape == (0,)
    boxes.clip((10, 10))
    boxes.scale(2, 2)
    assert boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4)])
def test_wrong_shape_raises_with_the_shape(shape):
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        Boxes(torch.ones(shape))


def test_construction_is_float32_and_shares_float32():
    for source in ([[1, 2, 3, 4]], np.array([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 4]]).half()):
        boxes = Boxes(source)
        assert boxes.tensor.dtype == torch.float32
        assert boxes.tensor.tolist() == [[1, 2, 3, 4]]
    tensor = random_xyxy(1, 3)
    assert Boxes(tensor).tensor is tensor
    assert Boxes(tensor).clone().tensor.data_ptr() != tensor.data_ptr()
    assert Boxes(tensor).to(torch.device("cpu")).tensor.data_ptr() == tensor.data_ptr()


def test_area_is_negative_for_an_inverted_box():
    assert Boxes([[0, 0, 2, 5], [2, 0, 0, 5]]).area().tolist() == [10, -10]


def test_clip_leaves_the_old_tensor_alone():
    tensor = torch.tensor([[-5.0, -6, 200, 300], [3, 4, 5, 6], [400, 500, 600, 700]])
    before = tensor.clone()
    boxes = Boxes(tensor)
    boxes.clip((80, 90))
    assert boxes.tensor.tolist() == [[0, 0, 90, 80], [3, 4, 5, 6], [90, 80, 90, 80]]
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clip_rejects_what_is_not_finite(bad):
    with pytest.raises(AssertionError, match="infinite or NaN"):
        Boxes([[0, 0, 1, 1], [0, bad, 1, 1]]).clip((5, 5))


def test_nonempty_and_inside_box_at_their_limits():
    boxes = Boxes([[0, 0, 10, 20], [0, 0, 10.5, 21], [-1, 0, 5, 5], [0, 0, 30, 5]])
    assert boxes.nonempty(10).tolist() == [False, True, False, False]
    # 30 wide: a box that touches the right border is outside, one on the left border is inside.
    assert boxes.inside_box((40, 30)).tolist() == [True, True, False, False]
    assert boxes.inside_box((40, 30), boundary_threshold=1).tolist() == [True, True, True, True]
    assert Boxes([[-1.5, 0, 5, 5]]).inside_box((40, 30), 1).tolist() == [False]


def test_scale_works_in_place():
    tensor = torch.tensor([[1.0, 2, 3, 4]])
    Boxes(tensor).scale(2, 10)
    assert tensor.tolist() == [[2, 20, 6, 40]]


def test_centers_indexing_iteration_and_repr():
    tensor = random_xyxy(7, 6)
    boxes = Boxes(tensor)
    torch.testing.assert_close(boxes.get_centers(), tensor.reshape(-1, 2, 2).mean(1))
    assert torch.equal(boxes[-1].tensor, tensor[5:])
    assert torch.equal(boxes[1:5:2].tensor, tensor[[1, 3]])
    assert torch.equal(boxes[torch.tensor([4, 0, 0])].tensor, tensor[[4, 0, 0]])
    assert torch.equal(boxes[tensor[:, 0] > 20].tensor, tensor[tensor[:, 0] > 20])
    assert [row.shape for row in boxes] == [(4,)] * 6
    assert repr(Boxes([[1, 2, 3, 4]])) == "Boxes(tensor([[1., 2., 3., 4.]]))"
    with pytest.raises(IndexError):
        boxes[6]
    with pytest.raises(IndexError, match="6 boxes"):
        boxes[:, 0]


def test_cat_never_shares_storage():
    tensor = random_xyxy(8, 4)
    boxes = Boxes(tensor)
    assert torch.equal(Boxes.cat([boxes[:1], boxes[1:]]).tensor, tensor)
    single = Boxes.cat([boxes])
    single.scale(3, 3)
    assert torch.equal(boxes.tensor, tensor)
    assert not torch.equal(single.tensor, tensor)
    assert Boxes.cat([]).tensor.shape == (0, 4)
    with pytest.raises(TypeError, match="list of Boxes"):
        Boxes.cat(boxes)
    with pytest.raises(TypeError, match="list of Boxes"):
        Boxes.cat([boxes, tensor])


def use_boxes(a: torch.Tensor, b: torch.Tensor):
    """What scripted models do with boxes; at module level, since TorchScript reads the source."""
    x, y = Boxes(a), Boxes(b)
    x.clip((70, 90))
    x.scale(2.0, 0.5)
    x = x[x.nonempty(0.25)].to(a.device)
    return (
        x.clone().tensor,
        x.area(),
        x.get_centers(),
        x.inside_box((60, 80), 2),
        pairwise_iou(x, y),
        pairwise_ioa(x, y),
        matched_pairwise_iou(y, y),
        torch.zeros(len(x), device=x.device),
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_code_may_use_boxes():
    inputs = random_xyxy(9, 8), random_xyxy(10, 5)
    for result, expected in zip(
        torch.jit.script(use_boxes)(*inputs), use_boxes(*inputs), strict=True
    ):
        assert torch.equal(result, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("function", [pairwise_iou, pairwise_ioa])
def test_pairwise_functions_where_the_operators_do_not_apply(function):
    """A trace runs without this library; other devices have no kernel."""

    def between(a, b):
        return function(Boxes(a), Boxes(b))

    a, b = random_xyxy(14, 6), random_xyxy(15, 5)
    traced = torch.jit.trace(between, (a, b))
    assert "detectron2::" not in str(traced.inlined_graph)
    assert torch.equal(traced(b, a), between(b, a))
    assert between(a.to("meta"), b.to("meta")).shape == (6, 5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("function", [pairwise_iou, pairwise_ioa])
def test_pairwise_functions_under_transforms(function):
    def total(a, b):
        return (function(Boxes(a), Boxes(b)) * torch.arange(3)).sum()

    a, b = random_xyxy(18, 4), random_xyxy(19, 3)
    leaf = a.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf, b), leaf)
    torch.testing.assert_close(torch.func.grad(total)(a, b), expected)
    several = torch.stack([a + 7, a])
    torch.testing.assert_close(
        torch.vmap(torch.func.grad(total), in_dims=(0, None))(several, b)[1], expected
    )
    tangent = torch.rand(4, 4)
    _, directional = torch.func.jvp(lambda a: total(a, b), (a,), (tangent,))
    torch.testing.assert_close(directional, (expected * tangent).sum())
    with forward_ad.dual_level():
        dual = total(forward_ad.make_dual(a, tangent), b)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, directional)


@pytest.mark.parametrize("function", [pairwise_iou, pairwise_ioa])
def test_pairwise_functions_are_differentiable(function):
    a, b = random_xyxy(16, 4).requires_grad_(), random_xyxy(17, 3)
    weights = torch.rand(4, 3)
    (grad,) = torch.autograd.grad((function(Boxes(a), Boxes(b)) * weights).sum(), a)
    nudge = torch.rand(4, 4) * 1e-2
    with torch.no_grad():
        ahead, behind = (function(Boxes(a + s * nudge), Boxes(b)) for s in (1, -1))
    difference = ((ahead - behind) * weights).sum() / 2
    torch.testing.assert_close((grad * nudge).sum(), difference, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("function", [pairwise_iou, pairwise_ioa])
def test_boxes_that_are_not_finite_overlap_nothing(function):
    nan, inf = math.nan, math.inf
    a = torch.tensor([[0, 0, 2, 2.0]])
    b = torch.tensor([[nan, 0, 2, 2], [0, 0, 2, nan], [inf, inf, inf, inf], [-inf, -inf, inf, inf]])
    expected = [0, 0, 0, 0]
    assert function(Boxes(a), Boxes(b)).tolist() == [expected]
    assert function(Boxes(b), Boxes(b))[3, 3] == 0


def test_compiled_code_may_use_boxes_without_a_graph_break():
    def clip_and_compare(tensor):
        boxes = Boxes(tensor)
        boxes.clip((70, 90))
        return pairwise_iou(boxes, boxes)

    compiled = torch.compile(clip_and_compare, backend="eager", fullgraph=True)
    tensor = random_xyxy(11, 6)
    assert torch.equal(compiled(tensor), clip_and_compare(tensor))


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    inputs = random_xyxy(12, 40), random_xyxy(13, 30)
    for result, expected in zip(
        use_boxes(*(t.cuda() for t in inputs)), use_boxes(*inputs), strict=True
    ):
        assert result.is_cuda
        torch.testing.assert_close(result.cpu(), expected)


# ---------------------------------------------------------------------------------- BoxMode


def test_mode_values():
    assert [(mode.name, int(mode)) for mode in BoxMode] == [
        ("XYXY_ABS", 0),
        ("XYWH_ABS", 1),
        ("XYXY_REL", 2),
        ("XYWH_REL", 3),
        ("XYWHA_ABS", 4),
    ]


def hull(cx, cy, w, h, angle):
    """Bounds of the four corners of a rotated box, turned one by one."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = [(u * w / 2, v * h / 2) for u in (-1, 1) for v in (-1, 1)]
    xs = [cx + c * u + s * v for u, v in corners]
    ys = [cy - s * u + c * v for u, v in corners]
    return [min(xs), min(ys), max(xs), max(ys)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("as_numpy", [False, True])
def test_convert_arrays(dtype, as_numpy):
    rng = np.random.default_rng(0)
    wrap = (lambda t: t.numpy()) if as_numpy else (lambda t: t)
    xyxy = random_xyxy(1, 7).to(dtype)
    rotated = torch.from_numpy(rng.uniform([0, 0, 1, 1, -400], [90, 90, 50, 50, 400], (7, 5)))
    rotated = rotated.to(dtype)
    xywh = torch.cat([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], dim=1)
    centred = [[x + w / 2, y + h / 2, w, h, 0] for x, y, w, h in xywh.double().tolist()]
    hulls = [hull(*row) for row in rotated.double().tolist()]
    for source, from_mode, to_mode, expected in [
        (xyxy, XYXY, XYWH, xywh),
        (xywh, XYWH, XYXY, xyxy),
        (xywh, XYWH, XYWHA, torch.tensor(centred, dtype=torch.float64)),
        (rotated, XYWHA, XYXY, torch.tensor(hulls, dtype=torch.float64)),
    ]:
        before = source.clone()
        result = BoxMode.convert(wrap(source), from_mode, to_mode)
        assert type(result) is (np.ndarray if as_numpy else torch.Tensor)
        result = torch.as_tensor(result)
        assert result.dtype == dtype
        torch.testing.assert_close(result, expected.to(dtype), rtol=1e-6, atol=2e-5)
        assert torch.equal(source, before)
        # One box of an array is converted as the array is.
        single = BoxMode.convert(wrap(source[3]), from_mode, to_mode)
        assert torch.equal(torch.as_tensor(single), result[3])


@pytest.mark.parametrize("container", [list, tuple])
def test_convert_one_box_keeps_its_type(container):
    result = BoxMode.convert(container([1, 2, 3, 4]), XYWH, XYXY)
    assert result == container([1, 2, 4, 6])
    assert all(type(value) is int for value in result)
    result = BoxMode.convert(container([0.5, 2, 3, 4.25]), XYXY, XYWH)
    assert result == container([0.5, 2.0, 2.5, 2.25])
    # Floats go through float32.
    assert BoxMode.convert(container([0.1, 0, 1, 1]), XYWH, XYXY)[0] == float(np.float32(0.1))
    assert BoxMode.convert(container([50, 40, 20, 10, 90.0]), XYWHA, XYXY) == pytest.approx(
        container([45, 30, 55, 50])
    )


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_integers_are_not_truncated_to_a_centre(make):
    result = BoxMode.convert(make([1, 2, 3, 5]), XYWH, XYWHA)
    assert list(map(float, result)) == [2.5, 4.5, 3, 5, 0]
    diagonal = BoxMode.convert(make([0, 0, 10, 10, 45]), XYWHA, XYXY)
    assert float(diagonal[2]) == pytest.approx(5 * math.sqrt(2), rel=1e-6)


def test_convert_to_the_same_mode_returns_the_object():
    for box in (torch.ones(2, 4), [1, 2, 3, 4], np.ones((1, 4))):
        assert BoxMode.convert(box, XYXY, XYXY) is box


def test_convert_rejects_what_it_cannot_convert():
    with pytest.raises(AssertionError, match="XYXY_REL to XYXY_ABS"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, XYXY)
    with pytest.raises(AssertionError, match="XYXY_ABS to XYWH_REL"):
        BoxMode.convert([0, 0, 1, 1], XYXY, BoxMode.XYWH_REL)
    with pytest.raises(NotImplementedError, match="XYXY_ABS to XYWHA_ABS"):
        BoxMode.convert([0, 0, 1, 1], XYXY, XYWHA)
    with pytest.raises(ValueError, match=r"has 4 numbers, got the shape \[3\]"):
        BoxMode.convert([0, 0, 1], XYXY, XYWH)
    with pytest.raises(ValueError, match=r"has 5 numbers, got the shape \[2, 4\]"):
        BoxMode.convert(torch.ones(2, 4), XYWHA, XYXY)
    with pytest.raises(ValueError, match=r"got the shape \[2, 4\]"):
        BoxMode.convert([[0, 0, 1, 1], [0, 0, 2, 2]], XYXY, XYWH)
