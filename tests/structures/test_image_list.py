"""ImageList.from_tensors against padding in NumPy, eager, scripted, traced, compiled, exported."""

import math

import numpy as np
import pytest
import torch

from detectron2.structures import ImageList


def random_images(sizes, leading=(3,), dtype=torch.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.uniform(0, 255, (*leading, *size))).to(dtype) for size in sizes]


def reference(images, divisibility, value, square=0):
    height = square or max(image.shape[-2] for image in images)
    width = square or max(image.shape[-1] for image in images)
    if divisibility > 1:
        height = math.ceil(height / divisibility) * divisibility
        width = math.ceil(width / divisibility) * divisibility
    padded = []
    for image in images:
        missing = (height - image.shape[-2], width - image.shape[-1])
        padding = [(0, 0)] * (image.dim() - 2) + [(0, missing[0]), (0, missing[1])]
        padded.append(np.pad(image.numpy(), padding, constant_values=value))
    return torch.from_numpy(np.stack(padded))


@pytest.mark.parametrize("sizes", [[(5, 9)], [(8, 8)], [(5, 9), (7, 3)], [(4, 6), (4, 6), (1, 1)]])
@pytest.mark.parametrize(
    ("leading", "dtype"), [((3,), torch.float32), ((), torch.uint8), ((2, 3), torch.float16)]
)
@pytest.mark.parametrize("divisibility", [0, 1, 4])
def test_from_tensors(divisibility, leading, dtype, sizes):
    images = random_images(sizes, leading, dtype)
    batch = ImageList.from_tensors(images, divisibility, pad_value=7.0)
    assert torch.equal(batch.tensor, reference(images, divisibility, 7))
    assert batch.tensor.dtype == dtype
    assert batch.tensor.is_contiguous()
    assert batch.image_sizes == sizes
    assert len(batch) == len(images)
    assert batch.device == images[0].device
    for i, image in enumerate(images):
        assert torch.equal(batch[i], image)
        assert batch[i].untyped_storage().data_ptr() == batch.tensor.untyped_storage().data_ptr()


def test_the_batch_does_not_share_memory_with_a_single_image():
    (image,) = random_images([(4, 4)])
    ImageList.from_tensors([image]).tensor.zero_()
    assert image.abs().sum() > 0


def test_images_of_other_layouts_give_a_contiguous_batch():
    images = random_images([(4, 6), (5, 5)])
    transposed = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    for count in (1, 2):
        batch = ImageList.from_tensors(transposed[:count], 2).tensor
        assert batch.is_contiguous()
        assert torch.equal(batch, reference(images[:count], 2, 0))


@pytest.mark.parametrize(
    ("constraints", "divisibility", "square"),
    [
        ({"square_size": 16}, 4, 16),
        ({"square_size": 0}, 4, 0),
        ({"size_divisibility": 8}, 8, 0),
        ({"size_divisibility": 0}, 0, 0),
        ({"square_size": 15, "size_divisibility": 6}, 6, 15),
        ({}, 4, 0),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_padding_constraints(count, constraints, divisibility, square):
    images = random_images([(5, 9), (7, 3)][:count])
    batch = ImageList.from_tensors(images, 4, padding_constraints=constraints)
    assert torch.equal(batch.tensor, reference(images, divisibility, 0, square))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "at least one image"),
        (torch.rand(2, 3, 4, 4), TypeError, "got Tensor"),
        ([np.zeros((3, 4, 4))], TypeError, "one with ndarray"),
        ([torch.rand(4)], ValueError, r"\[4\]"),
        ([torch.rand(3, 4, 4), torch.rand(1, 4, 4)], ValueError, r"\[3, 4, 4\] and \[1, 4, 4\]"),
        ([torch.rand(3, 4, 4), torch.rand(4, 4)], ValueError, r"\[3, 4, 4\] and \[4, 4\]"),
        ([torch.rand(4, 4), torch.rand(4, 4).half()], ValueError, "float32 on cpu and torch.fl"),
        ([torch.rand(4, 4), torch.rand(4, 4, device="meta")], ValueError, "cpu and .* on meta"),
    ],
)
def test_what_is_no_batch(images, error, message):
    with pytest.raises(error, match=message):
        ImageList.from_tensors(images)


@pytest.mark.parametrize("sizes", [[(5, 9)], [(5, 9), (7, 3)]])
def test_images_larger_than_the_square(sizes):
    with pytest.raises(ValueError, match="x 9 do not fit the square_size 8"):
        ImageList.from_tensors(random_images(sizes), padding_constraints={"square_size": 8})


def test_to():
    batch = ImageList.from_tensors(random_images([(5, 9), (7, 3)]))
    moved = batch.to("meta", torch.float64)
    assert moved.device.type == "meta"
    assert moved.tensor.dtype == torch.float64
    assert moved.image_sizes == batch.image_sizes


def pad_pair(a: torch.Tensor, b: torch.Tensor):
    """At module level, since TorchScript reads the source."""
    batch = ImageList.from_tensors([a, b], 4, 1.0, {"square_size": 0})
    return batch.tensor, ImageList.from_tensors([a], 4).tensor


def pad_pair_and_crop(a: torch.Tensor, b: torch.Tensor):
    batch = ImageList.from_tensors([a, b], 4)
    return batch[0], batch[1]


def pad_pair_to_square(a: torch.Tensor, b: torch.Tensor):
    return (ImageList.from_tensors([a, b], 0, 1.0, {"square_size": 16}).tensor,)


PAIRS = [random_images([(5, 9), (7, 3)]), random_images([(12, 2), (3, 14)], seed=1)]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
@pytest.mark.parametrize("function", [pad_pair, pad_pair_and_crop, pad_pair_to_square])
@pytest.mark.parametrize("make", ["script", "trace", "compile", "export"])
def test_graphs_serve_images_of_any_size(make, function):
    if make == "export" and function is pad_pair_and_crop:
        pytest.skip("torch.export itself fixes whether a view is contiguous")
    if make == "script":
        graph = torch.jit.script(function)
    elif make == "trace":
        graph = torch.jit.trace(function, tuple(PAIRS[0]))
    elif make == "compile":
        torch._dynamo.reset()
        graph = torch.compile(function, fullgraph=True, dynamic=True, backend="eager")
    else:

        class Model(torch.nn.Module):
            def forward(self, a, b):
                return function(a, b)

        sizes = {1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
        exported = torch.export.export(Model(), tuple(PAIRS[0]), dynamic_shapes=(sizes, sizes))
        graph = exported.module()
    for pair in PAIRS:
        for actual, expected in zip(graph(*pair), function(*pair), strict=True):
            assert torch.equal(actual, expected)


def test_traced_sizes_are_tensors():
    def sizes(a):
        return ImageList.from_tensors([a]).image_sizes[0]

    assert torch.jit.trace(sizes, (PAIRS[0][0],))(PAIRS[1][0]).tolist() == [12, 2]


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    images = [image.cuda() for image in PAIRS[0]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = ImageList.from_tensors(images, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(batch.tensor.cpu(), reference(PAIRS[0], 4, 0))
