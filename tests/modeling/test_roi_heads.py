"""RoI heads as wholes: upright boxes, cascades, C4 and rotated boxes."""

import math

import pytest
import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    RROIHeads,
    StandardROIHeads,
    build_roi_heads,
)
from detectron2.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from detectron2.modeling.roi_heads.rotated_fast_rcnn import (
    RotatedFastRCNNOutputLayers,
    fast_rcnn_inference_rotated,
)
from detectron2.structures import Boxes, Instances, RotatedBoxes
from detectron2.structures.rotated_boxes import pairwise_iou as rotated_iou
from detectron2.utils.events import EventStorage

from .roi_toys import proposals, recorded_waits, targets

K = 5
SIZE = (60, 80)


def pooler(size: int) -> ROIPooler:
    return ROIPooler(size, (1 / 4, 1 / 8), 2, "ROIAlignV2", canonical_box_size=32)


def features(count: int = 2) -> dict[str, torch.Tensor]:
    return {"p2": torch.randn(count, 4, 15, 20), "p3": torch.randn(count, 4, 8, 10)}


def predictor(agnostic: bool = False, **kwargs: object) -> FastRCNNOutputLayers:
    layers = FastRCNNOutputLayers(
        ShapeSpec(channels=16),
        box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        num_classes=K,
        cls_agnostic_bbox_reg=agnostic,
        **kwargs,
    )
    nn.init.normal_(layers.bbox_pred.weight, std=0.5)
    nn.init.normal_(layers.cls_score.weight, std=0.5)
    return layers


def box_head() -> FastRCNNConvFCHead:
    return FastRCNNConvFCHead(ShapeSpec(channels=4, height=3, width=3), conv_dims=[], fc_dims=[16])


COMMON = {
    "num_classes": K,
    "batch_size_per_image": 16,
    "positive_fraction": 0.5,
    "box_in_features": ["p2", "p3"],
}


def standard(**kwargs: object) -> StandardROIHeads:
    in_features = ["p2", "p3"]
    return StandardROIHeads(
        **COMMON,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_pooler=pooler(3),
        box_head=box_head(),
        box_predictor=predictor(),
        mask_in_features=in_features,
        mask_pooler=pooler(4),
        mask_head=MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=K, conv_dims=[6, 6]),
        keypoint_in_features=in_features,
        keypoint_pooler=pooler(4),
        keypoint_head=KRCNNConvDeconvUpsampleHead(
            ShapeSpec(channels=4), num_keypoints=3, conv_dims=[6], loss_normalizer="visible"
        ),
        **kwargs,
    )


class TestStandard:
    def test_training(self) -> None:
        heads, maps = standard(), features()
        for x in maps.values():
            x.requires_grad_()
        with EventStorage() as storage:
            sampled, losses = heads(
                None, maps, [proposals(30), proposals(20)], [targets(4), targets(3)]
            )
            events = set(storage.latest())
        assert list(losses) == ["loss_cls", "loss_box_reg", "loss_mask", "loss_keypoint"]
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
        assert all(x.grad.abs().sum() > 0 for x in maps.values())
        assert all(0 < len(x) <= 16 and x.has("gt_classes") for x in sampled)
        assert events == {
            "roi_head/num_fg_samples",
            "roi_head/num_bg_samples",
            "keypoint_head/num_fg_samples",
            "fast_rcnn/cls_accuracy",
            "fast_rcnn/fg_cls_accuracy",
            "fast_rcnn/false_negative",
            "mask_rcnn/accuracy",
            "mask_rcnn/false_positive",
            "mask_rcnn/false_negative",
        }

    def test_images_without_objects(self) -> None:
        heads = standard()
        with EventStorage():
            _, losses = heads(
                None, features(), [proposals(30), proposals(20)], [targets(0), targets(0)]
            )
        sum(losses.values()).backward()
        assert float(losses["loss_mask"].detach()) == float(losses["loss_keypoint"].detach()) == 0
        assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())

    def test_evaluation(self) -> None:
        heads, maps, given = standard().eval(), features(), [proposals(30), proposals(20)]
        results, losses = heads(None, maps, given)
        assert losses == {}
        assert all(0 < len(x) <= 100 for x in results)
        assert results[0].pred_masks.shape[1:] == (1, 8, 8)
        assert results[0].pred_keypoints.shape[1:] == (3, 3)
        boxes = [
            Instances(SIZE, pred_boxes=x.pred_boxes, pred_classes=x.pred_classes) for x in results
        ]
        again = heads.forward_with_given_boxes(maps, boxes)
        for x, y in zip(results, again, strict=True):
            torch.testing.assert_close(x.pred_masks, y.pred_masks)
            torch.testing.assert_close(x.pred_keypoints, y.pred_keypoints)
        with pytest.raises(RuntimeError, match="evaluation"):
            heads.train().forward_with_given_boxes(maps, boxes)

    def test_training_on_predicted_boxes(self) -> None:
        heads = standard(train_on_pred_boxes=True)
        with EventStorage():
            sampled, _ = heads(
                None, features(), [proposals(30), proposals(20)], [targets(4), targets(3)]
            )
            maps = features()
            heads.train_on_pred_boxes = False
            given = [Instances(SIZE, **x.get_fields()) for x in sampled]
            predictions = heads.box_predictor(
                heads.box_head(
                    heads.box_pooler(list(maps.values()), [x.proposal_boxes for x in given])
                )
            )
            wanted = heads.box_predictor.predict_boxes_for_gt_classes(predictions, given)
            heads.train_on_pred_boxes = True
            heads._forward_box(maps, given)
        for x, boxes in zip(given, wanted, strict=True):
            torch.testing.assert_close(x.proposal_boxes.tensor, boxes)
            assert not x.proposal_boxes.tensor.requires_grad

    def test_needs_targets(self) -> None:
        with pytest.raises(ValueError, match="StandardROIHeads needs targets"):
            standard()(None, features(), [proposals(3), proposals(3)])

    def test_heads_without_pooler_get_the_maps(self) -> None:
        heads = standard()
        heads.mask_pooler, seen = None, []
        heads.mask_head = type(
            "Head",
            (nn.Module,),
            {"forward": lambda self, x, instances: seen.append(x) or instances},
        )()
        heads.eval()(None, maps := features(), [proposals(3), proposals(3)])
        assert seen[0].keys() == maps.keys()

    def test_different_channels(self) -> None:
        cfg = get_cfg()
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["a", "b"]
        cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
        shapes = {"a": ShapeSpec(channels=4, stride=4), "b": ShapeSpec(channels=5, stride=8)}
        with pytest.raises(ValueError, match="'b': 5"):
            build_roi_heads(cfg, shapes)


# ----------------------------------------------------------------------------------------- cascade


def cascade(**kwargs: object) -> CascadeROIHeads:
    return CascadeROIHeads(
        **COMMON,
        box_pooler=pooler(3),
        box_heads=[box_head() for _ in range(3)],
        box_predictors=[predictor(True, test_score_thresh=0.1) for _ in range(3)],
        proposal_matchers=[Matcher([iou], [0, 1]) for iou in (0.5, 0.6, 0.7)],
        **kwargs,
    )


class TestCascade:
    def test_training(self) -> None:
        heads = cascade()
        with EventStorage() as storage:
            _, losses = heads(
                None, features(), [proposals(30), proposals(20)], [targets(4), targets(0)]
            )
            events = set(storage.latest())
        assert list(losses) == [
            f"loss_{kind}_stage{k}" for k in range(3) for kind in ("cls", "box_reg")
        ]
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in heads.parameters())
        assert {f"stage{k}/roi_head/num_fg_samples" for k in (1, 2)} <= events
        assert {f"stage{k}/fast_rcnn/cls_accuracy" for k in range(3)} <= events

    def test_labels_of_later_stages(self) -> None:
        heads, gt = cascade(), targets(3)
        boxes = torch.cat([gt.gt_boxes.tensor, gt.gt_boxes.tensor + torch.tensor([0.0, 0, 500, 0])])
        given = [
            Instances(SIZE, proposal_boxes=Boxes(boxes)),
            Instances(SIZE, proposal_boxes=Boxes(boxes[:2])),
        ]
        with EventStorage() as storage:
            labelled, without = heads._match_and_label_boxes(given, 2, [gt, targets(0)])
            latest = storage.latest()
        assert labelled.gt_classes.tolist() == [*gt.gt_classes.tolist(), K, K, K]
        torch.testing.assert_close(labelled.gt_boxes.tensor[:3], gt.gt_boxes.tensor)
        assert without.gt_classes.tolist() == [K, K]
        assert not without.gt_boxes.tensor.any()
        assert latest["stage2/roi_head/num_fg_samples"][0] == 1.5
        assert latest["stage2/roi_head/num_bg_samples"][0] == 2.5

    def test_proposals_of_later_stages(self) -> None:
        heads = cascade()
        boxes = torch.tensor([[-5.0, 2, 10, 99], [90, 2, 95, 9], [1, 2, 3, 4]], requires_grad=True)
        clipped = [[0, 2, 10, 60], [80, 2, 80, 9], [1, 2, 3, 4]]
        for training, wanted in ((True, [clipped[0], clipped[2]]), (False, clipped)):
            heads.train(training)
            (created,) = heads._create_proposals_from_boxes([boxes], [SIZE])
            assert created.proposal_boxes.tensor.tolist() == wanted
            assert not created.proposal_boxes.tensor.requires_grad

    def test_evaluation_averages_scores(self) -> None:
        heads, maps, given = cascade().eval(), features(1), [proposals(20)]
        results, _ = heads(None, maps, given)
        scores, stage = [], given
        for k in range(3):
            pooled = heads.box_pooler(list(maps.values()), [x.proposal_boxes for x in stage])
            predictions = heads.box_predictor[k](heads.box_head[k](pooled))
            scores.append(heads.box_predictor[k].predict_probs(predictions, stage)[0])
            boxes = heads.box_predictor[k].predict_boxes(predictions, stage)[0]
            clipped = Boxes(boxes)
            clipped.clip(SIZE)
            stage = [Instances(SIZE, proposal_boxes=clipped)]
        average = torch.stack(scores).mean(0)
        assert len(results[0]) > 0
        for box, score, c in zip(
            results[0].pred_boxes.tensor, results[0].scores, results[0].pred_classes, strict=True
        ):
            row = (clipped.tensor - box).abs().sum(1).argmin()
            torch.testing.assert_close(clipped.tensor[row], box)
            torch.testing.assert_close(average[row, c], score)

    def test_each_stage_has_a_threshold_of_its_own(self) -> None:
        heads, gt = cascade(), targets(1)
        gt.gt_boxes = Boxes([[0.0, 0, 20, 20]])
        boxes = torch.tensor([[0.0, 0, 20, 20 * iou] for iou in (0.45, 0.55, 0.65, 0.75)])
        for stage, background in enumerate((1, 2, 3)):
            given = [Instances(SIZE, proposal_boxes=Boxes(boxes))]
            with EventStorage():
                (labelled,) = heads._match_and_label_boxes(given, stage, [gt])
            is_background = labelled.gt_classes == K
            assert is_background.tolist() == [True] * background + [False] * (4 - background)

    def test_stages_share_the_gradient_of_the_features(self) -> None:
        heads, given = cascade(), [proposals(5), proposals(4)]
        maps = [x.requires_grad_() for x in features().values()]
        weight = heads.box_head[1].fc1.weight
        grads = []
        for training in (True, False):
            scores, _ = heads.train(training)._run_stage(maps, given, 1)
            grads.append(torch.autograd.grad(scores.square().sum(), [weight, *maps]))
        (of_weight, *of_maps), (wanted, *whole) = grads
        torch.testing.assert_close(of_weight, wanted)
        for a, b in zip(of_maps, whole, strict=True):
            torch.testing.assert_close(a, b / 3)

    def test_gradient_is_scaled(self) -> None:
        x = torch.randn(3, requires_grad=True)
        y = _ScaleGradient.apply(x, 0.25)
        y.sum().backward()
        assert torch.equal(y, x)
        assert torch.equal(x.grad, torch.full((3,), 0.25))

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="proposal_matcher, too"):
            cascade(proposal_matcher=Matcher([0.5], [0, 1]))
        with pytest.raises(ValueError, match=r"\(1, 2, 1\)"):
            CascadeROIHeads(
                **COMMON,
                box_pooler=pooler(3),
                box_heads=[box_head()],
                box_predictors=[predictor(True)] * 2,
                proposal_matchers=[Matcher([0.5], [0, 1])],
            )


# ---------------------------------------------------------------------------------------------- C4


class TestRes5:
    def heads(self) -> Res5ROIHeads:
        return Res5ROIHeads(
            num_classes=K,
            batch_size_per_image=16,
            positive_fraction=0.5,
            proposal_matcher=Matcher([0.5], [0, 1]),
            in_features=["p2"],
            pooler=ROIPooler(4, (1 / 4,), 2, "ROIAlignV2"),
            res5=[nn.Conv2d(4, 16, 1), nn.ReLU()],
            box_predictor=predictor(),
            mask_head=MaskRCNNConvUpsampleHead(
                ShapeSpec(channels=16), num_classes=K, conv_dims=[6]
            ),
        )

    def test_masks_share_the_features_of_the_foreground(self) -> None:
        heads, seen = self.heads(), []
        heads.mask_head.register_forward_pre_hook(lambda _, args: seen.append(args))
        with EventStorage():
            sampled, losses = heads(
                None, features(), [proposals(30), proposals(20)], [targets(4), targets(3)]
            )
        assert sampled == []
        assert list(losses) == ["loss_cls", "loss_box_reg", "loss_mask"]
        sum(losses.values()).backward()
        shared, foreground = seen[0]
        assert all((x.gt_classes < K).all() for x in foreground)
        assert len(shared) == sum(len(x) for x in foreground) > 0

    def test_shared_features_are_those_of_the_boxes(self) -> None:
        heads, seen, maps = self.heads(), [], features(3)
        heads.mask_head.register_forward_pre_hook(lambda _, args: seen.append(args))
        given, gt = [proposals(n) for n in (30, 20, 25)], [targets(n) for n in (4, 3, 4)]
        with EventStorage():
            heads(None, maps, given, gt)
        shared, foreground = seen[0]
        again = heads._shared_roi_transform([maps["p2"]], [x.proposal_boxes for x in foreground])
        torch.testing.assert_close(shared, again)

    def test_evaluation(self) -> None:
        results, _ = self.heads().eval()(None, features(), [proposals(30), proposals(20)])
        assert all(x.pred_masks.shape == (len(x), 1, 8, 8) for x in results)


# ----------------------------------------------------------------------------------------- rotated


class TestRotated:
    def test_upright_boxes_are_clipped(self) -> None:
        boxes = torch.tensor([[70.0, 30, 40, 20, 0], [70, 30, 40, 20, 45]])
        scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        (result,), _ = fast_rcnn_inference_rotated([boxes], [scores], [SIZE], 0.5, 1.0, 9)
        assert result.pred_boxes.tensor.tolist() == [[65, 30, 30, 20, 0], [70, 30, 40, 20, 45]]

    def test_inference(self) -> None:
        boxes = torch.rand(12, 5) * torch.tensor([80.0, 60, 40, 40, 360])
        scores = torch.rand(12, K + 1)
        boxes[3, 2] = math.nan
        (result,), (rows,) = fast_rcnn_inference_rotated([boxes], [scores], [SIZE], 0.5, 0.3, 9)
        assert isinstance(result.pred_boxes, RotatedBoxes)
        assert 0 < len(result) <= 9
        assert 3 not in rows.tolist()
        assert (result.scores.diff() <= 0).all()
        assert torch.equal(result.scores, scores[rows, result.pred_classes])
        for c in range(K):
            of_class = result.pred_boxes[result.pred_classes == c]
            ious = rotated_iou(of_class, of_class).fill_diagonal_(0)
            assert (ious <= 0.3 + 1e-6).all()

    def config(self):
        cfg = get_cfg()
        head = cfg.MODEL.ROI_BOX_HEAD
        cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.IN_FEATURES = "RROIHeads", ["p2"]
        head.NAME, head.NUM_FC, head.FC_DIM = "FastRCNNConvFCHead", 1, 16
        head.POOLER_TYPE, head.POOLER_RESOLUTION = "ROIAlignRotated", 3
        head.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0, 1.0)
        return cfg

    def test_training(self) -> None:
        heads = build_roi_heads(self.config(), {"p2": ShapeSpec(channels=4, stride=4)})
        assert type(heads) is RROIHeads
        assert type(heads.box_predictor) is RotatedFastRCNNOutputLayers
        gt = RotatedBoxes(torch.tensor([[40.0, 30, 20, 10, 30], [20, 20, 30, 9, -60]]))
        objects = Instances(
            SIZE, gt_boxes=gt, gt_classes=torch.tensor([3, 70]), gt_other=torch.zeros(2)
        )
        near = RotatedBoxes(gt.tensor + torch.tensor([1.0, 0, 1, 0, 3]))
        given = Instances(SIZE, proposal_boxes=near, objectness_logits=torch.zeros(2))
        with EventStorage():
            (sampled,), losses = heads(None, features(1), [given], [objects])
        assert sampled.gt_classes.tolist().count(3) == 2
        assert isinstance(sampled.gt_boxes, RotatedBoxes)
        assert not sampled.has("gt_other")
        sum(losses.values()).backward()
        assert float(losses["loss_box_reg"].detach()) > 0

    def test_what_is_not_supported(self) -> None:
        shapes = {"p2": ShapeSpec(channels=4, stride=4)}
        cfg = self.config()
        cfg.MODEL.MASK_ON = True
        with pytest.raises(ValueError, match="mask_on=True"):
            build_roi_heads(cfg, shapes)
        cfg = self.config()
        cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2"
        with pytest.raises(ValueError, match="ROIAlignV2"):
            build_roi_heads(cfg, shapes)
        cfg = self.config()
        cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
        with pytest.raises(ValueError, match="5 ROI_BOX_HEAD"):
            build_roi_heads(cfg, shapes)


# -------------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize(("make", "waits_in_training"), [(standard, 2), (cascade, 3)])
def test_waits_do_not_grow_with_the_images(make, waits_in_training: int) -> None:
    heads = make().cuda()
    maps = {name: x.cuda() for name, x in features(4).items()}
    given = [proposals(30).to("cuda") for _ in range(4)]
    gt = [targets(3).to("cuda") for _ in range(4)]
    for training, most in ((True, waits_in_training), (False, 3)):
        heads.train(training)
        with EventStorage():
            heads(None, maps, given, gt if training else None)  # It may wait for what is done once.
            with recorded_waits() as waits:
                heads(None, maps, given, gt if training else None)
        assert len(waits) <= most, waits
