"""The function and module around the rotated RoIAlign operator."""

import inspect

import pytest
import torch

from detectron2.layers import ROIAlign, ROIAlignRotated, roi_align_rotated


def make_inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 16, 20, generator=generator).to(dtype)
    boxes = torch.tensor([[0, 3.0, 4, 21, 25], [1, 0.3, 0.7, 39.1, 29.9], [1, -9, 5, 12, 60]])
    rotated = torch.zeros(3, 6)
    rotated[:, 0] = boxes[:, 0]
    rotated[:, 1:3] = (boxes[:, 1:3] + boxes[:, 3:]) / 2
    rotated[:, 3:5] = boxes[:, 3:] - boxes[:, 1:3]
    return features, boxes, rotated


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("size", [(3, 5), 4])
def test_upright_boxes_are_pooled_as_by_roi_align(size, sampling_ratio):
    features, boxes, rotated = make_inputs()
    expected = ROIAlign(size, 0.5, sampling_ratio)(features, boxes)
    result = ROIAlignRotated(size, 0.5, sampling_ratio)(features, rotated)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(roi_align_rotated(features, rotated, size, 0.5, sampling_ratio), result)


def test_turns_of_the_box_turn_the_output():
    features, _, rotated = make_inputs()
    pool = ROIAlignRotated((4, 4), 0.5, 2)
    upright = pool(features, rotated)
    for quarter_turns in (1, 2, 3, 4):
        turned = rotated.clone()
        turned[:, 5] = 90.0 * quarter_turns
        if quarter_turns % 2:  # the same region
            turned[:, 3:5] = rotated[:, [4, 3]]
        # A box that is turned counter-clockwise sees the image turned clockwise.
        expected = torch.rot90(upright, -quarter_turns, (2, 3))
        torch.testing.assert_close(pool(features, turned), expected, rtol=1e-3, atol=1e-3)


def test_gradients():
    features, _, rotated = make_inputs(torch.float64)
    rotated[:, 5] = torch.tensor([0.0, 33, -120])
    features = features[:, :1].clone().requires_grad_(True)
    pool = ROIAlignRotated((2, 2), 0.5, 2)
    assert torch.autograd.gradcheck(lambda x: pool(x, rotated.double()), features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_are_not_rounded_to_half_precision(dtype):
    """A ramp along x tells where a box was sampled; at 1,500 pixels float16 has steps of 1 and
    bfloat16 of 8."""
    ramp = torch.arange(-187, 13).expand(1, 1, 4, 200).to(dtype)
    rois = torch.tensor([[0, 1501.5, 12, 8, 16, 0]])
    pool = ROIAlignRotated((1, 1), 1 / 8, 2)
    expected = pool(ramp.double(), rois.double())
    result = pool(ramp, rois)
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))
    rounded = pool(ramp.double(), rois.to(dtype).double())
    assert not torch.equal(rounded.to(dtype), expected.to(dtype))


def test_no_rois():
    features, _, _ = make_inputs()
    assert ROIAlignRotated((2, 3), 0.5, 0)(features, torch.zeros(0, 6)).shape == (0, 3, 2, 3)


@pytest.mark.parametrize("shape", [(6,), (2, 5)])
def test_wrong_shape_raises_with_the_shape(shape):
    features, _, _ = make_inputs()
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        ROIAlignRotated((2, 2), 0.5, 2)(features, torch.zeros(shape))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [(2, 3), 2])
def test_scripted_and_compiled(size):
    features, _, rotated = make_inputs()
    pool = ROIAlignRotated(size, 0.5, 2)
    expected = pool(features, rotated)
    assert torch.equal(torch.jit.script(pool)(features, rotated), expected)
    compiled = torch.compile(pool, backend="eager", fullgraph=True)
    assert torch.equal(compiled(features, rotated), expected)


def test_signature_attributes_and_repr():
    assert list(inspect.signature(roi_align_rotated).parameters) == [
        "input",
        "roi",
        "output_size",
        "spatial_scale",
        "sampling_ratio",
    ]
    pool = ROIAlignRotated((2, 3), 0.25, 2)
    assert (pool.output_size, pool.spatial_scale, pool.sampling_ratio) == ((2, 3), 0.25, 2)
    assert repr(pool) == "ROIAlignRotated(output_size=(2, 3), spatial_scale=0.25, sampling_ratio=2)"


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    features, _, rotated = make_inputs()
    rotated[:, 5] = torch.tensor([10.0, 33, -120])
    pool = ROIAlignRotated((3, 5), 0.5, 0)
    result = pool(features.cuda(), rotated.cuda())
    torch.testing.assert_close(result.cpu(), pool(features, rotated), rtol=1e-4, atol=1e-4)


def test_what_may_be_differentiated_is():
    features, _, rotated = make_inputs()
    pool = ROIAlignRotated((2, 2), 0.5, 2)
    assert not pool(features, rotated).requires_grad
    features.requires_grad_()
    assert pool(features, rotated).requires_grad
    with torch.no_grad():
        assert not pool(features, rotated).requires_grad
    # PyTorch has no such transforms of registered operators; a gradient of zero would be wrong.
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda x: pool(x, rotated).sum())(features.detach())
