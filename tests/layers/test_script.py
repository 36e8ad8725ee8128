"""TorchScript: what is scripted or traced gives what the layer itself gives, for any sizes."""

import pytest
import torch
from torch import nn

from detectron2.layers import (
    ASPP,
    Conv2d,
    CycleBatchNormList,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    ROIAlign,
    ROIAlignRotated,
    batched_nms,
    batched_nms_rotated,
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    get_norm,
    move_device_like,
    nms,
    nms_rotated,
    nonzero_tuple,
    pairwise_iou_rotated,
    shapes_to_tensor,
)
from detectron2.layers.batch_norm import LayerNorm

from .layer_inputs import boxes, classes, images, rois, rotated_boxes, scores

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


def with_rois(count, make_boxes=boxes):
    return images(2), rois(count, make_boxes)


def eval_with_statistics(module):
    """In inference, with statistics that tell channels apart."""
    torch.manual_seed(0)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return module.eval()


MODULES = {
    "FrozenBatchNorm2d": FrozenBatchNorm2d(6),
    "LayerNorm": LayerNorm(6),
    "BN": get_norm("BN", 6),
    "GN": nn.Sequential(nn.Conv2d(6, 32, 1), get_norm("GN", 32)),
    "Conv2d": Conv2d(6, 4, 3),
    "Conv2d with extras": Conv2d(6, 4, 3, norm=FrozenBatchNorm2d(4), activation=nn.ReLU()),
    "DepthwiseSeparableConv2d": DepthwiseSeparableConv2d(6, 4, norm1="BN", activation1=nn.ReLU()),
    "ASPP": ASPP(6, 4, [1, 2, 3], norm="BN", activation=nn.ReLU(), dropout=0.1),
    "ASPP with windows": ASPP(
        6, 4, [1, 2, 3], norm="FrozenBN", activation=nn.ReLU(), pool_kernel_size=(6, 8)
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_modules(name, requires_grad):
    module = eval_with_statistics(MODULES[name])
    example = images(2).requires_grad_(requires_grad)
    for graph in (torch.jit.script(module), torch.jit.trace(module, example)):
        for count, height, width in ((2, 12, 16), (1, 24, 8), (3, 6, 24), (0, 12, 16)):
            x = images(count, height, width)
            x.requires_grad_(requires_grad)
            torch.testing.assert_close(graph(x), module(x))


@pytest.mark.parametrize(
    ("module", "make_boxes"),
    [(ROIAlign((3, 4), 0.5, 0), boxes), (ROIAlignRotated((3, 4), 0.5, 0), rotated_boxes)],
    ids=["ROIAlign", "ROIAlignRotated"],
)
def test_pooling(module, make_boxes):
    for graph in (torch.jit.script(module), torch.jit.trace(module, with_rois(5, make_boxes))):
        for count in (5, 1, 0, 9):
            inputs = with_rois(count, make_boxes)
            # Graphs hold torchvision's RoIAlign.
            torch.testing.assert_close(graph(*inputs), module(*inputs))


def test_a_scripted_frozen_batch_norm_keeps_its_statistics(tmp_path):
    module = eval_with_statistics(FrozenBatchNorm2d(6))
    torch.jit.script(module).save(tmp_path / "module.pt")
    loaded = torch.jit.load(tmp_path / "module.pt")
    assert list(loaded.state_dict()) == list(module.state_dict())
    x = images(2)
    torch.testing.assert_close(loaded(x), module(x))


# At module level, and with annotations, since TorchScript reads the source.


def call_batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor):
    return batched_nms(boxes, scores, idxs, 0.3)


def call_batched_nms_rotated(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor):
    return batched_nms_rotated(boxes, scores, idxs, 0.3)


def call_nms(boxes: torch.Tensor, scores: torch.Tensor):
    return nms(boxes, scores, 0.3)


def call_nms_rotated(boxes: torch.Tensor, scores: torch.Tensor):
    return nms_rotated(boxes, scores, 0.3)


def call_pairwise_iou_rotated(boxes1: torch.Tensor, boxes2: torch.Tensor):
    return pairwise_iou_rotated(boxes1, boxes2)


def call_cat(a: torch.Tensor, b: torch.Tensor):
    return cat([a, b], dim=0) + cat([cat([a]), cat([b])])


def call_nonzero_tuple(x: torch.Tensor):
    first, second = nonzero_tuple(x > 0.5)
    return first + 10 * second


def call_sizes(x: torch.Tensor):
    return move_device_like(shapes_to_tensor([x.shape[0], x.shape[1] + 1]), x)


def call_losses(boxes1: torch.Tensor, boxes2: torch.Tensor):
    return diou_loss(boxes1, boxes2, reduction="sum") + ciou_loss(boxes1, boxes2)


FUNCTIONS = {
    call_batched_nms: lambda n: (boxes(n), scores(n), classes(n)),
    call_batched_nms_rotated: lambda n: (rotated_boxes(n), scores(n), classes(n)),
    call_nms: lambda n: (boxes(n), scores(n)),
    call_nms_rotated: lambda n: (rotated_boxes(n), scores(n)),
    call_pairwise_iou_rotated: lambda n: (rotated_boxes(n), rotated_boxes(3)),
    call_cat: lambda n: (boxes(n), boxes(n, 1)),
    call_nonzero_tuple: lambda n: (boxes(n) / 30,),
    call_sizes: lambda n: (boxes(n),),
    call_losses: lambda n: (boxes(n), boxes(n, 1)),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions(function):
    make = FUNCTIONS[function]
    for graph in (torch.jit.script(function), torch.jit.trace(function, make(6))):
        for count in (6, 1, 0, 40):
            torch.testing.assert_close(graph(*make(count)), function(*make(count)))


def test_cross_entropy_traces():
    """Its keyword arguments keep it out of scripts."""

    def loss(logits, target):
        return cross_entropy(logits, target, reduction="sum")

    graph = torch.jit.trace(loss, (torch.randn(5, 4), classes(5)))
    for count in (5, 0, 9):
        inputs = torch.randn(count, 4), classes(count)
        torch.testing.assert_close(graph(*inputs), loss(*inputs))


def test_one_norm_of_a_cycle_traces():
    norms = eval_with_statistics(CycleBatchNormList(1, num_features=6))
    graph = torch.jit.trace(norms, (images(2),))
    torch.testing.assert_close(graph(images(3, 6)), norms(images(3, 6)))
