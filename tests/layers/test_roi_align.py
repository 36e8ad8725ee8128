"""ROIAlign, against sampling point by point in float64."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align as torchvision_roi_align

from detectron2.layers import ROIAlign, roi_align


def bilinear(plane, y, x):
    """Value at (y, x), pixel centres at whole numbers; 0 more than a pixel outside."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    top = plane[y0, x0] * (1 - dx) + plane[y0, x1] * dx
    bottom = plane[y1, x0] * (1 - dx) + plane[y1, x1] * dx
    return top * (1 - dy) + bottom * dy


def reference(features, rois, size, scale, sampling_ratio, aligned):
    features, (rows, columns) = features.double().numpy(), size
    output = np.zeros((len(rois), features.shape[1], rows, columns))
    for k, (batch, *box) in enumerate(rois.double().tolist()):
        x0, y0, x1, y1 = (v * scale - (0.5 if aligned else 0.0) for v in box)
        width, height = x1 - x0, y1 - y0
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        per_y = sampling_ratio or math.ceil(height / rows)
        per_x = sampling_ratio or math.ceil(width / columns)
        for c in range(features.shape[1]):
            plane = features[int(batch), c]
            for i in range(rows):
                for j in range(columns):
                    samples = [
                        bilinear(
                            plane,
                            y0 + (i + (p + 0.5) / per_y) * height / rows,
                            x0 + (j + (q + 0.5) / per_x) * width / columns,
                        )
                        for p in range(per_y)
                        for q in range(per_x)
                    ]
                    output[k, c, i, j] = sum(samples) / max(len(samples), 1)
    return torch.from_numpy(output)


def make_inputs(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 15, 20, generator=generator).to(dtype)
    rois = torch.tensor(
        [
            [0, 3.0, 4, 21, 25],
            [1, 0.3, 0.7, 39.1, 29.9],
            [1, -20, -20, 60, 50],  # over every border
            [0, -60, -60, -30, -30],  # outside
            [0, 11, 12, 11.2, 12.1],  # smaller than a feature pixel
        ]
    )
    return features, rois


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("size", [(3, 5), 4])
def test_against_the_reference(aligned, sampling_ratio, size):
    features, rois = make_inputs()
    pool = ROIAlign(size, 0.5, sampling_ratio, aligned)
    pair = (size, size) if isinstance(size, int) else size
    expected = reference(features, rois, pair, 0.5, sampling_ratio, aligned)
    torch.testing.assert_close(pool(features, rois).double(), expected, rtol=1e-4, atol=1e-5)


def test_aligned_is_the_default():
    features, rois = make_inputs()
    expected = ROIAlign((2, 2), 0.5, 2, aligned=True)(features, rois)
    assert torch.equal(ROIAlign((2, 2), 0.5, 2)(features, rois), expected)
    torch.testing.assert_close(roi_align(features, rois, (2, 2), 0.5, 2, True), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coordinates_are_not_rounded_to_half_precision(dtype):
    """A ramp along x tells where a box was sampled; at 1,500 pixels float16 has steps of 1 and
    bfloat16 of 8."""
    ramp = torch.arange(-187, 13).expand(1, 1, 4, 200).to(dtype)
    rois = torch.tensor([[0, 1497.5, 4, 1505.5, 20]])
    pool = ROIAlign((1, 1), 1 / 8, 2)
    expected = reference(ramp, rois, (1, 1), 1 / 8, 2, True)
    result = pool(ramp, rois)
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))

    rounded = torchvision_roi_align(ramp.float(), rois.to(dtype).float(), (1, 1), 1 / 8, 2, True)
    assert not torch.equal(rounded.to(dtype), expected.to(dtype))


def test_rois_of_another_dtype_and_autocast():
    features, rois = make_inputs()
    pool = ROIAlign((2, 3), 0.5, 2)
    expected = pool(features, rois)
    assert torch.equal(pool(features, rois.double()), expected)
    assert pool(features.double(), rois).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pool(features.bfloat16(), rois)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, pool(features.bfloat16(), rois))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_features():
    features, rois = make_inputs()
    quantized = torch.quantize_per_tensor(features, 0.05, 64, torch.quint8)
    pool = ROIAlign((2, 2), 0.5, 2)
    torch.testing.assert_close(pool(quantized, rois), pool(quantized.dequantize(), rois))


def test_no_rois():
    features, _ = make_inputs()
    features.requires_grad_(True)
    output = ROIAlign((2, 3), 0.5, 0)(features, torch.zeros(0, 5))
    assert output.shape == (0, 3, 2, 3)
    output.sum().backward()
    assert not features.grad.any()


def scripted(pool):
    return torch.jit.script(pool)


def as_it_is(pool):
    return pool


# Scripts have torchvision's operator.
in_each_form = pytest.mark.parametrize(
    "form",
    [
        as_it_is,
        pytest.param(
            scripted,
            marks=pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
        ),
    ],
)


@in_each_form
@pytest.mark.parametrize("far", [1e30, 1e9])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_boxes_far_beyond_the_features(far, aligned, sampling_ratio, form):
    features, rois = make_inputs()
    pool = form(ROIAlign((2, 3), 0.5, sampling_ratio, aligned))
    boxes = [[0, 3, 4, 21, far], [1, -far, 4, 21, 25], [0, far, 4, far, 25], [1, 3, -far, 21, -far]]
    boxes = torch.tensor(boxes)
    result = pool(features, torch.cat([boxes, rois]))
    if sampling_ratio == 0:  # in the far boxes, 1 of 100 samples at most is on the features
        assert result[:4].abs().max() < 0.02
    else:
        expected = reference(features, boxes, (2, 3), 0.5, sampling_ratio, aligned)
        torch.testing.assert_close(result[:4].double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result[4:], pool(features, rois), rtol=0, atol=0)


@in_each_form
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_values_that_are_not_finite_give_zeros(sampling_ratio, aligned, form):
    features, rois = make_inputs()
    pool = form(ROIAlign((2, 3), 0.5, sampling_ratio, aligned))
    for value in (math.nan, math.inf, -math.inf):
        stray = rois[:1].repeat(5, 1)
        stray[range(5), range(5)] = value
        result = pool(features, torch.cat([rois, stray]))
        assert torch.equal(result[:5], pool(features, rois))
        assert not result[5:].any()


@in_each_form
def test_negative_sides_have_no_adaptive_samples(form):
    features, _ = make_inputs()
    rois = torch.tensor([[0, 20.0, 4, 3, 25], [0, 3, 25, 20, 4], [1, 20, 25, 3, 4]])
    assert not form(ROIAlign((2, 3), 0.5, 0))(features, rois).any()
    assert form(ROIAlign((2, 3), 0.5, 2))(features, rois).any(-1).all()


def test_gradients():
    features, rois = make_inputs(dtype=torch.float64)
    few = features[:, :1, :8, :10].clone().requires_grad_(True)
    pool = ROIAlign((2, 2), 0.5, 2)
    assert torch.autograd.gradcheck(lambda x: pool(x, rois), few)
    half = features.detach().bfloat16().requires_grad_(True)
    pool(half, rois).float().sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.any()


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 6)])
def test_wrong_shape_raises_with_the_shape(shape):
    features, _ = make_inputs()
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        ROIAlign((2, 2), 0.5, 2)(features, torch.zeros(shape))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_scripted_and_compiled():
    for dtype in (torch.float32, torch.bfloat16):
        features, rois = make_inputs(dtype=dtype)
        pool = ROIAlign((2, 3), 0.5, 2)
        expected = pool(features, rois)
        torch.testing.assert_close(torch.jit.script(pool)(features, rois), expected)
        traced = torch.jit.trace(pool, (features, rois))
        torch.testing.assert_close(traced(features, rois), expected)
        assert "torchvision::roi_align" in str(traced.inlined_graph)
        compiled = torch.compile(pool, backend="eager", fullgraph=True)
        assert torch.equal(compiled(features, rois), expected)


def test_exported_programs_have_the_operator_of_torchvision():
    features, rois = make_inputs()
    pool = ROIAlign((2, 3), 0.5, 2)
    program = torch.export.export(pool, (features, rois))
    targets = [str(node.target) for node in program.graph.nodes]
    assert "torchvision.roi_align.default" in targets
    assert not any("detectron2" in target for target in targets)
    torch.testing.assert_close(program.module()(features, rois), pool(features, rois))


def test_an_index_out_of_the_batch_is_an_error():
    features, rois = make_inputs()
    rois[2, 0] = 2
    with pytest.raises(RuntimeError, match=r"rois\[2\] has the batch index 2, but the batch has 2"):
        ROIAlign((2, 3), 0.5, 2)(features, rois)


def test_attributes_and_repr():
    pool = ROIAlign((2, 3), 0.25, 2)
    assert (pool.output_size, pool.spatial_scale, pool.sampling_ratio, pool.aligned) == (
        (2, 3),
        0.25,
        2,
        True,
    )
    assert repr(pool) == (
        "ROIAlign(output_size=(2, 3), spatial_scale=0.25, sampling_ratio=2, aligned=True)"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_gives_what_the_cpu_gives(dtype):
    features, rois = make_inputs(dtype=dtype)
    stray = rois[[1, 1, 1, 1, 4]]
    stray[range(5), range(5)] = torch.tensor([math.nan, -math.inf, math.nan, -5, math.inf])
    rois = torch.cat([rois, stray])
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    for sampling_ratio in (0, 2):
        pool = ROIAlign((3, 5), 0.5, sampling_ratio)
        result = pool(features.cuda(), rois.cuda())
        assert result.dtype == dtype
        expected = pool(features, rois)
        torch.testing.assert_close(result.cpu(), expected, rtol=tolerance, atol=tolerance)
