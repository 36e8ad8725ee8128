"""Classification and box regression of proposals, their losses, and the detections they give.

Girshick, "Fast R-CNN", ICCV 2015.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.config.config import CfgNode, configurable
from detectron2.layers._dtypes import at_least_float32
from detectron2.layers.nms import batched_nms
from detectron2.layers.shape_spec import ShapeSpec

# Code written for upstream imports some of these names from here.
from detectron2.layers.wrappers import cat, cross_entropy, nonzero_tuple
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.roi_heads._detections import (
    fast_rcnn_inference,
    fast_rcnn_inference_single_image,
)
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils._lazy import lazy_attributes
from detectron2.utils.events import get_event_storage

__all__ = [
    "Box2BoxTransform",
    "Boxes",
    "FastRCNNOutputLayers",
    "batched_nms",
    "fast_rcnn_inference",
    "fast_rcnn_inference_single_image",
    "nonzero_tuple",
]

# The data package is not needed unless there is a federated loss.
__getattr__ = lazy_attributes(
    __name__, {"get_fed_loss_cls_weights": "detectron2.data.detection_utils"}
)


def _log_classification_stats(
    pred_logits: torch.Tensor, gt_classes: torch.Tensor, prefix: str = "fast_rcnn"
) -> None:
    """Put the events ``{prefix}/cls_accuracy`` and, where there is foreground,
    ``{prefix}/fg_cls_accuracy`` and ``{prefix}/false_negative``: the share of it that is taken for
    background.

    Args:
        pred_logits: ``(R, K + 1)``, the background last.
        gt_classes: ``(R,)``, in [0, K].
    """
    total = gt_classes.numel()
    if total == 0:
        return
    background = pred_logits.size(1) - 1
    predicted = pred_logits.detach().argmax(dim=1)
    is_right = predicted == gt_classes
    is_foreground = (gt_classes >= 0) & (gt_classes < background)
    is_missed = is_foreground & (predicted == background)
    counts = torch.stack([is_right, is_right & is_foreground, is_missed, is_foreground]).sum(1)

    def to_scalars(values: list[float]) -> dict[str, float]:
        right, right_foreground, missed, foreground = values
        scalars = {f"{prefix}/cls_accuracy": right / total}
        if foreground > 0:
            scalars[f"{prefix}/fg_cls_accuracy"] = right_foreground / foreground
            scalars[f"{prefix}/false_negative"] = missed / foreground
        return scalars

    get_event_storage().put_scalars_later(counts, to_scalars)


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers: class scores and box deltas of proposals."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        box2box_transform: Any,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], torch.Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ) -> None:
        """
        Args:
            input_shape: of the features of a proposal; an int gives the channels alone.
            box2box_transform: :class:`Box2BoxTransform` or :class:`Box2BoxTransformRotated`; it
                has as many weights as a box has numbers.
            num_classes: K, without the background.
            test_score_thresh: detections need a higher score.
            test_nms_thresh: IoU from which on the worse of two detections of a class goes.
            test_topk_per_image: detections that are kept of an image; -1: all.
            cls_agnostic_bbox_reg: predict one box, not one for each class.
            smooth_l1_beta: where the loss turns from quadratic to linear; 0 is the L1 loss.
            box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
            loss_weight: what losses are multiplied by: a number, or numbers by the name of the
                loss, 1 for names that are not there.
            use_fed_loss: take the loss over some of the classes only: Zhou et al., "Probabilistic
                two-stage detection", 2021. It needs ``use_sigmoid_ce``.
            use_sigmoid_ce: binary cross-entropy for each class instead of the softmax's.
            get_fed_loss_cls_weights: returns how likely each class is drawn for the federated
                loss, up to a factor, ``(K,)``.
            fed_loss_num_classes: classes of the federated loss.

        Raises:
            ValueError: a federated loss without ``use_sigmoid_ce`` or without weights, or with
                another number of them.
        """
        super().__init__()
        if isinstance(input_shape, int):
            input_shape = ShapeSpec(channels=input_shape)
        input_size = input_shape.channels * (input_shape.width or 1) * (input_shape.height or 1)
        box_dim = len(box2box_transform.weights)
        self.num_classes = num_classes
        self.cls_score = nn.Linear(input_size, num_classes + 1)
        num_regressions = 1 if cls_agnostic_bbox_reg else num_classes
        self.bbox_pred = nn.Linear(input_size, num_regressions * box_dim)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.box_reg_loss_type = box_reg_loss_type
        if not isinstance(loss_weight, Mapping):
            loss_weight = {"loss_cls": loss_weight, "loss_box_reg": loss_weight}
        self.loss_weight = loss_weight
        self.use_fed_loss = use_fed_loss
        self.use_sigmoid_ce = use_sigmoid_ce
        self.fed_loss_num_classes = fed_loss_num_classes
        if use_fed_loss:
            self.register_buffer(
                "fed_loss_cls_weights", self._checked_fed_loss_weights(get_fed_loss_cls_weights)
            )

    def _checked_fed_loss_weights(
        self, get_weights: Callable[[], torch.Tensor] | None
    ) -> torch.Tensor:
        if not self.use_sigmoid_ce:
            raise ValueError("use_fed_loss needs use_sigmoid_ce, got use_sigmoid_ce=False")
        if get_weights is None:
            raise ValueError("use_fed_loss needs get_fed_loss_cls_weights, got None")
        weights = get_weights()
        if len(weights) != self.num_classes:
            raise ValueError(
                f"get_fed_loss_cls_weights gave {len(weights)} weights for {self.num_classes} "
                "classes"
            )
        return weights

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        head = cfg.MODEL.ROI_BOX_HEAD

        def get_fed_loss_cls_weights() -> torch.Tensor:
            from detectron2.data.detection_utils import get_fed_loss_cls_weights

            return get_fed_loss_cls_weights(
                dataset_names=cfg.DATASETS.TRAIN,
                freq_weight_power=head.FED_LOSS_FREQ_WEIGHT_POWER,
            )

        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(weights=head.BBOX_REG_WEIGHTS),
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "cls_agnostic_bbox_reg": head.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": head.SMOOTH_L1_BETA,
            "test_score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "test_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "box_reg_loss_type": head.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": head.BBOX_REG_LOSS_WEIGHT},
            "use_fed_loss": head.USE_FED_LOSS,
            "use_sigmoid_ce": head.USE_SIGMOID_CE,
            "get_fed_loss_cls_weights": get_fed_loss_cls_weights,
            "fed_loss_num_classes": head.FED_LOSS_NUM_CLASSES,
        }

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict.

        Args:
            x: ``(R, ...)``, the features of the proposals of all images; flattened to ``(R, C)``.

        Returns:
            Scores ``(R, K + 1)``, logits with the background last, and deltas ``(R, box_dim * K)``
            (``(R, box_dim)`` for one box for all classes).
        """
        if x.dim() > 2:
            x = torch.flatten(x, start_dim=1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """The losses ``loss_cls`` and ``loss_box_reg``, float32 scalars times their weights.

        Args:
            predictions: what :meth:`forward` returned.
            proposals: for each image, with the fields ``proposal_boxes``, ``gt_classes`` and
                ``gt_boxes``. Where images lack the last, proposals count as their own.
        """
        scores, deltas = predictions
        if proposals:
            gt_classes = cat([p.gt_classes for p in proposals])
            proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals])
            gt_boxes = cat(
                [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
            )
        else:
            gt_classes = scores.new_empty(0, dtype=torch.int64)
            proposal_boxes = gt_boxes = scores.new_empty(
                (0, len(self.box2box_transform.weights)), dtype=torch.float32
            )
        # They become targets: no gradient goes to where proposals came from.
        proposal_boxes, gt_boxes = proposal_boxes.detach(), gt_boxes.detach()
        _log_classification_stats(scores, gt_classes)
        if self.use_sigmoid_ce:
            loss_cls = self.sigmoid_cross_entropy_loss(scores, gt_classes)
        else:
            loss_cls = cross_entropy(at_least_float32(scores), gt_classes, reduction="mean")
        losses = {
            "loss_cls": loss_cls,
            "loss_box_reg": self.box_reg_loss(proposal_boxes, gt_boxes, deltas, gt_classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def get_fed_loss_classes(
        self,
        gt_classes: torch.Tensor,
        num_fed_loss_classes: int,
        num_classes: int,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """Choose the classes of the federated loss: those that occur, filled up by drawn ones.

        It waits for the device, once.

        Args:
            gt_classes: ``(R,)``, in [0, K]; the background K may be among them.
            num_fed_loss_classes: classes that are to be chosen; more if more occur.
            num_classes: K.
            weight: ``(K,)``, how likely each class is drawn, up to a factor.

        Returns:
            int64 indices of the classes, ascending.
        """
        occurs = torch.zeros(num_classes + 1, dtype=torch.bool, device=gt_classes.device)
        occurs.index_fill_(0, gt_classes, True)
        # The shortest waiting times of clocks with these rates are a draw without replacement.
        waiting = torch.empty_like(weight, dtype=torch.float64).exponential_() / weight
        waiting = torch.cat([waiting, waiting.new_full((1,), torch.inf)])
        waiting = torch.where(occurs, -1.0, waiting)
        rank = waiting.argsort().argsort()
        is_drawn = (rank < num_fed_loss_classes) & torch.isfinite(waiting)
        return (is_drawn | occurs).nonzero().squeeze(1)

    def sigmoid_cross_entropy_loss(
        self, pred_class_logits: torch.Tensor, gt_classes: torch.Tensor
    ) -> torch.Tensor:
        """Binary cross-entropy, summed over classes, a mean over proposals; float32.

        Args:
            pred_class_logits: ``(R, K + 1)``; the last is not used.
            gt_classes: ``(R,)``, in [0, K]; for the background K all classes are wrong.
        """
        logits = at_least_float32(pred_class_logits)[:, :-1]
        if gt_classes.numel() == 0:
            return pred_class_logits.sum() * 0.0
        count, num_classes = logits.shape
        targets = logits.new_zeros((count, num_classes + 1))
        targets.scatter_(1, gt_classes[:, None], 1.0)
        loss = F.binary_cross_entropy_with_logits(logits, targets[:, :-1], reduction="none")
        if self.use_fed_loss:
            classes = self.get_fed_loss_classes(
                gt_classes, self.fed_loss_num_classes, num_classes, self.fed_loss_cls_weights
            )
            weights = logits.new_zeros(num_classes + 1).index_fill_(0, classes, 1.0)
            loss = loss * weights[:num_classes]
        return loss.sum() / count

    def box_reg_loss(
        self,
        proposal_boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        pred_deltas: torch.Tensor,
        gt_classes: torch.Tensor,
    ) -> torch.Tensor:
        """Regression loss of the foreground, divided by the number of all proposals; float32.

        A proposal then counts the same in every image, and as much as in the classification loss.

        Args:
            proposal_boxes: ``(R, box_dim)``.
            gt_boxes: ``(R, box_dim)``.
            pred_deltas: ``(R, box_dim * K)`` or ``(R, box_dim)``.
            gt_classes: ``(R,)``, in [0, K].
        """
        count, box_dim = proposal_boxes.shape
        is_foreground = (gt_classes >= 0) & (gt_classes < self.num_classes)
        if pred_deltas.shape[1] != box_dim:
            classes = gt_classes.clamp(0, self.num_classes - 1)
            by_class = pred_deltas.view(count, self.num_classes, box_dim)
            index = classes[:, None, None].expand(-1, 1, box_dim)
            pred_deltas = by_class.gather(1, index).squeeze(1)
        loss = _dense_box_regression_loss(
            [proposal_boxes],
            self.box2box_transform,
            [pred_deltas[None]],
            gt_boxes[None],
            is_foreground[None],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return loss / max(count, 1)

    def inference(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Detections, as :func:`fast_rcnn_inference` returns them.

        Args:
            predictions: what :meth:`forward` returned.
            proposals: for each image, with the field ``proposal_boxes``.
        """
        boxes = self.predict_boxes(predictions, proposals)
        scores = self.predict_probs(predictions, proposals)
        return fast_rcnn_inference(
            boxes,
            scores,
            [x.image_size for x in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes_for_gt_classes(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> list[torch.Tensor]:
        """The box of each proposal's ground-truth class, ``(R_i, box_dim)`` for each image.

        The background has that of the last class.

        Args:
            predictions: what :meth:`forward` returned.
            proposals: for each image, with the fields ``proposal_boxes`` and ``gt_classes``.
        """
        if not proposals:
            return []
        _, deltas = predictions
        proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals])
        count, box_dim = proposal_boxes.shape
        boxes = self.box2box_transform.apply_deltas(deltas, proposal_boxes)
        num_regressions = boxes.shape[1] // box_dim
        if num_regressions > 1:
            classes = cat([p.gt_classes for p in proposals]).clamp(0, num_regressions - 1)
            index = classes[:, None, None].expand(-1, 1, box_dim)
            boxes = boxes.view(count, num_regressions, box_dim).gather(1, index).squeeze(1)
        return list(boxes.split([len(p) for p in proposals]))

    def predict_boxes(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> list[torch.Tensor]:
        """Boxes, not clipped: ``(R_i, K * box_dim)`` or ``(R_i, box_dim)`` for each image.

        Args:
            predictions: what :meth:`forward` returned.
            proposals: for each image, with the field ``proposal_boxes``.
        """
        if not len(proposals):
            return []
        _, deltas = predictions
        counts = [len(p) for p in proposals]
        proposal_boxes = cat([p.proposal_boxes.tensor for p in proposals], dim=0)
        boxes = self.box2box_transform.apply_deltas(deltas, proposal_boxes)
        return boxes.split(counts)

    def predict_probs(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> list[torch.Tensor]:
        """Probabilities, float32, ``(R_i, K + 1)`` for each image.

        Args:
            predictions: what :meth:`forward` returned.
            proposals: for each image; their lengths count.
        """
        scores, _ = predictions
        counts = [len(p) for p in proposals]
        scores = at_least_float32(scores)
        probs = scores.sigmoid() if self.use_sigmoid_ce else F.softmax(scores, dim=-1)
        return probs.split(counts, dim=0)
