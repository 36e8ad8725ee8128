"""Detections and losses of the box predictor, against slow formulations."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import (
    FastRCNNOutputLayers,
    _log_classification_stats,
    fast_rcnn_inference,
    fast_rcnn_inference_single_image,
)
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from .roi_toys import proposals, random_boxes

K = 5


def layers(**kwargs: object) -> FastRCNNOutputLayers:
    arguments = {"box2box_transform": Box2BoxTransform((10.0, 10.0, 5.0, 5.0)), "num_classes": K}
    predictor = FastRCNNOutputLayers(ShapeSpec(channels=7), **{**arguments, **kwargs})
    torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.3)
    return predictor


def labelled(count: int) -> Instances:
    instances = proposals(count)
    boxes = instances.proposal_boxes.tensor
    instances.gt_boxes = Boxes(boxes + torch.rand(count, 4) * torch.tensor([-3.0, -3, 3, 3]))
    instances.gt_classes = torch.arange(count) % (K + 1)
    return instances


# --------------------------------------------------------------------------------------- inference


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def slow_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    size: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> list[tuple[int, float, tuple[float, ...], int]]:
    """(class, score, box, proposal) by descending score, pair by pair."""
    candidates = []
    for row in range(len(boxes)):
        if not (boxes[row].isfinite().all() and scores[row].isfinite().all()):
            continue
        by_class = boxes[row].view(-1, 4).numpy()
        for c in range(scores.shape[1] - 1):
            if scores[row, c] > score_thresh:
                x0, y0, x1, y1 = by_class[c if len(by_class) > 1 else 0]
                h, w = size
                box = np.clip([x0, y0, x1, y1], 0, [w, h, w, h]).astype(np.float64)
                candidates.append((c, float(scores[row, c]), box, row))
    candidates.sort(key=lambda d: -d[1])
    kept: list = []
    for d in candidates:
        if all(k[0] != d[0] or overlap(k[2], d[2]) <= nms_thresh for k in kept):
            kept.append(d)
    return kept if topk < 0 else kept[:topk]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("topk", [-1, 0, 6])
def test_inference_equals_slow_one(agnostic: bool, topk: int) -> None:
    sizes = [(60, 80), (40, 50), (60, 80), (30, 30)]
    counts = [30, 17, 0, 9]
    boxes, scores = [], []
    for count, size in zip(counts, sizes, strict=True):
        of_image = [random_boxes(count, size) + 6 * torch.randn(count, 1) for _ in range(K)]
        boxes.append(torch.cat(of_image[: 1 if agnostic else K], dim=1))
        scores.append(torch.rand(count, K + 1))
    boxes[0][3, 1] = math.nan
    scores[1][2, K] = math.inf  # The background's score, too, must be finite.
    scores[0][7, 1] = 0.3  # Not above the threshold.
    results, kept = fast_rcnn_inference(boxes, scores, sizes, 0.3, 0.4, topk)
    assert sum(len(r) for r in results) > 0 or topk == 0
    for i, (result, rows) in enumerate(zip(results, kept, strict=True)):
        wanted = slow_detections(boxes[i], scores[i], sizes[i], 0.3, 0.4, topk)
        assert result.pred_classes.tolist() == [d[0] for d in wanted]
        assert rows.tolist() == [d[3] for d in wanted]
        assert rows.dtype == result.pred_classes.dtype == torch.int64
        assert result.image_size == sizes[i]
        assert result.scores.tolist() == pytest.approx([d[1] for d in wanted])
        expected = np.array([d[2] for d in wanted]).reshape(-1, 4)
        np.testing.assert_allclose(result.pred_boxes.tensor.numpy(), expected, atol=1e-5)
        # One image by itself gives the same.
        alone, alone_rows = fast_rcnn_inference_single_image(
            boxes[i], scores[i], sizes[i], 0.3, 0.4, topk
        )
        assert torch.equal(alone.pred_boxes.tensor, result.pred_boxes.tensor)
        assert torch.equal(alone_rows, rows)


def test_inference_leaves_its_input() -> None:
    boxes = [random_boxes(4) + 100]
    before = boxes[0].clone()
    fast_rcnn_inference(boxes, [torch.rand(4, K + 1)], [(60, 80)], 0.0, 0.5, 10)
    assert torch.equal(boxes[0], before)


def test_gradients_of_detections() -> None:
    boxes = [random_boxes(4).requires_grad_() for _ in range(2)]
    scores = [torch.rand(4, 2) for _ in range(2)]
    found, rows = fast_rcnn_inference(boxes, scores, [(60, 80)] * 2, 0.0, 1.0, 10)
    results = [detector_postprocess(x, 120, 240) for x in found]
    sum(x.pred_boxes.tensor.sum() for x in results).backward()
    for b, r in zip(boxes, rows, strict=True):
        assert len(r) == 4
        assert torch.equal(b.grad, torch.tensor([3.0, 2, 3, 2]).expand(4, 4))


def test_inference_without_images() -> None:
    assert fast_rcnn_inference([], [], [], 0.1, 0.5, 10) == ([], [])


# ------------------------------------------------------------------------------------------ losses


def slow_box_loss(
    predictor: FastRCNNOutputLayers, deltas: torch.Tensor, instances: list[Instances]
) -> torch.Tensor:
    total, row, count = torch.zeros(()), 0, 0
    for of_image in instances:
        for i in range(len(of_image)):
            c = int(of_image.gt_classes[i])
            if c < K:
                own = deltas[row].view(-1, 4)
                own = own[c if len(own) > 1 else 0]
                target = predictor.box2box_transform.get_deltas(
                    of_image.proposal_boxes.tensor[i : i + 1], of_image.gt_boxes.tensor[i : i + 1]
                )
                total = total + (own - target[0]).abs().sum()
            row, count = row + 1, count + 1
    return total / count


@pytest.mark.parametrize("agnostic", [False, True])
def test_softmax_losses_and_gradients(agnostic: bool) -> None:
    predictor = layers(cls_agnostic_bbox_reg=agnostic, loss_weight={"loss_box_reg": 3.0})
    instances = [labelled(13), labelled(8)]
    scores, deltas = (x.detach().requires_grad_() for x in predictor(torch.randn(21, 7)))
    with EventStorage():
        losses = predictor.losses((scores, deltas), instances)
    sum(losses.values()).backward()
    wanted_scores, wanted_deltas = (x.detach().clone().requires_grad_() for x in (scores, deltas))
    classes = torch.cat([x.gt_classes for x in instances])
    wanted_cls = -wanted_scores.log_softmax(1)[torch.arange(21), classes].mean()
    wanted_box = 3 * slow_box_loss(predictor, wanted_deltas, instances)
    (wanted_cls + wanted_box).backward()
    torch.testing.assert_close(losses["loss_cls"], wanted_cls)
    torch.testing.assert_close(losses["loss_box_reg"], wanted_box)
    torch.testing.assert_close(scores.grad, wanted_scores.grad)
    torch.testing.assert_close(deltas.grad, wanted_deltas.grad)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou"])
def test_targets_get_no_gradient(kind: str) -> None:
    predictor, x = layers(box_reg_loss_type=kind), labelled(6)
    for name in ("proposal_boxes", "gt_boxes"):
        x.get(name).tensor.requires_grad_()
    with EventStorage():
        losses = predictor.losses(predictor(torch.randn(6, 7)), [x])
    sum(losses.values()).backward()
    assert predictor.bbox_pred.weight.grad.abs().sum() > 0
    assert x.proposal_boxes.tensor.grad is None
    assert x.gt_boxes.tensor.grad is None


def test_one_weight_for_both_losses() -> None:
    once, thrice = layers(), layers(loss_weight=3.0)
    thrice.load_state_dict(once.state_dict())
    x, instances = torch.randn(12, 7), [labelled(12)]
    with EventStorage():
        a, b = (p.losses(p(x), instances) for p in (once, thrice))
    for name in ("loss_cls", "loss_box_reg"):
        torch.testing.assert_close(3 * a[name], b[name])


def test_losses_are_float32_for_half_precision() -> None:
    predictor = layers()
    predictions = tuple(x.to(torch.bfloat16) for x in predictor(torch.randn(12, 7)))
    with EventStorage():
        losses = predictor.losses(predictions, [labelled(12)])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize("sigmoid", [False, True])
def test_losses_of_nothing_stay_on_the_graph(sigmoid: bool) -> None:
    predictor = layers(use_sigmoid_ce=sigmoid)
    with EventStorage():
        losses = predictor.losses(predictor(torch.zeros(0, 7)), [labelled(0)])
    assert all(float(loss.detach()) == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in predictor.parameters())


def test_proposals_stand_in_for_ground_truth() -> None:
    predictor = layers()
    instances = labelled(6)
    instances.remove("gt_boxes")
    instances.gt_classes = torch.full((6,), K)
    with EventStorage():
        losses = predictor.losses(predictor(torch.randn(6, 7)), [instances])
    assert float(losses["loss_box_reg"].detach()) == 0


def test_sigmoid_loss() -> None:
    predictor = layers(use_sigmoid_ce=True)
    logits, classes = torch.randn(9, K + 1), torch.arange(9) % (K + 1)
    wanted = torch.zeros(())
    for row in range(9):
        for c in range(K):
            target = float(classes[row] == c)
            wanted += F.binary_cross_entropy_with_logits(logits[row, c], torch.tensor(target))
    loss = predictor.sigmoid_cross_entropy_loss(logits, classes)
    torch.testing.assert_close(loss, wanted / 9)
    probs = predictor.predict_probs((logits, None), [proposals(4), proposals(5)])
    assert [len(p) for p in probs] == [4, 5]
    torch.testing.assert_close(torch.cat(probs), logits.sigmoid())


class TestFederatedLoss:
    def test_classes_that_occur_and_drawn_ones(self) -> None:
        weights = torch.tensor([1.0, 0.0, 4.0, 1.0, 2.0])
        predictor = layers(
            use_sigmoid_ce=True, use_fed_loss=True, get_fed_loss_cls_weights=lambda: weights
        )
        gt = torch.tensor([3, K, 3])
        drawn = torch.zeros(K + 1)
        for _ in range(600):
            classes = predictor.get_fed_loss_classes(gt, 3, K, weights)
            assert len(classes) == 3
            assert {3, K} < set(classes.tolist())
            drawn[classes] += 1
        assert drawn[1] == 0  # Of weight 0.
        expected = torch.tensor([1.0, 4.0, 2.0]) / 7
        torch.testing.assert_close(drawn[[0, 2, 4]] / 600, expected, atol=0.08, rtol=0)

    def test_more_occur_than_are_wanted(self) -> None:
        predictor = layers()
        classes = predictor.get_fed_loss_classes(torch.tensor([4, 0, 2, 4]), 2, K, torch.ones(K))
        assert classes.tolist() == [0, 2, 4]

    def test_other_classes_do_not_count(self) -> None:
        predictor = layers(
            use_sigmoid_ce=True,
            use_fed_loss=True,
            fed_loss_num_classes=2,
            get_fed_loss_cls_weights=lambda: torch.ones(K),
        )
        gt = torch.tensor([0, 1, 1])
        logits = torch.randn(3, K + 1, requires_grad=True)
        predictor.sigmoid_cross_entropy_loss(logits, gt).backward()
        assert logits.grad[:, 2:].abs().sum() == 0
        assert (logits.grad[:, :2] != 0).all()

    def test_state_dict(self) -> None:
        predictor = layers(
            use_sigmoid_ce=True, use_fed_loss=True, get_fed_loss_cls_weights=lambda: torch.ones(K)
        )
        assert "fed_loss_cls_weights" in predictor.state_dict()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"get_fed_loss_cls_weights": lambda: torch.ones(K)}, "use_sigmoid_ce=False"),
            ({"use_sigmoid_ce": True}, "got None"),
            (
                {"use_sigmoid_ce": True, "get_fed_loss_cls_weights": lambda: torch.ones(3)},
                "3 weights for 5 classes",
            ),
        ],
    )
    def test_bad_arguments(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            layers(use_fed_loss=True, **arguments)


# ------------------------------------------------------------------------------- other predictions


def test_boxes_of_ground_truth_classes() -> None:
    predictor = layers()
    instances = [labelled(7), labelled(4)]
    predictions = predictor(torch.randn(11, 7))
    boxes = predictor.predict_boxes(predictions, instances)
    chosen = predictor.predict_boxes_for_gt_classes(predictions, instances)
    for of_image, by_class, own in zip(instances, boxes, chosen, strict=True):
        for i, c in enumerate(of_image.gt_classes.tolist()):
            c = min(c, K - 1)  # The background has that of the last class.
            assert torch.equal(own[i], by_class[i, 4 * c : 4 * c + 4])
    assert predictor.predict_boxes(predictions, []) == []
    assert predictor.predict_boxes_for_gt_classes(predictions, []) == []


def test_features_are_flattened() -> None:
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=2, height=3, width=4),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        num_classes=K,
    )
    scores, deltas = predictor(torch.randn(5, 2, 3, 4))
    assert scores.shape == (5, K + 1)
    assert deltas.shape == (5, 4 * K)
    assert (
        FastRCNNOutputLayers(
            9, box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)), num_classes=K
        ).cls_score.in_features
        == 9
    )


class TestEvents:
    def test_values(self) -> None:
        logits = F.one_hot(torch.tensor([0, 1, K, K, 2, K]), K + 1).float()
        gt = torch.tensor([0, 2, 1, K, 2, K])
        with EventStorage() as storage:
            _log_classification_stats(logits, gt)
            latest = {name: value for name, (value, _) in storage.latest().items()}
        assert latest == pytest.approx(
            {
                "fast_rcnn/cls_accuracy": 4 / 6,
                "fast_rcnn/fg_cls_accuracy": 2 / 4,
                "fast_rcnn/false_negative": 1 / 4,
            }
        )

    def test_without_foreground(self) -> None:
        with EventStorage() as storage:
            _log_classification_stats(torch.rand(3, K + 1), torch.full((3,), K), "other")
            assert set(storage.latest()) == {"other/cls_accuracy"}
            _log_classification_stats(torch.rand(0, K + 1), torch.zeros(0).long(), "none")
            assert set(storage.latest()) == {"other/cls_accuracy"}


# -------------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
def test_losses_do_not_wait_and_equal_those_of_the_cpu() -> None:
    predictor, instances, x = layers(), [labelled(13), labelled(8)], torch.randn(21, 7)
    with EventStorage() as storage:
        wanted = predictor.losses(predictor(x), instances)
        on_cpu = dict(storage.latest())
    predictor, instances = predictor.cuda(), [i.to("cuda") for i in instances]
    x = x.cuda()
    with EventStorage() as storage:
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses = predictor.losses(predictor(x), instances)
            sum(losses.values()).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert {n: v for n, (v, _) in storage.latest().items()} == pytest.approx(
            {n: v for n, (v, _) in on_cpu.items()}
        )
    for name, loss in wanted.items():
        torch.testing.assert_close(losses[name].cpu(), loss, atol=1e-5, rtol=1e-4)
