"""GeneralizedRCNN, ProposalNetwork, PanopticFPN and SemanticSegmentor with toy parts."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    GeneralizedRCNN,
    PanopticFPN,
    ProposalNetwork,
    SemanticSegmentor,
    build_model,
)
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from .roi_toys import OneMapBackbone, proposals, targets

MEAN, STD = (100.0, 110.0, 120.0), (10.0, 20.0, 30.0)


class FixedProposals(nn.Module):
    """The same two boxes for each image, and a loss."""

    def forward(self, images: ImageList, features: Any, gt: Any = None) -> tuple[list, dict]:
        self.seen = images, features, gt
        boxes = torch.tensor([[2.0, 4, 20, 30], [10, 10, 10, 40]])
        result = [
            Instances(size, proposal_boxes=Boxes(boxes.clone()), objectness_logits=torch.ones(2))
            for size in images.image_sizes
        ]
        return result, {"loss_rpn_cls": torch.ones(())} if self.training else {}


class Passing(nn.Module):
    """Detections that are the proposals."""

    def forward(self, images: Any, features: Any, given: Any, gt: Any = None) -> tuple[list, dict]:
        self.seen = given, gt
        if self.training:
            return given, {"loss_cls": 2 * torch.ones(())}
        result = []
        for p in given:
            count = len(p)
            result.append(
                Instances(
                    p.image_size,
                    pred_boxes=Boxes(p.proposal_boxes.tensor.clone()),
                    scores=torch.linspace(0.9, 0.8, count),
                    pred_classes=torch.arange(count),
                    pred_masks=torch.ones(count, 1, 4, 4),
                )
            )
        return result, {}

    def forward_with_given_boxes(self, features: Any, instances: list) -> list:
        for x in instances:
            x.given = torch.ones(len(x))
        return instances


class MovesPlainly(list):
    """A field that knows no more of ``to`` than the device, as DensePose's."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))

    def to(self, device: torch.device) -> "MovesPlainly":
        moved = MovesPlainly(len(self))
        moved.moved_to = device
        return moved


class OwnInstances(Instances):
    def to(self, device: torch.device) -> Instances:
        moved = OwnInstances(self.image_size)
        moved._moved_to = device
        return moved

    @property
    def moved_to(self) -> torch.device:
        return self._moved_to


def rcnn(kind: type = GeneralizedRCNN, **kwargs: Any) -> Any:
    arguments = {
        "backbone": OneMapBackbone(),
        "proposal_generator": FixedProposals(),
        "roi_heads": Passing(),
        "pixel_mean": MEAN,
        "pixel_std": STD,
    }
    return kind(**{**arguments, **kwargs})


def batch(**kwargs: Any) -> list[dict[str, Any]]:
    images = [torch.randint(256, (3, h, w), dtype=torch.uint8) for h, w in ((40, 50), (48, 30))]
    return [{"image": image, **kwargs} for image in images]


class SetsAllItself(GeneralizedRCNN):
    """As a model of a downstream project whose ``__init__`` takes other arguments."""

    def __init__(self) -> None:
        super(GeneralizedRCNN, self).__init__()
        for name, value in (("pixel_mean", MEAN), ("pixel_std", STD)):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), False)
        self.backbone, self.proposal_generator = OneMapBackbone(), FixedProposals()
        self.roi_heads = Passing()
        self.input_format, self.vis_period = "BGR", 0


class TestGeneralizedRCNN:
    def test_subclass_that_sets_all_itself(self) -> None:
        model, plain = SetsAllItself(), rcnn()
        model.load_state_dict(plain.state_dict())
        inputs = batch()
        (got, *_), (wanted, *_) = model.eval()(inputs), plain.eval()(inputs)
        assert torch.equal(got["instances"].scores, wanted["instances"].scores)
        for x in inputs:
            x["instances"] = targets(3)
        assert model.train()(inputs).keys() == {"loss_cls", "loss_rpn_cls"}

    @pytest.mark.parametrize("kind", [ProposalNetwork, SemanticSegmentor])
    def test_other_models_can_be_set_up_likewise(self, kind: type) -> None:
        model = kind.__new__(kind)
        super(kind, model).__init__()
        assert not list(model.named_modules())[1:]

    def test_normalized_and_padded(self) -> None:
        model, inputs = rcnn(), batch()
        images = model.preprocess_image(inputs)
        assert images.tensor.shape == (2, 3, 48, 56)
        assert images.image_sizes == [(40, 50), (48, 30)]
        for x, image in zip(inputs, images, strict=True):
            for c in range(3):
                wanted = (x["image"][c].double() - MEAN[c]) / STD[c]
                torch.testing.assert_close(image[c].double(), wanted, atol=1e-5, rtol=1e-5)
        assert not images.tensor[0, :, 40:].any()
        assert not images.tensor[1, :, :, 30:].any()
        assert set(model.state_dict()) == {"backbone.conv.weight", "backbone.conv.bias"}

    def test_training(self) -> None:
        model, inputs = rcnn(), batch()
        for x in inputs:
            x["instances"] = targets(3)
        losses = model(inputs)
        assert {name: float(loss) for name, loss in losses.items()} == {
            "loss_cls": 2,
            "loss_rpn_cls": 1,
        }
        assert list(losses) == ["loss_cls", "loss_rpn_cls"]
        for gt in (model.proposal_generator.seen[2], model.roi_heads.seen[1]):
            assert torch.equal(gt[1].gt_boxes.tensor, inputs[1]["instances"].gt_boxes.tensor)

    def test_fields_of_other_projects(self) -> None:
        model, inputs = rcnn(), batch()
        for x in inputs:
            x["instances"] = targets(3)
            x["instances"].gt_densepose = MovesPlainly(3)
        model(inputs)
        assert model.roi_heads.seen[1][1].gt_densepose.moved_to == model.device
        inputs[0]["instances"] = inputs[1]["instances"] = OwnInstances((40, 50))
        model(inputs)
        assert model.roi_heads.seen[1][0].moved_to == model.device

    def test_inference_in_the_wanted_size(self) -> None:
        model, inputs = rcnn().eval(), batch()
        inputs[0].update(height=80, width=200)
        results = [x["instances"] for x in model(inputs)]
        assert [x.image_size for x in results] == [(80, 200), (48, 30)]
        # The second box has no area.
        assert results[0].pred_boxes.tensor.tolist() == [[8, 8, 80, 60]]
        assert results[0].pred_masks.shape == (1, 80, 200)
        assert bool(results[0].pred_masks[0, 12:56, 16:72].all())  # Borders are soft.
        raw = model.inference(inputs, do_postprocess=False)
        assert [x.image_size for x in raw] == [(40, 50), (48, 30)]
        assert len(raw[0]) == 2

    def test_given_boxes(self) -> None:
        model = rcnn().eval()
        given = [
            Instances(size, pred_boxes=Boxes(torch.rand(2, 4)), pred_classes=torch.zeros(2).long())
            for size in ((40, 50), (48, 30))
        ]
        results = model.inference(batch(), given, do_postprocess=False)
        assert [x.given.tolist() for x in results] == [[1, 1]] * 2
        with pytest.raises(AssertionError, match="evaluation"):
            model.train().inference(batch())

    def test_given_proposals(self) -> None:
        model, inputs = rcnn(proposal_generator=None), batch()
        for training in (True, False):
            with pytest.raises(ValueError, match=r"needs 'proposals'.*\['image'\]"):
                model.train(training)(batch())
        for x in inputs:
            x["proposals"] = proposals(7, tuple(x["image"].shape[1:]))
        assert len(model(inputs)[0]["instances"]) == 7
        for x in inputs:
            x["instances"] = targets(3)
        assert list(model.train()(inputs)) == ["loss_cls"]

    def test_pictures_every_period(self) -> None:
        pytest.importorskip("detectron2.data.detection_utils")
        model, inputs = rcnn(vis_period=2, input_format="BGR"), batch()
        for x in inputs:
            x["instances"] = targets(3, (40, 50))
        with EventStorage(1) as storage:
            model(inputs)
            assert not storage._vis_data
            storage.step()
            model(inputs)
        ((name, image, _),) = storage._vis_data
        assert name == "Left: GT bounding boxes;  Right: Predicted proposals"
        assert image.shape == (3, 40, 100)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="vis_period=3 needs input_format"):
            rcnn(vis_period=3)
        with pytest.raises(ValueError, match="as many numbers"):
            rcnn(pixel_std=(1.0,))


class TestProposalNetwork:
    def model(self) -> ProposalNetwork:
        return ProposalNetwork(
            backbone=OneMapBackbone(),
            proposal_generator=FixedProposals(),
            pixel_mean=MEAN,
            pixel_std=STD,
        )

    def test_inference(self) -> None:
        inputs = batch()
        inputs[0].update(height=80, width=200)
        results = [x["proposals"] for x in self.model().eval()(inputs)]
        assert results[0].proposal_boxes.tensor.tolist() == [[8, 8, 80, 60]]
        assert results[0].image_size == (80, 200)

    @pytest.mark.parametrize("key", ["instances", "targets"])
    def test_training(self, key: str) -> None:
        model, inputs = self.model(), batch()
        for x in inputs:
            x[key] = targets(3)
        assert list(model(inputs)) == ["loss_rpn_cls"]
        assert len(model.proposal_generator.seen[2]) == 2


# ---------------------------------------------------------------------------------------- semantic


LEVELS = {
    "p5": ShapeSpec(channels=4, stride=32),
    "p2": ShapeSpec(channels=3, stride=4),
    "p3": ShapeSpec(channels=5, stride=8),
}


def sem_seg_head(**kwargs: Any) -> SemSegFPNHead:
    return SemSegFPNHead(
        **{"input_shape": LEVELS, "num_classes": 3, "conv_dims": 6, "common_stride": 4, **kwargs}
    )


def maps() -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(2, shape.channels, 64 // shape.stride, 96 // shape.stride)
        for name, shape in LEVELS.items()
    }


class TestSemSegFPNHead:
    def test_names_and_shapes(self) -> None:
        head, features = sem_seg_head().eval(), maps()
        names = ["p2.0", "p3.0", "p5.0", "p5.2", "p5.4", "predictor"]
        assert list(head.state_dict()) == [f"{n}.{k}" for n in names for k in ("weight", "bias")]
        logits, losses = head(features)
        assert logits.shape == (2, 3, 64, 96)
        assert losses == {}
        total = 0
        for name, doublings in (("p2", 0), ("p3", 1), ("p5", 3)):
            x = features[name]
            for i in range(max(doublings, 1)):
                conv = getattr(head, name)[2 * i]
                x = F.conv2d(x, conv.weight, conv.bias, padding=1).relu()
                if doublings:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = total + x
        wanted = F.interpolate(
            head.predictor(total), scale_factor=4, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(logits, wanted)

    def test_loss(self) -> None:
        head, features = sem_seg_head(loss_weight=0.5, ignore_value=255), maps()
        gt = torch.randint(3, (2, 64, 96))
        gt[:, :9] = 255
        none, losses = head(features, gt)
        logits = head.eval()(features)[0].double().log_softmax(1)
        counted = gt != 255
        picked = logits.gather(1, gt.where(counted, 0)[:, None])[:, 0][counted]
        torch.testing.assert_close(losses["loss_sem_seg"].double(), -0.5 * picked.mean())
        assert none is None
        half = head.losses(head.layers(features).half(), gt)["loss_sem_seg"]
        assert half.dtype == torch.float32

    def test_nothing_counts(self) -> None:
        head = sem_seg_head(ignore_value=255)
        _, losses = head(maps(), torch.full((2, 64, 96), 255))
        assert losses["loss_sem_seg"] == 0
        losses["loss_sem_seg"].backward()
        assert all(not p.grad.any() for p in head.parameters())

    def test_norm(self) -> None:
        assert "p2.0.norm.weight" in sem_seg_head(conv_dims=32, norm="GN").state_dict()
        assert "p2.0.bias" not in sem_seg_head(conv_dims=32, norm="GN").state_dict()

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"input_shape=\{\}"):
            sem_seg_head(input_shape={})
        with pytest.raises(ValueError, match="needs targets"):
            sem_seg_head()(maps())


def one_map_head(**kwargs: Any) -> SemSegFPNHead:
    shapes = {"p": ShapeSpec(channels=8, stride=8)}
    return sem_seg_head(input_shape=shapes, common_stride=8, ignore_value=255, **kwargs)


def test_semantic_segmentor() -> None:
    model = SemanticSegmentor(
        backbone=OneMapBackbone(), sem_seg_head=one_map_head(), pixel_mean=MEAN, pixel_std=STD
    )
    inputs = batch()
    for x in inputs:
        x["sem_seg"] = torch.randint(3, x["image"].shape[1:])
    loss = model(inputs)["loss_sem_seg"]
    images = model.preprocess_image(inputs)
    gt = torch.full((2, 48, 56), 255)  # What is padded does not count.
    gt[0, :40, :50], gt[1, :48, :30] = inputs[0]["sem_seg"], inputs[1]["sem_seg"]
    model.eval()
    logits = model.sem_seg_head(model.backbone(images.tensor))[0]
    torch.testing.assert_close(loss, F.cross_entropy(logits, gt, ignore_index=255))
    inputs[0].update(height=80, width=100)
    results = [x["sem_seg"] for x in model(inputs)]
    assert [x.shape for x in results] == [(3, 80, 100), (3, 48, 30)]
    torch.testing.assert_close(results[1], logits[1, :, :48, :30])


# ---------------------------------------------------------------------------------------- panoptic


class TestPanopticFPN:
    def test_training(self) -> None:
        model, inputs = rcnn(PanopticFPN, sem_seg_head=one_map_head()), batch()
        with pytest.raises(ValueError, match=r"'sem_seg' and 'instances', got \['image'\]"):
            model(inputs)
        for x in inputs:
            x["instances"], x["sem_seg"] = targets(3), torch.randint(3, x["image"].shape[1:])
        assert list(model(inputs)) == ["loss_sem_seg", "loss_rpn_cls", "loss_cls"]

    def test_inference(self) -> None:
        model = rcnn(PanopticFPN, sem_seg_head=one_map_head(), combine_stuff_area_thresh=1).eval()
        inputs = batch(height=40, width=60)
        for result in model(inputs):
            assert set(result) == {"sem_seg", "instances", "panoptic_seg"}
            panoptic, segments = result["panoptic_seg"]
            assert panoptic.shape == (40, 60) == result["sem_seg"].shape[1:]
            assert segments[0]["isthing"]
            assert segments[0]["category_id"] == 0
            box = result["instances"].pred_boxes.tensor[0].round().int().tolist()
            inner = panoptic[box[1] + 3 : box[3] - 3, box[0] + 3 : box[2] - 3]
            assert inner.numel() > 0
            assert bool((inner == 1).all())
        detections, logits = model.inference(inputs, do_postprocess=False)
        assert len(detections) == 2
        assert logits.shape == (2, 3, 48, 56)

    def test_weight_of_instance_losses(self, caplog: pytest.LogCaptureFixture) -> None:
        cfg = get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
        cfg.MODEL.MASK_ON = True
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32]] * 5
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
        cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 3.0
        cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 2.0
        cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED = False
        with caplog.at_level(logging.WARNING):
            heads = build_model(cfg).roi_heads
        # The classification's weight is not in the configuration.
        assert heads.box_predictor.loss_weight == {"loss_cls": 2.0, "loss_box_reg": 6.0}
        assert heads.mask_head.loss_weight == 2.0
        assert "INSTANCE_LOSS_WEIGHT" in caplog.text
        assert "COMBINE.ENABLED" in caplog.text
