"""RetinaNet and FCOS with a small backbone, against single images, levels and anchors."""

import numpy as np
import pytest
import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss, smooth_l1_loss
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import CycleBatchNormList, ShapeSpec, batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.dense_detector import DenseDetector, permute_to_N_HWA_K
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage

from .roi_toys import by_rows

CLASSES = 3


class SmallBackbone(Backbone):
    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 8, 3, 8, 1)
        self.coarse = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x):
        fine = self.fine(x)
        return {"coarse": self.coarse(fine), "fine": fine}

    def output_shape(self):
        return {"coarse": ShapeSpec(channels=8, stride=16), "fine": ShapeSpec(channels=8, stride=8)}


LEVELS = [ShapeSpec(channels=8)] * 2
PIXELS = {"pixel_mean": [100.0, 110, 120], "pixel_std": [50.0, 60, 70]}


def make_retinanet(cls=RetinaNet, **kwargs):
    arguments = {
        "backbone": SmallBackbone(),
        "head": RetinaNetHead(
            input_shape=LEVELS, num_classes=CLASSES, num_anchors=2, conv_dims=[8], prior_prob=0.3
        ),
        "head_in_features": ["fine", "coarse"],
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[16.0, 24.0], [32.0, 48.0]], aspect_ratios=[1.0], strides=[8, 16]
        ),
        "box2box_transform": Box2BoxTransform((1.0,) * 4),
        "anchor_matcher": Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        "num_classes": CLASSES,
        "test_score_thresh": 0.3,
        "test_topk_candidates": 40,
        "max_detections_per_image": 25,
        **PIXELS,
    }
    return stir(cls(**{**arguments, **kwargs}))


def make_fcos(cls=FCOS, **kwargs):
    arguments = {
        "backbone": SmallBackbone(),
        "head": FCOSHead(input_shape=LEVELS, num_classes=CLASSES, conv_dims=[8], prior_prob=0.3),
        "num_classes": CLASSES,
        "test_score_thresh": 0.3,
        "test_topk_candidates": 40,
        "max_detections_per_image": 25,
        **PIXELS,
    }
    return stir(cls(**{**arguments, **kwargs}))


def stir(model):
    for parameter in model.head.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    return model


MAKERS = {"RetinaNet": make_retinanet, "FCOS": make_fcos}


def inputs(counts=None):
    samples = []
    for i, (height, width) in enumerate([(64, 80), (72, 64)]):
        sample = {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8)}
        sample["height"], sample["width"] = height * 2, width
        if counts is not None:
            corners = torch.rand(counts[i], 2) * 40
            boxes = torch.cat([corners, corners + 10 + torch.rand(counts[i], 2) * 25], dim=1)
            sample["instances"] = Instances(
                (height, width),
                gt_boxes=Boxes(boxes),
                gt_classes=torch.randint(0, CLASSES, (counts[i],)),
            )
        samples.append(sample)
    return samples


def predict(model, samples):
    """Anchors, and the predictions in the order of the anchors, made one by one."""
    images = model.preprocess_image(samples)
    features = model.backbone(images.tensor)
    maps = [features["fine"], features["coarse"]]
    outputs = model.head(maps)
    ordered = []
    for output, size in zip(outputs, [CLASSES, 4, 1], strict=False):
        of_levels = []
        for x in output:
            n, channels, height, width = x.shape
            split = x.view(n, channels // size, size, height, width)
            of_levels.append(split.permute(0, 3, 4, 1, 2).reshape(n, -1, size))
        ordered.append(of_levels)
    return images, model.anchor_generator(maps), ordered


def test_order_of_predictions():
    x = torch.arange(2 * 6 * 2 * 3).view(2, 6, 2, 3)
    ordered = permute_to_N_HWA_K(x, 3)
    assert ordered.shape == (2, 12, 3)
    for n, a, k, i, j in np.ndindex(2, 2, 3, 2, 3):
        assert ordered[n, (i * 3 + j) * 2 + a, k] == x[n, a * 3 + k, i, j]
    last = x.to(memory_format=torch.channels_last)
    assert torch.equal(permute_to_N_HWA_K(last, 3), ordered)


def detect_singly(model, anchors, scores, deltas, image_size):
    boxes, best, classes = [], [], []
    for of_level, its_scores, its_deltas in zip(anchors, scores, deltas, strict=True):
        chosen = [
            (its_scores[r, k].item(), r, k)
            for r, k in np.ndindex(*its_scores.shape)
            if its_scores[r, k] > model.test_score_thresh
        ]
        for score, r, k in sorted(chosen, reverse=True)[: model.test_topk_candidates]:
            decode = model.box2box_transform.apply_deltas
            boxes.append(decode(its_deltas[r : r + 1], of_level.tensor[r : r + 1]))
            best.append(score)
            classes.append(k)
    boxes, best, classes = torch.cat(boxes), torch.tensor(best), torch.tensor(classes)
    keep = batched_nms(boxes, best, classes, model.test_nms_thresh)
    keep = keep[: model.max_detections_per_image]
    clipped = Boxes(boxes[keep])
    clipped.clip(image_size)
    return clipped.tensor, best[keep], classes[keep]


def scores_of(model, predictions):
    if isinstance(model, RetinaNet):
        return [x.sigmoid() for x in predictions[0]]
    return [
        (x.sigmoid() * y.sigmoid()).sqrt()
        for x, y in zip(predictions[0], predictions[2], strict=True)
    ]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("images", [2, 1])
def test_inference(name, images):
    model = MAKERS[name]().eval()
    samples = inputs()[:images]
    with torch.no_grad():
        batch, anchors, predictions = predict(model, samples)
        features = model.backbone(batch.tensor)
        maps = [features["fine"], features["coarse"]]
        results = model.forward_inference(batch, maps, model.head(maps))
        scores = scores_of(model, predictions)
        outputs = model(samples)
    for i, size in enumerate(batch.image_sizes):
        wanted = detect_singly(
            model, anchors, [x[i] for x in scores], [x[i] for x in predictions[1]], size
        )
        single = model.inference_single_image(
            anchors, [x[i] for x in scores], [x[i] for x in predictions[1]], size
        )
        for got in (results[i], single):
            assert len(got) == 25
            torch.testing.assert_close(got.scores, wanted[1])
            assert torch.equal(got.pred_classes, wanted[2])
            torch.testing.assert_close(got.pred_boxes.tensor, wanted[0])
        final = outputs[i]["instances"]
        assert final.image_size == (samples[i]["height"], samples[i]["width"])
        scaled = Boxes(wanted[0] * torch.tensor([1.0, 2, 1, 2]))
        torch.testing.assert_close(final.pred_boxes.tensor, scaled[scaled.nonempty()].tensor)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_of_detections(name):
    model = MAKERS[name]().eval()
    samples = inputs()
    samples[1] = {**samples[0], "image": samples[0]["image"].flip(2)}
    together = [x["instances"].pred_boxes.tensor.sum() for x in model(samples)]
    singly = [model([x])[0]["instances"].pred_boxes.tensor.sum() for x in samples]
    weight = model.head.bbox_pred.weight
    got, wanted = (torch.autograd.grad(sum(x), weight)[0] for x in (together, singly))
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_detected(name):
    model = MAKERS[name](test_score_thresh=1.0).eval()
    with torch.no_grad():
        for output in model(inputs()):
            assert len(output["instances"]) == 0
            assert output["instances"].pred_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_a_subclass_with_its_own_way_for_single_images(make):
    base = RetinaNet if make is make_retinanet else FCOS

    class Own(base):
        def inference_single_image(self, anchors, box_cls, box_delta, image_size):
            return super().inference_single_image(anchors, box_cls, box_delta, image_size)[:2]

    model = make(Own).eval()
    with torch.no_grad():
        assert all(0 < len(x["instances"]) <= 2 for x in model(inputs()))


def focal(logits, labels):
    valid = labels >= 0
    targets = F.one_hot(labels[valid], CLASSES + 1)[:, :-1].float()
    return sigmoid_focal_loss(logits[valid], targets, alpha=0.25, gamma=2.0, reduction="sum")


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (0, 0)])
def test_training_of_retinanet(counts):
    model = make_retinanet(smooth_l1_beta=0.1)
    samples = inputs(counts)
    with EventStorage() as storage:
        losses = model(samples)
    _, anchors, (logits, deltas) = predict(model, samples)
    all_anchors = Boxes.cat(anchors)
    positives, wanted_cls, wanted_box = 0, torch.zeros(()), torch.zeros(())
    for i, sample in enumerate(samples):
        gt = sample["instances"]
        matches, found = model.anchor_matcher(pairwise_iou(gt.gt_boxes, all_anchors))
        labels = torch.full_like(matches, CLASSES)
        labels[found == -1] = -1
        if len(gt) > 0:
            labels[found == 1] = gt.gt_classes[matches[found == 1]]
            targets = model.box2box_transform.get_deltas(
                all_anchors.tensor[found == 1], gt.gt_boxes.tensor[matches[found == 1]]
            )
            predicted = torch.cat([x[i] for x in deltas])[found == 1]
            wanted_box = wanted_box + smooth_l1_loss(predicted, targets, 0.1, reduction="sum")
            positives += int((found == 1).sum())
        wanted_cls = wanted_cls + focal(torch.cat([x[i] for x in logits]), labels)
    normalizer = 0.9 * 100 + 0.1 * max(positives, 1)
    torch.testing.assert_close(losses["loss_cls"], wanted_cls / normalizer)
    torch.testing.assert_close(losses["loss_box_reg"], wanted_box / normalizer)
    assert float(model.loss_normalizer) == pytest.approx(normalizer)
    assert storage.latest()["num_pos_anchors"][0] == pytest.approx(positives / 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any("normalizer" in name for name in model.state_dict())


def fcos_match(model, anchors, gt):
    """Each point by itself: (label, box)."""
    labels, matched = [], []
    for level, of_level in enumerate(anchors):
        for x0, y0, x1, y1 in of_level.tensor.tolist():
            x, y, size = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0
            lower = 0 if level == 0 else 4 * size
            upper = float("inf") if level == len(anchors) - 1 else 8 * size
            fitting = []
            for k, (a, b, c, d) in zip(
                gt.gt_classes.tolist(), gt.gt_boxes.tensor.tolist(), strict=True
            ):
                sides = (x - a, y - b, c - x, d - y)
                off = max(abs(x - (a + c) / 2), abs(y - (b + d) / 2))
                if off < 1.5 * size and min(sides) > 0 and lower < max(sides) < upper:
                    fitting.append(((c - a) * (d - b), k, (a, b, c, d)))
            best = min(fitting, default=(0, CLASSES, (0, 0, 0, 0)))
            labels.append(best[1])
            matched.append(best[2])
    return torch.tensor(labels), torch.tensor(matched)


def test_levels_of_fcos_have_ranges_of_sizes():
    strides = [8, 16, 32]
    generator = DefaultAnchorGenerator(
        sizes=[[s] for s in strides], aspect_ratios=[1.0], strides=strides
    )
    anchors = generator([torch.zeros(1, 1, 640 // s, 640 // s) for s in strides])
    # The farthest side is by about half of these away: up to 64 pixels, to 128, and more.
    sides = torch.tensor([10.0, 60, 110, 126, 131, 160, 250, 261, 600, 630])
    corners = (640 - sides)[:, None] * torch.rand(len(sides), 2)
    boxes = torch.cat([corners, corners + sides[:, None] * torch.rand(len(sides), 2)], dim=1)
    boxes[::2, 2:] = corners[::2] + sides[::2, None]
    gt = Instances((640, 640), gt_boxes=Boxes(boxes), gt_classes=torch.arange(len(sides)) % CLASSES)
    model = make_fcos()
    (labels,), (matched,) = model.label_anchors(anchors, [gt])
    wanted, wanted_boxes = fcos_match(model, anchors, gt)
    assert torch.equal(labels, wanted)
    positive = labels != CLASSES
    assert all(x.any() for x in positive.split([len(x) for x in anchors]))
    torch.testing.assert_close(matched[positive], wanted_boxes[positive])


@pytest.mark.parametrize("counts", [(3, 4), (0, 4), (0, 0)])
def test_training_of_fcos(counts):
    model = make_fcos()
    samples = inputs(counts)
    with EventStorage() as storage:
        losses = model(samples)
    _, anchors, (logits, deltas, centerness) = predict(model, samples)
    all_anchors = torch.cat([x.tensor for x in anchors])
    given, _ = model.label_anchors(anchors, [x["instances"] for x in samples])
    positives = 0
    wanted = {name: torch.zeros(()) for name in ("cls", "loc", "ctr")}
    for i, sample in enumerate(samples):
        labels, matched = fcos_match(model, anchors, sample["instances"])
        assert torch.equal(given[i], labels)
        wanted["cls"] = wanted["cls"] + focal(torch.cat([x[i] for x in logits]), labels)
        positive = labels != CLASSES
        positives += int(positive.sum())
        if not positive.any():
            continue
        boxes = model.box2box_transform.apply_deltas(
            torch.cat([x[i] for x in deltas])[positive], all_anchors[positive]
        )
        wanted["loc"] = wanted["loc"] + giou_loss(boxes, matched[positive], reduction="sum")
        left, top, right, bottom = model.box2box_transform.get_deltas(
            all_anchors[positive], matched[positive]
        ).unbind(1)
        horizontal = torch.minimum(left, right) / torch.maximum(left, right)
        vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
        wanted["ctr"] = wanted["ctr"] + F.binary_cross_entropy_with_logits(
            torch.cat([x[i] for x in centerness])[positive, 0],
            (horizontal * vertical).sqrt(),
            reduction="sum",
        )
    assert (positives > 0) == (sum(counts) > 0)
    normalizer = 0.9 * 300 + 0.1 * max(positives, 1)
    for name, loss in wanted.items():
        torch.testing.assert_close(losses[f"loss_fcos_{name}"], loss / normalizer)
    assert storage.latest()["num_pos_anchors"][0] == pytest.approx(positives / 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(
    ("make", "kind"), [(make_retinanet, Box2BoxTransform), (make_fcos, Box2BoxTransformLinear)]
)
def test_a_transform_of_rows(make, kind, on_cpu, monkeypatch):
    monkeypatch.setattr(
        "detectron2.modeling.box_regression._counts_foreground", lambda device: on_cpu
    )
    model, samples = make(), inputs((3, 2))
    model.box2box_transform = by_rows(kind)(*([(1.0,) * 4] if kind is Box2BoxTransform else []))
    with EventStorage():
        losses = model.train()(samples)
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        assert len(model.eval()(samples)[0]["instances"]) > 0


@pytest.mark.parametrize("name", MAKERS)
def test_training_without_instances(name):
    with pytest.raises(AssertionError, match="'image'"):
        MAKERS[name]()(inputs())


def test_levels_are_sorted_by_stride_unless_they_are_named():
    model = make_fcos()
    assert model.head_in_features == ["fine", "coarse"]
    assert model.anchor_generator.strides == [8, 16]
    assert make_fcos(head_in_features=["coarse"]).head_in_features == ["coarse"]


def test_preprocessing():
    model = make_retinanet()
    samples = inputs()
    batch = model.preprocess_image(samples)
    assert batch.image_sizes == [(64, 80), (72, 64)]
    mean, std = (torch.tensor(PIXELS[x])[:, None, None] for x in ("pixel_mean", "pixel_std"))
    torch.testing.assert_close(batch[1], (samples[1]["image"] - mean) / std)
    assert not batch.tensor[1, :, :, 64:].any()
    assert model.device == torch.device("cpu")
    assert not any("pixel" in name for name in model.state_dict())


def test_average():
    model = make_fcos()
    assert model._ema_update("average", 10.0, 100.0) == pytest.approx(91.0)
    assert model._ema_update("average", torch.tensor(10), 100.0) == pytest.approx(82.9)
    assert model.average == pytest.approx(82.9)
    assert model._ema_update("other", 1.0, 2.0, momentum=0.5) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("norm", "names"),
    [
        ("", {"0.weight", "0.bias", "2.weight", "2.bias"}),
        ("GN", {f"{i}.{x}" for i in (0, 1, 3, 4) for x in ("weight", "bias")}),
    ],
)
def test_names_of_the_head(norm, names):
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=32)] * 2,
        num_classes=CLASSES,
        num_anchors=2,
        conv_dims=[32, 32],
        norm=norm,
    )
    wanted = {f"{branch}_subnet.{name}" for branch in ("cls", "bbox") for name in names}
    wanted |= {f"{x}.{y}" for x in ("cls_score", "bbox_pred") for y in ("weight", "bias")}
    assert set(head.state_dict()) == wanted
    torch.testing.assert_close(head.cls_score.bias.sigmoid(), torch.full((6,), 0.01))


def test_batch_norm_of_the_head_keeps_levels_apart():
    head = RetinaNetHead(
        input_shape=LEVELS, num_classes=CLASSES, num_anchors=2, conv_dims=[8], norm="BN"
    )
    norm = head.cls_subnet[1]
    assert isinstance(norm, CycleBatchNormList)
    head([torch.randn(2, 8, 5, 5), torch.randn(2, 8, 3, 3) * 10])
    assert all(x.num_batches_tracked == 1 for x in norm)
    assert not torch.allclose(norm[0].running_var, norm[1].running_var)
    with pytest.raises(AssertionError, match="2 levels, got 1"):
        head([torch.randn(2, 8, 5, 5)])


@pytest.mark.parametrize("kind", [RetinaNetHead, FCOSHead])
def test_levels_stay_apart_after_a_failure(kind):
    arguments = {"num_anchors": 2} if kind is RetinaNetHead else {}
    head = kind(input_shape=LEVELS, num_classes=2, conv_dims=[8], norm="BN", **arguments).eval()
    for norm in head.cls_subnet[1]:
        norm.running_mean.normal_()
    x = [torch.randn(2, 8, 5, 5), torch.randn(2, 8, 3, 3)]
    wanted = head(x)
    with pytest.raises(RuntimeError):
        head([x[0], torch.randn(2, 9, 3, 3)])
    torch.testing.assert_close(head(x), wanted)


def test_head_compiles_to_one_graph():
    head = make_fcos().head
    graph = torch.compile(head, backend="eager", fullgraph=True)
    x = [torch.randn(2, 8, 5, 5), torch.randn(2, 8, 3, 3)]
    for a, b in zip(graph(x), head(x), strict=True):
        for y, z in zip(a, b, strict=True):
            torch.testing.assert_close(y, z)


def test_registry():
    assert META_ARCH_REGISTRY.get("RetinaNet") is RetinaNet
    assert "FCOS" not in META_ARCH_REGISTRY
    with pytest.raises(NotImplementedError, match="DenseDetector"):
        DenseDetector(SmallBackbone(), nn.Identity(), **PIXELS).forward_training(None, [], [], [])
