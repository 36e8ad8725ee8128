"""torch.compile: every layer is one graph, and one compilation serves inputs of all sizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

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
from detectron2.layers.wrappers import _NewEmptyTensorOp

from .layer_inputs import boxes, classes, images, rois, rotated_boxes, scores

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=True)


def gradients(outputs, inputs):
    wanted = [x for x in inputs if x.requires_grad]
    total = sum(y.sum() for y in outputs if y.requires_grad)
    return torch.autograd.grad(total, wanted) if wanted else []


def check(function, calls):
    """The same results and gradients, with one compilation for all ``calls``."""
    graph = compiled(function)
    for i, inputs in enumerate(calls):
        results = []
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            for f in (function, graph):
                outputs = f(*inputs)
                outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
                results.append([*outputs, *gradients(outputs, inputs)])
        for y, expected in zip(*reversed(results), strict=True):
            torch.testing.assert_close(y, expected)


SIZES = [(2, 12, 16), (3, 24, 8), (5, 6, 24)]

MODULES = {
    "FrozenBN": lambda: get_norm("FrozenBN", 6),
    "LN": lambda: get_norm("LN", 6),
    "GN": lambda: nn.Sequential(nn.Conv2d(6, 32, 1), get_norm("GN", 32)),
    "BN": lambda: get_norm("BN", 6),
    "SyncBN": lambda: get_norm("SyncBN", 6).eval(),
    "naiveSyncBN": lambda: get_norm("naiveSyncBN", 6),
    "naiveSyncBN_N": lambda: get_norm("naiveSyncBN_N", 6).eval(),
    "Conv2d": lambda: Conv2d(6, 4, 3, norm=FrozenBatchNorm2d(4), activation=F.relu),
    "DepthwiseSeparableConv2d": lambda: DepthwiseSeparableConv2d(
        6, 4, norm1="BN", activation1=F.relu, norm2="LN"
    ),
    "ASPP": lambda: ASPP(6, 4, [1, 2, 3], norm="BN", activation=nn.ReLU()).eval(),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_modules(name, requires_grad):
    if name == "ASPP" and requires_grad:
        pytest.skip("nothing but convolutions and norms, and slow")
    module = MODULES[name]()
    if not requires_grad:
        module.requires_grad_(False)
    # Twice through the module changes running statistics, which training does not look at.
    check(module, [(images(*size).requires_grad_(requires_grad),) for size in SIZES])


def test_norms_of_a_cycle():
    """Each position is a graph of its own."""
    eager = CycleBatchNormList(3, num_features=6).eval()
    graph = compiled(CycleBatchNormList(3, num_features=6).eval())
    for i in range(7):
        x = images(2 + i)
        with torch._dynamo.config.patch(error_on_recompile=i >= 3):
            torch.testing.assert_close(graph(x), eager(x))


@pytest.mark.parametrize("training", [False, True])
def test_convolution_of_empty_batches(training):
    """PyTorch compiles sizes of 0 and 1 apart from the others."""
    conv = Conv2d(6, 4, 3, norm=FrozenBatchNorm2d(4), activation=F.relu).train(training)
    graph = compiled(conv)
    for i, count in enumerate((0, 2, 0, 3, 5)):
        x = images(count).requires_grad_(training)
        with torch._dynamo.config.patch(error_on_recompile=i >= 2):
            y = graph(x)
        torch.testing.assert_close(y, conv(x))
        if training:
            torch.testing.assert_close(gradients([y], [x]), gradients([conv(x)], [x]))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("module", "make_boxes"),
    [
        (ROIAlign((3, 4), 0.5, 0), boxes),
        (ROIAlign((3, 4), 0.5, 2, aligned=False), boxes),
        (ROIAlignRotated((3, 4), 0.5, 0), rotated_boxes),
        (ROIAlignRotated(3, 0.5, 2), rotated_boxes),
    ],
    ids=["ROIAlign", "legacy ROIAlign", "ROIAlignRotated", "sampled ROIAlignRotated"],
)
def test_pooling(module, make_boxes, requires_grad):
    calls = [
        (images(*size).requires_grad_(requires_grad), rois(count, make_boxes))
        for count, size in zip((7, 2, 9), SIZES, strict=True)
    ]
    check(module, calls)


@pytest.mark.parametrize("count", [0, 1])
def test_pooling_of_few_rois(count):
    for module, make_boxes in (
        (ROIAlign(3, 0.5, 2), boxes),
        (ROIAlignRotated(3, 0.5, 2), rotated_boxes),
    ):
        check(module, [(images(2), rois(count, make_boxes)), (images(3), rois(count, make_boxes))])


def sizes_like(x):
    return move_device_like(shapes_to_tensor([x.shape[0], x.shape[1] + 1]), x)


def both_losses(boxes1, boxes2):
    return diou_loss(boxes1, boxes2, reduction="mean"), ciou_loss(boxes1, boxes2, reduction="sum")


FUNCTIONS = {
    "nms": (lambda b, s: nms(b, s, 0.3), lambda n: (boxes(n), scores(n))),
    "batched_nms": (
        lambda b, s, c: batched_nms(b, s, c, 0.3),
        lambda n: (boxes(n), scores(n), classes(n)),
    ),
    "nms_rotated": (lambda b, s: nms_rotated(b, s, 0.3), lambda n: (rotated_boxes(n), scores(n))),
    "batched_nms_rotated": (
        lambda b, s, c: batched_nms_rotated(b, s, c, 0.3),
        lambda n: (rotated_boxes(n), scores(n), classes(n)),
    ),
    "pairwise_iou_rotated": (
        pairwise_iou_rotated,
        lambda n: (rotated_boxes(n), rotated_boxes(n + 3)),
    ),
    "cat": (lambda a, b: cat([cat([a]), cat([b], 1)]), lambda n: (boxes(n), boxes(n + 3))),
    "cross_entropy": (
        cross_entropy,
        lambda n: (images(n, 1, 1, 4)[..., 0, 0].requires_grad_(True), classes(n)),
    ),
    "nonzero_tuple": (lambda x: nonzero_tuple(x > 5), lambda n: (boxes(n),)),
    "sizes": (sizes_like, lambda n: (boxes(n),)),
    "losses": (both_losses, lambda n: (boxes(n).requires_grad_(True), boxes(n, 1))),
    "empty tensor": (
        lambda x: _NewEmptyTensorOp.apply(x, (0, x.shape[0])),
        lambda n: (boxes(n).requires_grad_(True),),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function, make = FUNCTIONS[name]
    check(function, [make(count) for count in (6, 2, 30)])


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "nms"])
def test_functions_of_little(name, count):
    """Without torchvision's nms, which in a graph must keep two boxes at least."""
    function, make = FUNCTIONS[name]
    check(function, [make(count)])


def test_few_boxes_after_many():
    """One box that is kept, in a graph that was compiled for more."""
    graph = compiled(lambda b, s, c: batched_nms(b, s, c, 0.3))
    one = torch.zeros(5, 4) + torch.tensor([0.0, 0, 10, 10])
    assert len(graph(boxes(6), scores(6), classes(6))) > 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        keep = graph(one, scores(5), torch.zeros(5, dtype=torch.int64))
    assert keep.tolist() == [scores(5).argmax().item()]
