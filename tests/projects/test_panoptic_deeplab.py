"""Panoptic-DeepLab: heads and model."""

import numpy as np
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model
from detectron2.projects.panoptic_deeplab import (
    INS_EMBED_BRANCHES_REGISTRY,
    PanopticDeepLab,
    PanopticDeepLabInsEmbedHead,
    PanopticDeepLabSemSegHead,
    add_panoptic_deeplab_config,
)
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator

from .project_models import (
    DEEPLAB_ON_CITYSCAPES,
    SMALL_RESNET,
    build_on_meta,
    check_training_step,
    head_shapes,
    make_config,
)

DATASET = "panoptic_of_test_panoptic_deeplab"
CITYSCAPES = {
    "MODEL.META_ARCHITECTURE": "PanopticDeepLab",
    **DEEPLAB_ON_CITYSCAPES,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "PanopticDeepLabSemSegHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res5"],
    "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": ["res2", "res3"],
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [32, 64],
    "DATASETS.TRAIN": [DATASET],
}
SEPARABLE = {
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": True,
    "MODEL.PANOPTIC_DEEPLAB.USE_DEPTHWISE_SEPARABLE_CONV": True,
}
COCO = {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 133, "INPUT.CROP.SIZE": [640, 640]}
SMALL = {
    **SMALL_RESNET,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [4, 4],
    "MODEL.SEM_SEG_HEAD.HEAD_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.INS_EMBED_HEAD.CONVS_DIM": 8,
    "MODEL.INS_EMBED_HEAD.ASPP_CHANNELS": 8,
    "MODEL.INS_EMBED_HEAD.PROJECT_CHANNELS": [4, 4],
    "MODEL.INS_EMBED_HEAD.HEAD_CHANNELS": 4,
    "MODEL.INS_EMBED_HEAD.NORM": "BN",
    "INPUT.CROP.SIZE": [64, 64],
}


@pytest.fixture(autouse=True)
def metadata():
    MetadataCatalog.get(DATASET).set(
        ignore_label=255, label_divisor=1000, thing_dataset_id_to_contiguous_id={5: 2, 7: 3}
    )
    yield
    MetadataCatalog.pop(DATASET)


def conv_pair(name, channels):
    first, between, last = channels
    return {
        f"{name}.0.weight": [between, first, 3, 3],
        f"{name}.1.weight": [last, between, 3, 3],
    }


def separable(name, channels, side):
    first, last = channels
    return {
        f"{name}.depthwise.weight": [first, 1, side, side],
        f"{name}.pointwise.weight": [last, first, 1, 1],
    }


def decoder_shapes(channels, is_separable):
    shapes = {}
    for name, features, projected, coarser in (
        ("res2", 256, 32, channels),
        ("res3", 512, 64, 256),
    ):
        fused = projected + coarser
        shapes[f"decoder.{name}.project_conv.weight"] = [projected, features, 1, 1]
        prefix = f"decoder.{name}.fuse_conv"
        if is_separable:
            shapes |= separable(prefix, (fused, channels), 5)
        else:
            shapes |= conv_pair(prefix, (fused, channels, channels))
    aspp = "decoder.res5.project_conv"
    shapes[f"{aspp}.convs.0.weight"] = [256, 2048, 1, 1]
    for i in (1, 2, 3):
        if is_separable:
            shapes |= separable(f"{aspp}.convs.{i}", (2048, 256), 3)
        else:
            shapes[f"{aspp}.convs.{i}.weight"] = [256, 2048, 3, 3]
    shapes[f"{aspp}.convs.4.1.weight"] = [256, 2048, 1, 1]
    shapes[f"{aspp}.convs.4.1.bias"] = [256]
    shapes[f"{aspp}.project.weight"] = [256, 1280, 1, 1]
    return shapes


def predictor(name, channels, outputs):
    return {f"{name}.weight": [outputs, channels, 1, 1], f"{name}.bias": [outputs]}


@pytest.mark.parametrize(
    ("values", "is_separable", "classes", "tensors", "parameters"),
    [
        ({}, False, 19, 508, 59770166),
        (SEPARABLE, True, 19, 544, 30271350),
        ({**SEPARABLE, **COCO}, True, 133, 544, 30300648),
    ],
    ids=["cityscapes", "separable", "coco"],
)
def test_state(values, is_separable, classes, tensors, parameters):
    model = build_on_meta(make_config(add_panoptic_deeplab_config, CITYSCAPES, values))
    assert len(model.state_dict()) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters

    def head(name, channels):
        if is_separable:
            return separable(name, (channels[0], channels[2]), 5)
        return conv_pair(name, channels)

    semantic = {
        **decoder_shapes(256, is_separable),
        **head("head", (256, 256, 256)),
        **predictor("predictor", 256, classes),
    }
    instance = {
        **decoder_shapes(128, is_separable),
        **conv_pair("center_head", (128, 128, 32)),
        **predictor("center_predictor", 32, 1),
        **head("offset_head", (128, 128, 32)),
        **predictor("offset_predictor", 32, 2),
    }
    assert list(head_shapes(model, "sem_seg_head.").items()) == list(semantic.items())
    assert list(head_shapes(model, "ins_embed_head.").items()) == list(instance.items())


def test_registered():
    assert META_ARCH_REGISTRY.get("PanopticDeepLab") is PanopticDeepLab
    name = "PanopticDeepLabSemSegHead"
    assert SEM_SEG_HEADS_REGISTRY.get(name) is PanopticDeepLabSemSegHead
    name = "PanopticDeepLabInsEmbedHead"
    assert INS_EMBED_BRANCHES_REGISTRY.get(name) is PanopticDeepLabInsEmbedHead


def small_config(*values):
    return make_config(add_panoptic_deeplab_config, CITYSCAPES, SMALL, *values)


def sample(size=(64, 64)):
    """An image with stuff, a thing and a thing that is a crowd."""
    panoptic = np.zeros(size, dtype=np.int32)
    panoptic[:, :40] = 1
    panoptic[10:30, 10:30] = 2
    panoptic[40:50, 5:45] = 3
    segments = [
        {"id": 1, "category_id": 0, "iscrowd": 0},
        {"id": 2, "category_id": 2, "iscrowd": 0},
        {"id": 3, "category_id": 3, "iscrowd": 1},
    ]
    generator = PanopticDeepLabTargetGenerator(255, [2, 3], 4, True, 4096, 3)
    return {"image": torch.rand(3, *size) * 255, **generator(panoptic, segments)}


@pytest.mark.parametrize("loss", ["cross_entropy", "hard_pixel_mining"])
def test_training(loss):
    model = build_model(small_config({"MODEL.SEM_SEG_HEAD.LOSS_TYPE": loss}))
    batch = [sample(), sample()]
    check_training_step(model, batch, {"loss_sem_seg", "loss_center", "loss_offset"})
    for x in batch:
        del x["sem_seg_weights"]
    assert model(batch)["loss_sem_seg"].isfinite()


def test_images_of_different_sizes():
    """What is padded does not count."""
    values = {"INPUT.CROP.ENABLED": False, "MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY": 32}
    model = build_model(small_config(values)).eval()
    seen = {}
    model.sem_seg_head.forward = lambda features, *x: (None, seen.update(sem_seg=x) or {})
    model.ins_embed_head.forward = lambda features, *x: (None, None, seen.update(ins=x) or {}, {})
    model.training = True
    model([sample((64, 64)), sample((60, 90))])
    targets, weights = seen["sem_seg"]
    assert targets.shape == weights.shape == (2, 64, 96)
    assert (targets[0, :, 64:] == 255).all()
    assert not weights[1, 60:].any()
    shapes = [tuple(x.shape) for x in seen["ins"]]
    assert shapes == [(2, 1, 64, 96), (2, 1, 64, 96), (2, 2, 64, 96), (2, 1, 64, 96)]
    assert not seen["ins"][1][0, :, :, 64:].any()


def test_losses():
    head = build_model(small_config()).ins_embed_head
    center, offset = torch.randn(3, 1, 4, 5), torch.randn(3, 2, 4, 5)
    center_targets, offset_targets = torch.rand(3, 1, 16, 20), 9 * torch.randn(3, 2, 16, 20)
    weights = torch.rand(3, 1, 16, 20)

    def up(x):
        return torch.nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)(x)

    squares = np.square((up(center) - center_targets).numpy())
    distances = np.abs((4 * up(offset) - offset_targets).numpy())
    w = weights.numpy()
    total = sum(squares[n, 0, y, x] * w[n, 0, y, x] for n, y, x in np.ndindex(3, 16, 20))
    loss = head.center_losses(center, center_targets, weights)["loss_center"]
    assert loss.item() == pytest.approx(200 * total / w.sum(), rel=1e-4)
    total = sum(distances[n, c, y, x] * w[n, 0, y, x] for n, c, y, x in np.ndindex(3, 2, 16, 20))
    loss = head.offset_losses(offset, offset_targets, weights)["loss_offset"]
    assert loss.item() == pytest.approx(0.01 * total / w.sum(), rel=1e-4)
    # Nothing counts, for example in an image without things.
    center.requires_grad_()
    loss = head.center_losses(center, center_targets, 0 * weights)["loss_center"]
    loss.backward()
    assert loss.item() == 0
    assert not center.grad.any()
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        head.center_losses(center, center_targets, weights[:, 0])


@pytest.mark.parametrize("loss", ["cross_entropy", "hard_pixel_mining"])
def test_weights_of_the_semantic_loss(loss):
    values = {"MODEL.SEM_SEG_HEAD.LOSS_TYPE": loss, "MODEL.SEM_SEG_HEAD.LOSS_TOP_K": 1.0}
    head = build_model(small_config(values)).sem_seg_head
    logits = torch.randn(1, 4, 2, 2).repeat_interleave(1, dim=0)
    targets = torch.randint(0, 4, (1, 8, 8))
    ones = torch.ones(1, 8, 8)
    plain = head.losses(logits, targets)["loss_sem_seg"]
    torch.testing.assert_close(head.losses(logits, targets, ones)["loss_sem_seg"], plain)
    torch.testing.assert_close(head.losses(logits, targets, 3 * ones)["loss_sem_seg"], 3 * plain)
    only_first = torch.zeros(1, 8, 8)
    only_first[0, 0, 0] = 1
    first = head.losses(logits, targets, only_first)["loss_sem_seg"]
    expected = (logits[0, :, 0, 0].logsumexp(0) - logits[0, targets[0, 0, 0], 0, 0]) / 64
    torch.testing.assert_close(first, expected)
    nothing = torch.full((1, 8, 8), head.ignore_value)
    for weights in (None, ones):
        assert head.losses(logits, nothing, weights)["loss_sem_seg"] == 0


def test_offsets_under_autocast():
    model = build_model(small_config()).eval()
    head = model.ins_embed_head
    head.layers = lambda features: (torch.zeros(1, 1, 2, 2), torch.full((1, 2, 2, 2), 50.125))
    _, offset, _, _ = head({})
    assert (offset == 4 * 50.125).all()
    half = torch.full((1, 2, 2, 2), 50.0, dtype=torch.bfloat16)
    half[0, 0, :, 1] = 60
    head.layers = lambda features: (torch.zeros(1, 1, 2, 2), half)
    _, offset, _, _ = head({})
    assert offset.dtype == torch.float32
    expected = [200, 205, 215, 225, 235, 240, 240]
    assert offset[0, 0, 4, 1:].tolist() == expected


def as_predicted(model, sem_seg, center, offset):
    """Make the model predict these maps of the input's size."""
    model.sem_seg_head.forward = lambda features: (sem_seg, {})
    model.ins_embed_head.forward = lambda features: (center, offset, {}, {})


def two_things():
    """Predictions for a 64 x 64 image with a long thing and a short one beside it."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    sem_seg, center = torch.zeros(1, 4, 64, 64), torch.zeros(1, 1, 64, 64)
    offset = torch.zeros(1, 2, 64, 64)
    sem_seg[0, 0] = 5
    for left, right in ((0, 48), (48, 56)):
        window, middle = (slice(16, 48), slice(left, right)), (left + right) // 2
        sem_seg[0, 2][window] = 10
        center[0, 0, 32, middle] = 0.9
        offset[0, 0][window] = (32 - y)[window]
        offset[0, 1][window] = (middle - x)[window]
    return sem_seg, center, offset


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_inference(scale):
    """Also at another size, where offsets are other numbers of pixels."""
    model = build_model(small_config({"MODEL.PANOPTIC_DEEPLAB.STUFF_AREA": 50})).eval()
    as_predicted(model, *two_things())
    size = 64 * scale
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 64, 64), "height": size, "width": size}])
    assert output["sem_seg"].shape == (4, size, size)
    panoptic, segments = output["panoptic_seg"]
    assert segments is None
    # Scaled up, a centre is a plateau of pixels, each of which has an instance.
    left = panoptic[20 * scale : 44 * scale, 2 * scale : 46 * scale].unique()
    right = panoptic[20 * scale : 44 * scale, 50 * scale : 54 * scale].unique()
    assert (left // 1000 == 2).all()
    assert (right // 1000 == 2).all()
    assert not set(left.tolist()) & set(right.tolist())
    assert (panoptic[: 10 * scale] == 0).all()
    instances = output["instances"]
    assert instances.pred_masks.shape[1:] == (size, size)
    labels = [label for label in panoptic.unique().tolist() if label >= 1000]
    assert len(instances) == len(labels)


def test_inference_of_the_network():
    model = build_model(
        small_config(SEPARABLE, {"MODEL.PANOPTIC_DEEPLAB.PREDICT_INSTANCES": False})
    )
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 64, 64), "height": 40, "width": 30}])
    assert set(output) == {"sem_seg", "panoptic_seg"}
    assert output["panoptic_seg"][0].shape == (40, 30)
    assert output["panoptic_seg"][0].dtype == torch.int64


def test_bad_config():
    with pytest.raises(ValueError, match="got False and True"):
        build_model(small_config({"MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": True}))
    with pytest.raises(ValueError, match="'focal'"):
        build_model(small_config({"MODEL.SEM_SEG_HEAD.LOSS_TYPE": "focal"}))
