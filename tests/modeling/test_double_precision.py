"""Models in float64: their gradients agree with differences of their losses."""

import pytest
import torch

from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage

from .replayed_models import make_inputs, make_model
from .roi_toys import box_polygon, random_boxes

SIZE = (64, 96)


def training_inputs(num_keypoints):
    torch.manual_seed(1)
    samples = make_inputs(size=SIZE, count=2)
    for sample, count in zip(samples, (3, 2), strict=True):
        boxes = random_boxes(count, SIZE)
        centres = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
        points = torch.cat([centres, torch.full((count, 1, 1), 2.0)], dim=2)
        sample["instances"] = Instances(
            SIZE,
            gt_boxes=Boxes(boxes),
            gt_classes=torch.zeros(count, dtype=torch.int64),
            gt_masks=PolygonMasks([[box_polygon(box)] for box in boxes]),
            gt_keypoints=Keypoints(points.expand(-1, num_keypoints, -1)),
        )
        sample["sem_seg"] = torch.randint(0, 3, SIZE)
    return samples


# Proposals are not differentiated, so that the backbone's and the RPN's weights have effects on the
# losses of RoI heads that their gradients do not have.
@pytest.mark.parametrize(
    ("kind", "of", "names"),
    [
        ("mask", "", ["loss_rpn_cls", "loss_rpn_loc"]),
        ("mask", "roi_heads.", ["loss_cls", "loss_box_reg", "loss_mask"]),
        ("keypoint", "roi_heads.", ["loss_cls", "loss_box_reg", "loss_keypoint"]),
        ("cascade", "roi_heads.box_head.0.", ["loss_cls_stage0", "loss_box_reg_stage0"]),
        ("panoptic", "", ["loss_sem_seg"]),
        ("retinanet", "", ["loss_cls", "loss_box_reg"]),
        ("fcos", "", ["loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"]),
    ],
)
def test_gradients(kind, of, names):
    model = make_model(kind, "cpu").double().train()
    samples = training_inputs(num_keypoints=17)

    def compute():
        torch.manual_seed(2)
        if hasattr(model, "loss_normalizer"):
            del model.loss_normalizer
        with EventStorage():
            return model(samples)

    losses = compute()
    assert {x.dtype for x in losses.values()} == {torch.float64}
    parameters = [x for n, x in model.named_parameters() if x.requires_grad and n.startswith(of)]
    starts = [x.detach().clone() for x in parameters]
    direction = [torch.randn_like(x) * x.abs().mean() for x in starts]
    slopes = {}
    for name in names:
        grads = torch.autograd.grad(
            losses[name], parameters, retain_graph=True, materialize_grads=True
        )
        slopes[name] = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))

    def losses_at(place):
        with torch.no_grad():
            for x, start, d in zip(parameters, starts, direction, strict=True):
                x.copy_(start + place * d)
            return compute()

    step = 1e-7
    after, before = losses_at(step), losses_at(-step)
    for name, slope in slopes.items():
        difference = (after[name] - before[name]) / (2 * step)
        assert slope != 0
        torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6)
