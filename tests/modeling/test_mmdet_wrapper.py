"""Models in the interfaces of MMDetection 2, which need not be installed."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import MMDetBackbone, MMDetDetector
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage


class Stages(nn.Module):
    """A backbone of two feature maps."""

    def __init__(self, channels=4):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, channels, 4, 4), nn.Conv2d(3, channels, 8, 8)])
        self.initialized = False
        self.eval()

    def init_weights(self):
        self.initialized = True

    def forward(self, x):
        return tuple(conv(x) for conv in self.convs)


class Doubling(nn.Module):
    def forward(self, features):
        return [2 * feature for feature in features]


SHAPES = [ShapeSpec(channels=4, stride=4), ShapeSpec(channels=4, stride=8)]


def test_backbone():
    stages = Stages()
    backbone = MMDetBackbone(stages, output_shapes=SHAPES)
    assert stages.initialized
    assert stages.training
    assert backbone.output_shape() == dict(zip(["out0", "out1"], SHAPES, strict=True))
    x = torch.randn(2, 3, 16, 24)
    outputs = backbone(x)
    assert list(outputs) == ["out0", "out1"]
    named = MMDetBackbone(stages, Doubling(), output_shapes=SHAPES, output_names=["a", "b"])
    torch.testing.assert_close(named(x)["b"], 2 * outputs["out1"])
    with pytest.raises(ValueError, match=r"got names \['a'\] for 2 outputs"):
        MMDetBackbone(stages, output_shapes=SHAPES, output_names=["a"])
    with pytest.raises(ValueError, match="expected 1 feature maps, got 2"):
        MMDetBackbone(stages, output_shapes=SHAPES[:1])(x)
    with pytest.raises(ValueError, match="expected 2 feature maps, got Tensor"):
        MMDetBackbone(nn.Identity(), output_shapes=SHAPES)(x)


@pytest.fixture
def mmdet(monkeypatch):
    """Stand-ins for what is used of the package."""
    models, core, utils = ModuleType("mmdet.models"), ModuleType("mmdet.core"), ModuleType("utils")
    models.build_backbone = lambda config: Stages(config["channels"])
    models.build_detector = lambda config: Detector(**config)
    core.PolygonMasks = core.BitmapMasks = lambda *args: args
    utils.ConfigDict = dict
    for name, module in (
        ("mmdet", ModuleType("mmdet")),
        ("mmdet.models", models),
        ("mmdet.core", core),
        ("mmcv", ModuleType("mmcv")),
        ("mmcv.utils", utils),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def test_configurations(mmdet):
    config = OmegaConf.create({"channels": 5})
    backbone = MMDetBackbone(config, output_shapes=SHAPES)
    assert backbone.backbone.convs[0].out_channels == 5
    detector = MMDetDetector({"masks": True}, pixel_mean=(0.0,) * 3, pixel_std=(1.0,) * 3)
    assert detector.detector.masks


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv.utils", None)
    with pytest.raises(ImportError, match="the package mmdet"):
        MMDetBackbone({"type": "ResNet"}, output_shapes=SHAPES)


class Detector(nn.Module):
    """Notes what it gets; finds a box of class 1 and two of class 2 in every image."""

    def __init__(self, masks=False):
        super().__init__()
        self.masks = masks

    def simple_test(self, batch, metas, rescale):
        self.got = SimpleNamespace(batch=batch, metas=metas, rescale=rescale)
        boxes = [np.zeros((n, 5), dtype=np.float32) + n for n in (0, 1, 2)]
        masks = [[np.full((4, 6), n == 2) for _ in range(n)] for n in (0, 1, 2)]
        return [(boxes, masks) if self.masks else boxes for _ in metas]

    def forward_train(self, batch, metas, boxes, classes, gt_masks=None):
        self.got = SimpleNamespace(batch=batch, boxes=boxes, classes=classes, masks=gt_masks)
        return {
            "loss_a": [torch.tensor([1.0, 3.0]), torch.tensor(4.0)],
            "loss_b": torch.tensor(5.0, requires_grad=True),
            "accuracy": torch.tensor([50.0]),
        }


def detector(**options):
    return MMDetDetector(Detector(**options), pixel_mean=(1.0, 2.0, 3.0), pixel_std=(2.0,) * 3)


@pytest.mark.parametrize("masks", [False, True])
def test_detection(masks):
    model = detector(masks=masks).eval()
    image = torch.full((3, 20, 40), 7.0)
    results = model([{"image": image, "height": 40, "width": 60}])
    got = model.detector.got
    assert got.rescale
    assert got.batch.shape == (1, 3, 32, 64)
    assert got.batch[0, :, 0, 0].tolist() == [3, 2.5, 2]
    assert got.batch[0, :, 20, 0].tolist() == [0, 0, 0]
    (meta,) = got.metas
    assert meta["img_shape"] == (20, 40, 3)
    assert meta["ori_shape"] == (40, 60, 3)
    assert meta["pad_shape"] == (32, 64, 3)
    np.testing.assert_allclose(meta["scale_factor"], [2 / 3, 0.5, 2 / 3, 0.5], rtol=1e-6)
    instances = results[0]["instances"]
    assert instances.image_size == (40, 60)
    assert instances.pred_classes.tolist() == [1, 2, 2]
    assert instances.scores.tolist() == [1, 2, 2]
    assert instances.pred_boxes.tensor[:, 0].tolist() == [1, 2, 2]
    assert instances.has("pred_masks") == masks
    if masks:
        assert instances.pred_masks[:, 0, 0].tolist() == [False, True, True]
    model([{"image": image}])
    assert not model.detector.got.rescale
    assert model.detector.got.metas[0]["scale_factor"] == 1.0
    with pytest.raises(ValueError, match="height and width"):
        model([{"image": image}, {"image": image, "height": 1, "width": 1}])
    assert list(model.state_dict()) == []


@pytest.mark.parametrize("kind", [None, PolygonMasks, BitMasks])
def test_training(kind, mmdet):
    instances = Instances((20, 40))
    instances.gt_boxes = Boxes(torch.tensor([[1.0, 2, 3, 4]]))
    instances.gt_classes = torch.tensor([6])
    polygon = [np.array([0.0, 0, 8, 0, 8, 8])]
    if kind is PolygonMasks:
        instances.gt_masks = PolygonMasks([polygon])
    elif kind is BitMasks:
        instances.gt_masks = BitMasks(torch.ones(1, 20, 40, dtype=torch.bool))
    model = detector()
    with EventStorage() as storage:
        losses = model([{"image": torch.zeros(3, 20, 40), "instances": instances}])
        assert storage.latest()["accuracy"][0] == 50
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_a": 6, "loss_b": 5}
    got = model.detector.got
    assert got.boxes[0].tolist() == [[1, 2, 3, 4]]
    assert got.classes[0].tolist() == [6]
    if kind is None:
        assert got.masks is None
    else:
        masks, height, width = got.masks[0]
        assert (height, width) == (32, 64)
        if kind is PolygonMasks:
            assert np.array_equal(masks[0][0], polygon[0])
        else:
            assert masks.shape == (1, 32, 64)
            assert masks.sum() == 20 * 40


def test_wrong_values():
    model = detector()
    instances = Instances((20, 40), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0))
    sample = {"image": torch.zeros(3, 20, 40), "instances": instances}
    model.detector.forward_train = lambda *args, **kwargs: {"loss": "high"}
    with pytest.raises(TypeError, match="loss must be a tensor or a list"):
        model([sample])
    instances.gt_masks = torch.zeros(0)
    with pytest.raises((TypeError, ImportError)):
        model([sample])
