"""RPN, RRPN and their parts, against single images and levels."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec, batched_nms, batched_nms_rotated
from detectron2.modeling import (
    PROPOSAL_GENERATOR_REGISTRY,
    RPN_HEAD_REGISTRY,
    build_proposal_generator,
)
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, RotatedAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.proposal_generator._graph_proposals import find_proposals_in_graph
from detectron2.modeling.proposal_generator.proposal_utils import (
    add_ground_truth_to_proposals,
    find_top_rpn_proposals,
)
from detectron2.modeling.proposal_generator.rrpn import RRPN, find_top_rrpn_proposals
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes, pairwise_iou
from detectron2.utils.events import EventStorage

from .roi_toys import by_rows

SIZES = [(90, 110), (100, 120)]


def boxes(count):
    corners = torch.rand(count, 2) * 100 - 10
    return torch.cat([corners, corners + 2 + torch.rand(count, 2) * 60], dim=1)


def rotated_boxes(count):
    sizes, angles = 2 + torch.rand(count, 2) * 60, torch.rand(count, 1) * 180 - 90
    return torch.cat([torch.rand(count, 2) * 100, sizes, angles], dim=1)


def scored(make, *counts, images=2):
    proposals = [torch.stack([make(count) for _ in range(images)]) for count in counts]
    logits = [torch.randn(images, count) for count in counts]
    return proposals, logits


def choose_singly(proposals, logits, sizes, nms_thresh, pre, post, min_size, rotated=False):
    """One image and one level after the other."""
    results = []
    for i, size in enumerate(sizes):
        kept_boxes, kept_logits, levels = [], [], []
        for level, (of_level, its_logits) in enumerate(zip(proposals, logits, strict=True)):
            order = its_logits[i].argsort(descending=True)[:pre]
            kept_boxes.append(of_level[i][order])
            kept_logits.append(its_logits[i][order])
            levels.append(torch.full_like(order, level))
        tensor, scores, idxs = (torch.cat(x) for x in (kept_boxes, kept_logits, levels))
        finite = tensor.isfinite().all(1) & scores.isfinite()
        tensor, scores, idxs = tensor[finite], scores[finite], idxs[finite]
        kind = RotatedBoxes if rotated else Boxes
        clipped = kind(tensor)
        clipped.clip(size)
        large = clipped.nonempty(min_size)
        tensor, scores, idxs = clipped.tensor[large], scores[large], idxs[large]
        nms = batched_nms_rotated if rotated else batched_nms
        keep = nms(tensor, scores, idxs, nms_thresh)[:post]
        results.append((tensor[keep], scores[keep]))
    return results


def check_proposals(results, wanted, kind=Boxes):
    assert len(results) == len(wanted)
    for instances, (tensor, scores) in zip(results, wanted, strict=True):
        assert type(instances.proposal_boxes) is kind
        torch.testing.assert_close(instances.proposal_boxes.tensor, tensor)
        torch.testing.assert_close(instances.objectness_logits, scores)


@pytest.mark.parametrize("counts", [(60, 25, 7), (25, 60), (40,), (0, 5), (0, 0)])
@pytest.mark.parametrize(("pre", "post"), [(30, 20), (1000, 1000), (1000, 3), (0, 5)])
@pytest.mark.parametrize("min_size", [0.0, 12.0])
def test_find_top_rpn_proposals(counts, pre, post, min_size):
    proposals, logits = scored(boxes, *counts)
    arguments = (proposals, logits, SIZES, 0.5, pre, post, min_size)
    wanted = choose_singly(*arguments)
    for training in (False, True):
        results = find_top_rpn_proposals(*arguments, training)
        check_proposals(results, wanted)
        assert [x.image_size for x in results] == SIZES
    check_proposals(find_proposals_in_graph(*arguments), wanted)


def test_find_top_rrpn_proposals():
    proposals, logits = scored(rotated_boxes, 40, 15)
    arguments = (proposals, logits, SIZES, 0.4, 30, 20, 5.0)
    results = find_top_rrpn_proposals(*arguments, False)
    check_proposals(results, choose_singly(*arguments, rotated=True), RotatedBoxes)


def test_no_images():
    proposals, logits = scored(boxes, 5)
    proposals, logits = [x[:0] for x in proposals], [x[:0] for x in logits]
    assert find_top_rpn_proposals(proposals, logits, [], 0.5, 9, 9, 0.0, False) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["box", "logit"])
def test_what_is_not_finite(value, where):
    proposals, logits = scored(boxes, 30, 5)
    if where == "box":
        logits[0][0, 3] = 100
        proposals[0][0, 3, 2] = value
    else:
        logits[0][0, 3] = value
    arguments = (proposals, logits, SIZES, 0.5, 100, 50, 0.0)
    check_proposals(find_top_rpn_proposals(*arguments, False), choose_singly(*arguments))
    with pytest.raises(FloatingPointError, match="1 of the best-scored"):
        find_top_rpn_proposals(*arguments, True)


def test_logits_in_half_precision_come_out_in_float32():
    proposals, logits = scored(boxes, 30)
    half = [x.half() for x in logits]
    results = find_top_rpn_proposals(proposals, half, SIZES, 0.5, 20, 9, 0.0, False)
    assert all(x.objectness_logits.dtype == torch.float32 for x in results)
    check_proposals(
        results, choose_singly(proposals, [x.float() for x in half], SIZES, 0.5, 20, 9, 0.0)
    )


@pytest.mark.parametrize("count", [0, 3])
def test_ground_truth_as_proposals(count):
    proposals = Instances(
        SIZES[0], proposal_boxes=Boxes(boxes(4)), objectness_logits=torch.randn(4)
    )
    gt = Instances(SIZES[0], gt_boxes=Boxes(boxes(count)), gt_classes=torch.arange(count))
    (result,) = add_ground_truth_to_proposals([gt], [proposals])
    assert sorted(result.get_fields()) == ["objectness_logits", "proposal_boxes"]
    wanted = torch.cat([proposals.proposal_boxes.tensor, gt.gt_boxes.tensor])
    assert torch.equal(result.proposal_boxes.tensor, wanted)
    assert result.objectness_logits[4:].sigmoid().tolist() == [1.0] * count
    assert result.objectness_logits[4:].tolist() == pytest.approx([23.02585] * count)
    (of_boxes,) = add_ground_truth_to_proposals([gt.gt_boxes], [proposals])
    assert torch.equal(of_boxes.proposal_boxes.tensor, wanted)
    # Neither is changed.
    assert len(proposals) == 4
    assert sorted(gt.get_fields()) == ["gt_boxes", "gt_classes"]

    proposals.extra = torch.zeros(4)
    with pytest.raises(AssertionError, match="'extra'"):
        add_ground_truth_to_proposals([gt], [proposals])
    with pytest.raises(ValueError, match="2 images, proposals of 1"):
        add_ground_truth_to_proposals([gt, gt], [proposals])


def make_rpn(kind=RPN, **kwargs):
    rotated = kind is not RPN and issubclass(kind, RRPN)
    grid = {"sizes": [[16], [32]], "aspect_ratios": [[0.5, 2.0]], "strides": [8, 16]}
    generator = (
        RotatedAnchorGenerator(angles=[[0, 45]], **grid)
        if rotated
        else DefaultAnchorGenerator(**grid)
    )
    arguments = {
        "in_features": ["a", "b"],
        "head": StandardRPNHead(
            in_channels=6,
            num_anchors=generator.num_anchors[0],
            box_dim=generator.box_dim,
        ),
        "anchor_generator": generator,
        "anchor_matcher": Matcher([0.3, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": (
            Box2BoxTransformRotated((1.0,) * 5) if rotated else Box2BoxTransform((1.0,) * 4)
        ),
        "batch_size_per_image": 32,
        "positive_fraction": 0.5,
        "pre_nms_topk": (50, 40),
        "post_nms_topk": (20, 10),
    }
    model = kind(**{**arguments, **kwargs})
    for parameter in model.rpn_head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def make_inputs(rotated=False, counts=(3, 2)):
    images = ImageList(torch.zeros(2, 3, 64, 80), [(64, 80), (60, 72)])
    features = {"a": torch.randn(2, 6, 8, 10), "b": torch.randn(2, 6, 4, 5)}
    make = rotated_boxes if rotated else boxes
    kind = RotatedBoxes if rotated else Boxes
    gt = [
        Instances(size, gt_boxes=kind(make(count) * (0.6 if not rotated else 1)))
        for size, count in zip(images.image_sizes, counts, strict=True)
    ]
    return images, features, gt


@pytest.mark.parametrize("kind", [RPN, RRPN])
@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0)])
def test_training(kind, counts):
    rotated = kind is RRPN
    # A budget that is never reached, so that nothing is drawn.
    rpn = make_rpn(kind, batch_size_per_image=10000, loss_weight={"loss_rpn_loc": 3.0})
    images, features, gt = make_inputs(rotated, counts)
    with EventStorage() as storage:
        proposals, losses = rpn(images, features, gt)
    anchors = rpn.anchor_generator([features["a"], features["b"]])
    all_anchors = type(anchors[0]).cat(anchors)
    logits, deltas = rpn.rpn_head([features["a"], features["b"]])
    dim = 5 if rotated else 4

    wanted_cls = wanted_loc = 0.0
    positives = 0
    for i, of_image in enumerate(gt):
        x = torch.cat([y[i].permute(1, 2, 0).flatten() for y in logits])
        d = torch.cat(
            [y[i].view(-1, dim, *y.shape[2:]).permute(2, 3, 0, 1).reshape(-1, dim) for y in deltas]
        )
        iou = rpn._pairwise_iou(of_image.gt_boxes, all_anchors)
        matches, labels = rpn.anchor_matcher(iou)
        valid, positive = labels >= 0, labels == 1
        positives += positive.sum()
        wanted_cls += F.binary_cross_entropy_with_logits(
            x[valid], positive[valid].float(), reduction="sum"
        )
        if len(of_image) > 0:
            targets = rpn.box2box_transform.get_deltas(
                all_anchors.tensor[positive], of_image.gt_boxes.tensor[matches[positive]]
            )
            wanted_loc += (d[positive] - targets).abs().sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], torch.as_tensor(wanted_cls / 20000))
    torch.testing.assert_close(losses["loss_rpn_loc"], torch.as_tensor(3 * wanted_loc / 20000))
    assert storage.latest()["rpn/num_pos_anchors"][0] == pytest.approx(float(positives) / 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in rpn.parameters())
    assert all(len(x) <= 20 for x in proposals)
    assert not any(x.proposal_boxes.tensor.requires_grad for x in proposals)


def test_only_the_budget_is_drawn():
    rpn = make_rpn(batch_size_per_image=16, positive_fraction=0.25)
    _, features, gt = make_inputs()
    anchors = rpn.anchor_generator([features["a"], features["b"]])
    labels, matched = rpn.label_and_sample_anchors(anchors, gt)
    all_anchors = Boxes.cat(anchors)
    for of_image, boxes_of_image, instances in zip(labels, matched, gt, strict=True):
        matches, full = rpn.anchor_matcher(pairwise_iou(instances.gt_boxes, all_anchors))
        num_positives = min(int((full == 1).sum()), 4)
        assert (of_image == 1).sum() == num_positives
        assert (of_image == 0).sum() == 16 - num_positives
        assert torch.equal(full[of_image >= 0], of_image[of_image >= 0])
        assert torch.equal(boxes_of_image, instances.gt_boxes.tensor[matches])
    assert labels.max_positives == 8


def test_anchors_that_leave_the_image():
    rpn = make_rpn(anchor_boundary_thresh=0, batch_size_per_image=10000)
    _, features, gt = make_inputs()
    anchors = rpn.anchor_generator([features["a"], features["b"]])
    labels, _ = rpn.label_and_sample_anchors(anchors, gt)
    for of_image, instances in zip(labels, gt, strict=True):
        inside = Boxes.cat(anchors).inside_box(instances.image_size)
        assert (of_image[~inside] == -1).all()
        assert (of_image[inside] >= 0).any()
    with pytest.raises(NotImplementedError, match="got 0"):
        make_rpn(RRPN, anchor_boundary_thresh=0)


class KeepsAll(RPN):
    """As subclasses sample: one image at a time."""

    def _subsample_labels(self, label):
        assert label.dim() == 1
        return label


def keeps_all(label):
    assert label.dim() == 1
    return label


@pytest.mark.parametrize("how", ["subclass", "instance", "class"])
def test_other_sampling(how, monkeypatch):
    rpn = make_rpn(KeepsAll if how == "subclass" else RPN, batch_size_per_image=2)
    if how == "instance":
        rpn._subsample_labels = keeps_all
    if how == "class":
        monkeypatch.setattr(RPN, "_subsample_labels", KeepsAll._subsample_labels)
    images, features, gt = make_inputs()
    with EventStorage() as storage:
        _, losses = rpn(images, features, gt)
    assert all(loss.isfinite() for loss in losses.values())
    assert storage.latest()["rpn/num_neg_anchors"][0] > 2


class AddsPositives(RPN):
    def label_and_sample_anchors(self, anchors, gt_instances):
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        for label in labels:
            label[:50] = 1
        return labels, boxes


def test_positives_that_a_subclass_adds(monkeypatch):
    """They may be more than are drawn; only on CUDA that is a limit."""
    rpn = make_rpn(AddsPositives, batch_size_per_image=4)
    images, features, gt = make_inputs()
    both = []
    for on_cpu in (True, False):
        name = "detectron2.modeling.box_regression._counts_foreground"
        monkeypatch.setattr(name, lambda device, on_cpu=on_cpu: on_cpu)
        torch.manual_seed(0)
        with EventStorage():
            both.append(rpn(images, features, gt)[1])
    assert both[1]["loss_rpn_loc"].isfinite()
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("kind", [RPN, RRPN])
@pytest.mark.parametrize("training", [False, True])
def test_other_decoding(kind, training):
    box = torch.tensor([6.0, 7, 10, 12, 45][: 4 if kind is RPN else 5])

    class Single(kind):
        def _decode_proposals(self, anchors, pred_anchor_deltas):
            boxes = super()._decode_proposals(anchors, pred_anchor_deltas)
            assert [x.shape for x in boxes] == [x.shape for x in pred_anchor_deltas]
            return [box.expand_as(x) for x in boxes]

    images, features, gt = make_inputs(kind is RRPN)
    with EventStorage():
        proposals, _ = make_rpn(Single).train(training)(images, features, gt)
    for of_image in proposals:
        # NMS leaves one of each level.
        assert torch.equal(of_image.proposal_boxes.tensor, box.expand(2, -1))


@pytest.mark.parametrize("kind", [RPN, RRPN])
def test_inference(kind):
    rpn = make_rpn(kind).eval()
    images, features, _ = make_inputs(kind is RRPN)
    with torch.no_grad():
        proposals, losses = rpn(images, features)
        maps = [features["a"], features["b"]]
        logits, deltas = rpn.rpn_head(maps)
        dim = rpn.anchor_generator.box_dim
        decoded = [
            torch.stack(
                [
                    rpn.box2box_transform.apply_deltas(
                        y.view(-1, dim, *y.shape[1:]).permute(2, 3, 0, 1).reshape(-1, dim),
                        x.tensor,
                    )
                    for y in of_level
                ]
            )
            for x, of_level in zip(rpn.anchor_generator(maps), deltas, strict=True)
        ]
        flat = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
    assert losses == {}
    wanted = choose_singly(decoded, flat, images.image_sizes, 0.7, 40, 10, 0.0, kind is RRPN)
    check_proposals(proposals, wanted, RotatedBoxes if kind is RRPN else Boxes)


def test_a_transform_of_rows():
    images, features, gt = make_inputs()
    rpn = make_rpn()
    own = make_rpn(box2box_transform=by_rows(Box2BoxTransform)((1.0,) * 4))
    own.load_state_dict(rpn.state_dict())
    results = []
    for model in (rpn, own):
        torch.manual_seed(0)
        with EventStorage(), torch.no_grad():
            proposals, losses = model.train()(images, features, gt)
            results.append([losses["loss_rpn_loc"], proposals[1].proposal_boxes.tensor])
            anchors, _, deltas = model.eval()._predict(features)
            decoded = model._decode_proposals(anchors, deltas)
            results[-1].append(decoded[1])
    torch.testing.assert_close(*results)


def test_channels_last():
    rpn = make_rpn().eval()
    images, features, _ = make_inputs()
    last = {k: v.to(memory_format=torch.channels_last) for k, v in features.items()}
    with torch.no_grad():
        (a, _), (b, _) = rpn(images, features), rpn(images, last)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.proposal_boxes.tensor, y.proposal_boxes.tensor)


@pytest.mark.parametrize(
    ("conv_dims", "names"),
    [
        ([-1], {"conv.weight", "conv.bias"}),
        ([5, -1], {f"conv.conv{i}.{x}" for i in (0, 1) for x in ("weight", "bias")}),
    ],
)
def test_head(conv_dims, names):
    head = StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=conv_dims)
    outputs = {
        f"{x}.{y}" for x in ("objectness_logits", "anchor_deltas") for y in ("weight", "bias")
    }
    assert set(head.state_dict()) == names | outputs
    assert all(not p.any() for n, p in head.named_parameters() if n.endswith("bias"))
    assert all(0.005 < p.std() < 0.015 for n, p in head.named_parameters() if "weight" in n)
    logits, deltas = head([torch.randn(2, 8, 4, 5), torch.randn(2, 8, 2, 1)])
    assert [x.shape for x in logits] == [(2, 3, 4, 5), (2, 3, 2, 1)]
    assert [x.shape for x in deltas] == [(2, 12, 4, 5), (2, 12, 2, 1)]
    hidden = head.conv(torch.randn(2, 8, 4, 5))
    assert (hidden >= 0).all()
    assert hidden.shape[1] == (8 if conv_dims == [-1] else 5)


def test_head_of_no_channels():
    with pytest.raises(ValueError, match="got 0"):
        StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=[0])


def test_config():
    cfg = get_cfg()
    shapes = {"res4": ShapeSpec(channels=12, stride=16)}
    cfg.MODEL.RPN.LOSS_WEIGHT = 2.0
    cfg.MODEL.RPN.BBOX_REG_LOSS_WEIGHT = 3.0
    rpn = build_proposal_generator(cfg, shapes)
    assert type(rpn) is RPN
    assert rpn.loss_weight == {"loss_rpn_cls": 2.0, "loss_rpn_loc": 6.0}
    assert rpn.pre_nms_topk == {True: 12000, False: 6000}
    assert rpn.rpn_head.objectness_logits.out_channels == 15
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    assert build_proposal_generator(cfg, shapes) is None
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RRPN"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0,) * 5
    rrpn = build_proposal_generator(cfg, shapes)
    assert type(rrpn) is RRPN
    assert rrpn.rpn_head.anchor_deltas.out_channels == 45 * 5


def test_registries():
    assert PROPOSAL_GENERATOR_REGISTRY.get("RPN") is RPN
    assert PROPOSAL_GENERATOR_REGISTRY.get("RRPN") is RRPN
    assert RPN_HEAD_REGISTRY.get("StandardRPNHead") is StandardRPNHead
