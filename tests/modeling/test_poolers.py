"""The pooler against RoIAlign of single boxes, each from its level."""

import math

import pytest
import torch
from torchvision.ops import roi_pool

from detectron2.layers import ROIAlign, ROIAlignRotated
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes, RotatedBoxes

SCALES = [1 / 4, 1 / 8, 1 / 16]


def features(channels=3, images=2, dtype=torch.float32):
    return [torch.randn(images, channels, 160 // s, 200 // s).to(dtype) for s in (4, 8, 16)]


def boxes(count):
    corners = torch.rand(count, 2) * 60
    return Boxes(torch.cat([corners, corners + 2 + torch.rand(count, 2) ** 3 * 500], dim=1))


def rotated_boxes(count):
    sizes = 2 + torch.rand(count, 2) ** 3 * 500
    return RotatedBoxes(
        torch.cat([torch.rand(count, 2) * 160, sizes, torch.rand(count, 1) * 90], 1)
    )


def level_of(area, canonical_size=224, canonical_level=4, lowest=2, highest=4):
    if area <= 0:
        return 0
    level = math.floor(canonical_level + math.log2(math.sqrt(area) / canonical_size + 1e-8))
    return min(max(level, lowest), highest) - lowest


SINGLE = {
    "ROIAlignV2": lambda x, roi, s, n: ROIAlign(n, s, 0, aligned=True)(x, roi),
    "ROIAlign": lambda x, roi, s, n: ROIAlign(n, s, 0, aligned=False)(x, roi),
    "ROIPool": lambda x, roi, s, n: roi_pool(x, roi, n, s),
    "ROIAlignRotated": lambda x, roi, s, n: ROIAlignRotated(n, s, 0)(x, roi),
}


def pool_singly(kind, x, lists, size):
    rows = []
    for i, of_image in enumerate(lists):
        for box, area in zip(of_image.tensor, of_image.area().tolist(), strict=True):
            level = level_of(area)
            roi = torch.cat([box.new_tensor([i]), box])[None]
            rows.append(SINGLE[kind](x[level], roi, SCALES[level], size))
    return torch.cat(rows) if rows else x[0].new_zeros(0, x[0].shape[1], *size)


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("counts", [(12, 5), (0, 3), (0, 0), (1, 0)])
@pytest.mark.parametrize("form", ["usual", "by level", "in graph"])
def test_pooling(kind, counts, form, monkeypatch):
    """Also in the forms that scripts and graphs have."""
    if form != "usual":
        monkeypatch.setattr("detectron2.modeling.poolers.can_pool_natively", lambda x: False)
    in_graph = form == "in graph"
    monkeypatch.setattr("detectron2.modeling.poolers._is_making_graph", lambda: in_graph)
    make = rotated_boxes if kind == "ROIAlignRotated" else boxes
    lists = [make(count) for count in counts]
    x = [f.requires_grad_() for f in features()]
    pooler = ROIPooler((3, 5), SCALES, 0, kind)
    pooled = pooler(x, lists)
    wanted = pool_singly(kind, x, lists, (3, 5))
    torch.testing.assert_close(pooled, wanted, rtol=1e-4, atol=1e-4)
    if sum(counts):
        weights = torch.randn(pooled.shape)
        grads = [
            torch.autograd.grad((y * weights).sum(), x, allow_unused=True, materialize_grads=True)
            for y in (pooled, wanted)
        ]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    assert pooler.state_dict() == {}


@pytest.mark.parametrize("kind", ["ROIAlignV2", "ROIPool", "ROIAlignRotated"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_boxes(kind, dtype):
    make = rotated_boxes if kind == "ROIAlignRotated" else boxes
    x, lists = features(dtype=dtype), [make(6), make(3)]
    pooler = ROIPooler(4, SCALES, 2, kind)
    pooled = pooler(x, lists)
    assert pooled.dtype == dtype
    wide = pooler([f.float() for f in x], lists)
    torch.testing.assert_close(pooled.float(), wide, rtol=1e-2, atol=1e-2)


def test_one_level_and_no_images():
    pooler = ROIPooler(4, [1 / 8], 0, "ROIAlignV2")
    x = features()[1:2]
    lists = [boxes(3), boxes(2)]
    rois = convert_boxes_to_pooler_format(lists)
    torch.testing.assert_close(
        pooler(x, lists), ROIAlign((4, 4), 1 / 8, 0)(x[0], rois), rtol=1e-4, atol=1e-4
    )
    assert pooler([x[0][:0]], []).shape == (0, 3, 4, 4)


def test_levels():
    sides = torch.tensor([0.0, 1, 55, 56, 111.9, 112, 223, 224, 447, 448, 1e6])
    square = Boxes(torch.stack([sides * 0, sides * 0, sides, sides], dim=1))
    levels = assign_boxes_to_levels([square, square[:2]], 2, 5, 224, 4)
    assert levels.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 0, 0]
    bad = Boxes(torch.tensor([[math.nan, 0, 1, 1], [5, 0, 1, 9]]))
    assert assign_boxes_to_levels([bad], 2, 5, 224, 4).tolist() == [0, 0]


@pytest.mark.parametrize(("canonical_size", "canonical_level"), [(224, 4), (333, 5)])
def test_levels_that_are_found_by_comparing_areas(canonical_size, canonical_level):
    """Also where the logarithm rounds, some floats beside a boundary."""
    pooler = ROIPooler(
        7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlign", canonical_size, canonical_level
    )
    boundaries = canonical_size**2 * 4.0 ** (torch.arange(3, 6) - canonical_level)
    steps = torch.arange(-200, 200, dtype=torch.int32)
    beside = (boundaries[:, None].view(torch.int32) + steps).view(torch.float32).flatten()
    areas = torch.cat([torch.rand(1000) * 1e6, beside, torch.tensor([0, -1, torch.nan, torch.inf])])
    rois = torch.zeros(len(areas), 5)
    rois[:, 3], rois[:, 4] = 1, areas
    expected = assign_boxes_to_levels([Boxes(rois[:, 1:])], 2, 5, canonical_size, canonical_level)
    assert pooler._levels(rois).tolist() == expected.tolist()
    assert expected.unique().tolist() == [0, 1, 2, 3]


def test_format():
    lists = [boxes(2), boxes(0), boxes(1)]
    rois = convert_boxes_to_pooler_format(lists)
    assert rois[:, 0].tolist() == [0, 0, 2]
    assert torch.equal(rois[:, 1:], torch.cat([b.tensor for b in lists]))


def test_levels_with_hooks():
    pooler = ROIPooler(3, SCALES, 0, "ROIAlignV2")
    x, lists = features(), [boxes(5), boxes(4)]
    wanted, counts = pooler(x, lists), []
    for level in pooler.level_poolers:
        level.register_forward_hook(lambda module, args, output: counts.append(len(output)))
    torch.testing.assert_close(pooler(x, lists), wanted)
    assert len(counts) == 3
    assert sum(counts) == 9


def test_levels_that_are_changed():
    pooler = ROIPooler(3, SCALES, 0, "ROIAlignV2")
    x, lists = features(), [boxes(50), boxes(40)]
    kept = assign_boxes_to_levels(lists, 2, 4, 224, 4) != 1
    wanted = pooler(x, lists)
    assert not kept.all()
    assert kept.any()
    level = pooler.level_poolers[1]
    level.aligned, level.sampling_ratio = False, 1
    rois = convert_boxes_to_pooler_format(lists)[~kept]
    changed = pooler(x, lists)
    torch.testing.assert_close(changed[kept], wanted[kept])
    single = ROIAlign((3, 3), SCALES[1], 1, aligned=False)(x[1], rois)
    torch.testing.assert_close(changed[~kept], single)
    level.forward = lambda x, rois: x.new_ones(len(rois), x.size(1), 3, 3)
    assert (pooler(x, lists)[~kept] == 1).all()


@pytest.mark.parametrize("kind", ["ROIAlignV2", "ROIAlign"])
def test_all_levels_are_pooled_by_one_operator(kind):
    pooler = ROIPooler(4, SCALES, 0, kind)
    x, lists = features(), [boxes(4), boxes(3)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        pooler(x, lists)
    names = [event.name for event in profile.events()]
    assert names.count("detectron2::roi_align_forward") == 1
    assert not {"torchvision::roi_align", "aten::item", "aten::nonzero"} & set(names)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cuda_pools_without_waiting_what_the_cpu_pools(layout, dtype):
    lists = [boxes(40), boxes(0)]
    x = [f.to(memory_format=layout) for f in features(channels=32, dtype=dtype)]
    there = [f.cuda().requires_grad_() for f in x]
    lists_there = [b.to("cuda") for b in lists]
    pooler = ROIPooler(7, SCALES, 0, "ROIAlignV2")
    grad = torch.randn(40, 32, 7, 7).to("cuda", dtype)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        pooled = pooler(there, lists_there)
        pooled.backward(grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tolerance = 1e-4 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(pooled.cpu(), pooler(x, lists), rtol=tolerance, atol=tolerance)
    assert all(f.grad.stride() == f.stride() for f in there)


@pytest.mark.parametrize(
    ("scales", "kind", "error"),
    [
        ([0.3], "ROIAlign", AssertionError),
        ([1 / 4, 1 / 16], "ROIAlign", AssertionError),
        ([1 / 8, 1 / 4], "ROIAlign", AssertionError),
        ([1 / 4], "ROIAlignV3", ValueError),
    ],
)
def test_bad_arguments(scales, kind, error):
    with pytest.raises(error, match="got"):
        ROIPooler(4, scales, 0, kind)


def test_bad_inputs():
    pooler = ROIPooler(4, SCALES, 0, "ROIAlignV2")
    with pytest.raises(AssertionError, match="3 levels, got features of 2"):
        pooler(features()[:2], [boxes(1), boxes(1)])
    with pytest.raises(AssertionError, match="2 images need"):
        pooler(features(), [boxes(1)])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_scripts_and_traces():
    pooler = ROIPooler(4, SCALES, 0, "ROIAlignV2")
    x = features()

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pooler = pooler

        def forward(self, a, b, c, first, second):
            return self.pooler([a, b, c], [Boxes(first), Boxes(second)])

    trace = torch.jit.trace(Plain(), (*x, boxes(4).tensor, boxes(2).tensor))
    script = torch.jit.script(pooler)
    for counts in ((4, 2), (0, 9), (0, 0)):
        lists = [boxes(count) for count in counts]
        wanted = pooler(x, lists)
        torch.testing.assert_close(script(x, lists), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            trace(*x, *(b.tensor for b in lists)), wanted, rtol=1e-4, atol=1e-4
        )


def test_compiles_to_one_graph():
    pooler = ROIPooler(4, SCALES, 2, "ROIAlignV2")
    graph = torch.compile(
        lambda x, a, b: pooler(x, [Boxes(a), Boxes(b)]),
        backend="eager",
        fullgraph=True,
        dynamic=True,
    )
    x = features()
    for counts in ((4, 3), (5, 9)):
        lists = [boxes(count) for count in counts]
        wanted = pooler(x, lists)
        torch.testing.assert_close(
            graph(x, *(b.tensor for b in lists)), wanted, rtol=1e-4, atol=1e-4
        )
