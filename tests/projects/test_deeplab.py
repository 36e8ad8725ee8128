"""DeepLab: backbone, heads, loss and schedule."""

import numpy as np
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model
from detectron2.projects.deeplab import (
    DeepLabV3PlusHead,
    add_deeplab_config,
    build_lr_scheduler,
    build_resnet_deeplab_backbone,
)
from detectron2.projects.deeplab.loss import DeepLabCE
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.projects.deeplab.resnet import DeepLabStem
from detectron2.solver.lr_scheduler import LRMultiplier

from .project_models import (
    DEEPLAB_ON_CITYSCAPES,
    SMALL_RESNET,
    build_on_meta,
    check_training_step,
    head_shapes,
    make_config,
)

CITYSCAPES = {
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    **DEEPLAB_ON_CITYSCAPES,
}
V3 = {
    "MODEL.RESNETS.OUT_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3Head",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 16,
}
V3_PLUS = {
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3PlusHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
}
SMALL = {
    **SMALL_RESNET,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [4],
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "INPUT.CROP.SIZE": [64, 96],
}


def aspp_shapes(channels: int) -> dict[str, list[int]]:
    return {
        "convs.0.weight": [256, channels, 1, 1],
        "convs.1.weight": [256, channels, 3, 3],
        "convs.2.weight": [256, channels, 3, 3],
        "convs.3.weight": [256, channels, 3, 3],
        "convs.4.1.weight": [256, channels, 1, 1],
        "convs.4.1.bias": [256],
        "project.weight": [256, 1280, 1, 1],
    }


PREDICTOR = {"predictor.weight": [19, 256, 1, 1], "predictor.bias": [19]}


@pytest.mark.parametrize(
    ("values", "tensors", "parameters", "shapes"),
    [
        (V3, 670, 58163667, {f"aspp.{k}": v for k, v in aspp_shapes(2048).items()}),
        (
            V3_PLUS,
            688,
            59467315,
            {
                "decoder.res2.project_conv.weight": [48, 256, 1, 1],
                "decoder.res2.fuse_conv.0.weight": [256, 304, 3, 3],
                "decoder.res2.fuse_conv.1.weight": [256, 256, 3, 3],
                **{f"decoder.res5.project_conv.{k}": v for k, v in aspp_shapes(2048).items()},
            },
        ),
    ],
    ids=["v3", "v3+"],
)
def test_state(values, tensors, parameters, shapes):
    model = build_on_meta(
        make_config(add_deeplab_config, CITYSCAPES, values, {"MODEL.RESNETS.DEPTH": 101})
    )
    assert len(model.state_dict()) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert list(head_shapes(model, "sem_seg_head.").items()) == list((shapes | PREDICTOR).items())
    assert head_shapes(model, "backbone.stem.") == {
        "conv1.weight": [64, 3, 3, 3],
        "conv2.weight": [64, 64, 3, 3],
        "conv3.weight": [128, 64, 3, 3],
    }


def test_registered():
    assert BACKBONE_REGISTRY.get("build_resnet_deeplab_backbone") is build_resnet_deeplab_backbone
    assert SEM_SEG_HEADS_REGISTRY.get("DeepLabV3PlusHead") is DeepLabV3PlusHead


def backbone(**options):
    values = {f"MODEL.RESNETS.{name}": value for name, value in options.items()}
    values["MODEL.RESNETS.OUT_FEATURES"] = ["res2", "res3", "res4", "res5"]
    cfg = make_config(add_deeplab_config, SMALL_RESNET, values)
    return build_resnet_deeplab_backbone(cfg, ShapeSpec(channels=3))


@pytest.mark.parametrize(
    ("res4", "res5", "strides"),
    [(1, 1, [4, 8, 16, 32]), (1, 2, [4, 8, 16, 16]), (2, 4, [4, 8, 8, 8])],
)
def test_dilation_takes_the_place_of_strides(res4, res5, strides):
    network = backbone(RES4_DILATION=res4, RES5_DILATION=res5, RES5_MULTI_GRID=[1, 2, 4])
    outputs = network.eval()(torch.rand(1, 3, 64, 96))
    assert [64 // x.shape[2] for x in outputs.values()] == strides
    assert [spec.stride for spec in network.output_shape().values()] == strides
    dilations = [block.conv2.dilation[0] for block in network.res5]
    assert dilations == [res5, 2 * res5, 4 * res5]
    assert {block.conv2.dilation[0] for block in network.res4} == {res4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"RES4_DILATION": 2, "RES5_DILATION": 2}, "RES5_DILATION must be 4"),
        ({"RES5_DILATION": 3}, "got 1 and 3"),
        ({"STEM_TYPE": "other"}, "'other'"),
        ({"DEPTH": 34}, "34"),
        ({"RES5_MULTI_GRID": [1, 2]}, "3 values"),
    ],
)
def test_bad_backbone(options, message):
    with pytest.raises(ValueError, match=message):
        backbone(**options)


def test_stems():
    assert isinstance(backbone(STEM_TYPE="deeplab").stem, DeepLabStem)
    assert head_shapes(backbone(STEM_TYPE="basic"), "stem.") == {"conv1.weight": [8, 3, 7, 7]}


def batch(sizes=((64, 96), (64, 96))):
    return [
        {"image": torch.rand(3, *size) * 255, "sem_seg": torch.randint(0, 5, size)}
        for size in sizes
    ]


@pytest.mark.parametrize("values", [V3, V3_PLUS], ids=["v3", "v3+"])
@pytest.mark.parametrize("loss", ["cross_entropy", "hard_pixel_mining"])
def test_model(values, loss):
    cfg = make_config(
        add_deeplab_config, CITYSCAPES, values, SMALL, {"MODEL.SEM_SEG_HEAD.LOSS_TYPE": loss}
    )
    model = build_model(cfg)
    losses = check_training_step(model, batch(), {"loss_sem_seg"})
    # The predictor begins near 0: all classes are about as probable.
    assert losses["loss_sem_seg"] == pytest.approx(np.log(5), abs=0.1)
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 64, 96), "height": 32, "width": 40}])
    assert output["sem_seg"].shape == (5, 32, 40)


def make_head(**options):
    shapes = {
        "b": ShapeSpec(channels=6, stride=8),
        "a": ShapeSpec(channels=4, stride=4),
        "c": ShapeSpec(channels=10, stride=16),
    }
    arguments = {
        "project_channels": [2, 3],
        "aspp_dilations": [1, 2, 3],
        "aspp_dropout": 0.0,
        "decoder_channels": [5, 7, 9],
        "common_stride": 4,
        "norm": "",
        "train_size": None,
        "num_classes": 3,
    }
    return DeepLabV3PlusHead(shapes, **(arguments | options))


def test_decoder_fuses_from_coarse_to_fine():
    head = make_head().eval()
    assert head.in_features == ["a", "b", "c"]
    features = {
        "a": torch.rand(2, 4, 16, 24),
        "b": torch.rand(2, 6, 8, 12),
        "c": torch.rand(2, 10, 4, 6),
    }
    x = head.decoder["c"]["project_conv"](features["c"])
    for name in ("b", "a"):
        projected = head.decoder[name]["project_conv"](features[name])
        up = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(x)
        x = head.decoder[name]["fuse_conv"](torch.cat((projected, up), 1))
    expected = head.predictor(x)
    torch.testing.assert_close(head.layers(features), expected)
    logits, losses = head(features)
    assert logits.shape == (2, 3, 64, 96)
    assert losses == {}


def test_image_pooling_has_the_size_of_training():
    head = make_head(train_size=(64, 32))
    assert head.decoder["c"]["project_conv"].pool_kernel_size == (4, 2)
    with pytest.raises(ValueError, match="divisible by the stride 16"):
        make_head(train_size=(64, 40))


def test_bad_head():
    with pytest.raises(ValueError, match="2 project_channels"):
        make_head(project_channels=[2])
    with pytest.raises(ValueError, match="'focal'"):
        make_head(loss_type="focal")
    with pytest.raises(ValueError, match="targets"):
        make_head().train().losses(torch.zeros(1, 3, 2, 2), None)


def test_cross_entropy_of_the_hardest_pixels():
    logits = 3 * torch.randn(2, 4, 5, 7, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 5, 7))
    labels[0, :2] = 9
    weights = torch.rand(2, 5, 7, dtype=torch.float64)
    log_p = logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))
    losses = np.zeros((2, 5, 7))
    for n, y, x in np.ndindex(2, 5, 7):
        if labels[n, y, x] != 9:
            losses[n, y, x] = -log_p[n, labels[n, y, x], y, x]
    for given, of_pixels in ((None, losses), (weights, losses * weights.numpy())):
        hardest = np.sort(of_pixels.ravel())[::-1]
        whole = DeepLabCE(ignore_label=9)(logits, labels, given)
        assert whole.item() == pytest.approx(hardest.mean())
        # int(0.3 * 70) is 21.
        part = DeepLabCE(ignore_label=9, top_k_percent_pixels=0.3)(logits, labels, given)
        assert part.item() == pytest.approx(hardest[:21].mean())


def test_cross_entropy_of_few_pixels():
    """A fifth of 4 pixels is none, whose mean would be NaN."""
    logits, labels = torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    loss = DeepLabCE(top_k_percent_pixels=0.2)(logits, labels)
    torch.testing.assert_close(loss, (logits.logsumexp(1) - logits[:, 0]).max())
    with pytest.raises(ValueError, match=r"1\.5"):
        DeepLabCE(top_k_percent_pixels=1.5)


def optimizer():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": weights[:1], "lr": 2.0}, {"params": weights[1:], "lr": 1.0}]
    return torch.optim.SGD(groups)


def lrs_of(scheduler, iterations):
    lrs = []
    for _ in range(iterations):
        lrs.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return np.array(lrs)


@pytest.mark.parametrize("ending", [0.0, 0.3])
@pytest.mark.parametrize("method", ["linear", "constant"])
def test_poly_schedule(method, ending):
    scheduler = WarmupPolyLR(optimizer(), 50, 0.1, 10, method, power=0.9, constant_ending=ending)
    expected = []
    for i in range(50):
        factor = (1 - i / 50) ** 0.9
        if i < 10:
            factor *= 0.1 if method == "constant" else 0.1 + 0.9 * i / 10
        else:
            factor = max(factor, ending)
        expected.append([2 * factor, factor])
    np.testing.assert_allclose(lrs_of(scheduler, 50), expected)
    # Beyond the end, where a power of a negative number would be complex.
    np.testing.assert_allclose(lrs_of(scheduler, 2), [[2 * ending, ending]] * 2)


def test_poly_schedule_is_resumed():
    scheduler = WarmupPolyLR(optimizer(), 50, warmup_iters=0)
    lrs_of(scheduler, 20)
    other = WarmupPolyLR(optimizer(), 50, warmup_iters=0)
    other.load_state_dict(scheduler.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == pytest.approx(2 * 0.6**0.9)
    with pytest.raises(ValueError, match="got 0"):
        WarmupPolyLR(optimizer(), 0)


def test_build_lr_scheduler():
    cfg = make_config(
        add_deeplab_config,
        {
            "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
            "SOLVER.MAX_ITER": 200,
            "SOLVER.POLY_LR_POWER": 2.0,
            "SOLVER.POLY_LR_CONSTANT_ENDING": 0.1,
            "SOLVER.WARMUP_ITERS": 7,
            "SOLVER.WARMUP_FACTOR": 0.5,
            "SOLVER.WARMUP_METHOD": "constant",
        },
    )
    scheduler = build_lr_scheduler(cfg, optimizer())
    assert isinstance(scheduler, WarmupPolyLR)
    options = vars(scheduler)
    assert [options[name] for name in ("max_iters", "power", "constant_ending")] == [200, 2.0, 0.1]
    assert options["warmup_iters"] == 7
    assert options["warmup_factor"] == 0.5
    assert options["warmup_method"] == "constant"
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    assert isinstance(build_lr_scheduler(cfg, optimizer()), LRMultiplier)
