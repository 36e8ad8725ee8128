"""The dense parts of detectors under torch.compile: one graph each, for images of all sizes.

What is compiled gives what the module itself gives, and the same gradients: on the CPU through
``aot_eager``, which takes graphs forward and backward but has them run by PyTorch's own operators;
on a GPU through Inductor, in float32 and under autocast.
"""

import copy
import functools

import pytest
import torch
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet, SimpleFeaturePyramid, SwinTransformer, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

# All need padding to whole windows: without it, the program is another one. Of stride 32, all sides
# are even: PyTorch 2.10 tells that from the other case, too.
IMAGES = [(2, 3, 128, 256), (3, 3, 256, 128), (2, 3, 320, 256)]
FEATURES = [(2, 32, 16, 20), (3, 32, 24, 16), (4, 32, 20, 28)]
# On the CPU, PyTorch chooses another convolution for 16 and fewer.
ROIS = [(24, 32, 7, 7), (41, 32, 7, 7), (18, 32, 7, 7)]


class Pyramids(nn.Module):
    """A head of several levels as a function of the finest one."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head([x, x[:, :, ::2, ::2]])


class MaskLogits(MaskRCNNConvUpsampleHead):
    """The head without the loss, which is not dense."""

    def forward(self, x):
        return self.layers(x)


def resnet_fpn(blocks=(1, 1, 1, 1)):
    stages, channels = [], 8
    for i, count in enumerate(blocks):
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                count,
                in_channels=channels,
                out_channels=16 * 2**i,
                bottleneck_channels=8 * 2**i,
                stride=1 if i == 0 else 2,
                norm="FrozenBN",
            )
        )
        channels = 16 * 2**i
    names = ["res2", "res3", "res4", "res5"]
    resnet = ResNet(BasicStem(3, 8, "FrozenBN"), stages, out_features=names, freeze_at=2)
    return FPN(resnet, names, 16, top_block=LastLevelMaxPool())


def resnet_50_fpn():
    return resnet_fpn((3, 4, 6, 3))


def simple_feature_pyramid():
    vit = ViT(
        img_size=96,
        patch_size=16,
        embed_dim=32,
        depth=2,
        num_heads=2,
        window_size=3,
        window_block_indexes=(0,),
        use_rel_pos=True,
        out_feature="last_feat",
    )
    return SimpleFeaturePyramid(
        vit, "last_feat", 16, (2.0, 1.0, 0.5), LastLevelMaxPool(), norm="LN"
    )


def swin():
    return SwinTransformer(
        embed_dim=16,
        depths=(2,),
        num_heads=(2,),
        window_size=7,
        drop_path_rate=0.0,
        out_indices=(0,),
    )


def box_head():
    shape = ShapeSpec(channels=32, height=7, width=7)
    head = FastRCNNConvFCHead(shape, conv_dims=[32], fc_dims=[48], conv_norm="GN")
    predictor = FastRCNNOutputLayers(
        head.output_shape, box2box_transform=Box2BoxTransform((10, 10, 5, 5)), num_classes=5
    )
    return nn.Sequential(head, predictor)


def mask_head():
    shape = ShapeSpec(channels=32, height=7, width=7)
    return MaskLogits(shape, num_classes=5, conv_dims=[24, 24, 24])


def rpn_head():
    return Pyramids(StandardRPNHead(in_channels=32, num_anchors=3))


def retinanet_head():
    levels = [ShapeSpec(channels=32, stride=8), ShapeSpec(channels=32, stride=16)]
    return Pyramids(
        RetinaNetHead(input_shape=levels, num_classes=5, num_anchors=9, conv_dims=[24, 24])
    )


MODULES = {
    "ResNet FPN": (resnet_fpn, IMAGES),
    "ResNet-50 FPN": (resnet_50_fpn, IMAGES),
    "SimpleFeaturePyramid": (simple_feature_pyramid, IMAGES),
    "Swin": (swin, IMAGES),
    "RPN head": (rpn_head, FEATURES),
    "RetinaNet head": (retinanet_head, FEATURES),
    "box head": (box_head, ROIS),
    "mask head": (mask_head, ROIS),
}
# Compiling for all sizes takes long: of the others half a minute each on the CPU through
# aot_eager, and minutes on a GPU through Inductor.
HEADS = ["RPN head", "RetinaNet head", "box head", "mask head"]
ON_CUDA = [
    name if name in HEADS else pytest.param(name, marks=pytest.mark.slow) for name in MODULES
]


def make(name, device):
    """A module in training mode, of weights large enough for all of them to matter."""
    build, sizes = MODULES[name]
    module = build()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1 / parameter[0].numel() ** 0.5)
    return module.to(device), [torch.randn(size, device=device) for size in sizes]


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flat(value)]


def outputs_and_gradients(module, function, x, train):
    """As a list of tensors, float32."""
    if not train:
        with torch.no_grad():
            return [y.float() for y in flat(function(x))]
    outputs = flat(function(x))
    wanted = [p for p in module.parameters() if p.requires_grad]
    weights = [torch.linspace(0.5, 1.5, y.numel(), device=y.device).view_as(y) for y in outputs]
    # Gradients that float16 can hold, however large the outputs are.
    total = sum(
        (y.float() * w).sum() / y.numel() ** 0.5 for y, w in zip(outputs, weights, strict=True)
    )
    gradients = torch.autograd.grad(total, wanted)
    return [*(y.float() for y in outputs), *gradients]


def distance(actual, expected):
    """The largest of the norms of the differences, relative to those of what is expected."""
    assert [x.shape for x in actual] == [x.shape for x in expected]
    return max(
        ((x - y).norm() / y.norm().clamp(min=1e-6)).item()
        for x, y in zip(actual, expected, strict=True)
    )


def check(name, device, backend, dtype=None):
    """Without and with gradients; each is compiled for the first size only.

    Under autocast, what is compiled is about as precise as what is not.
    """
    module, inputs = make(name, device)
    autocast = functools.partial(
        torch.autocast, device, dtype or torch.float16, enabled=dtype is not None
    )
    exact = copy.deepcopy(module)
    torch._dynamo.reset()
    graph = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    for train in (False, True):
        for i, x in enumerate(inputs):
            expected = outputs_and_gradients(exact, exact, x, train)
            with autocast():
                eager = outputs_and_gradients(exact, exact, x, train)
            with autocast(), torch._dynamo.config.patch(error_on_recompile=i > 0):
                actual = outputs_and_gradients(module, graph, x, train)
            limit = 1e-3 + 2 * distance(eager, expected)
            assert distance(actual, expected) < limit, (train, x.shape)


@pytest.mark.parametrize("name", HEADS)
def test_graphs(name):
    check(name, "cpu", "aot_eager")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("name", ON_CUDA)
def test_inductor(name, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    check(name, "cuda", "inductor", dtype)
