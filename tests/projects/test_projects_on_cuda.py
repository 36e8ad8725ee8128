"""On CUDA as on the CPU, and without waiting for the device where nothing has to be known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_mask_head, build_sem_seg_head
from detectron2.projects.deeplab.loss import DeepLabCE
from detectron2.projects.panoptic_deeplab.post_processing import get_panoptic_segmentation
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from .project_models import FPN_OF_R50, make_config

pytestmark = pytest.mark.gpu

CLASSES = {"MODEL.ROI_HEADS.NUM_CLASSES": 5, "MODEL.POINT_HEAD.NUM_CLASSES": 5}
STANDARD = {
    "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
}
IMPLICIT = {
    "MODEL.ROI_MASK_HEAD.NAME": "ImplicitPointRendMaskHead",
    "MODEL.POINT_HEAD.NAME": "ImplicitPointHead",
    "MODEL.POINT_HEAD.FC_DIM": 16,
}
SHAPES = {"p2": ShapeSpec(channels=8, stride=4)}


def without_waiting(function: Callable[[], Any]) -> Any:
    """Call a second time: the first may wait for what is done once."""
    function()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        return function()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def boxes(count):
    corners = torch.rand(count, 2) * 60
    return torch.cat([corners, corners + 5 + 30 * torch.rand(count, 2)], dim=1)


def mask_head(values):
    cfg = make_config(add_pointrend_config, FPN_OF_R50, CLASSES, values)
    head = build_mask_head(cfg, SHAPES)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return head


@pytest.mark.parametrize("values", [STANDARD, IMPLICIT], ids=["standard", "implicit"])
def test_training_does_not_wait(values):
    head, maps = mask_head(values).cuda().train(), {"p2": torch.randn(2, 8, 25, 25).cuda()}
    instances = [
        Instances(
            (100, 100),
            proposal_boxes=Boxes(boxes(n)),
            gt_classes=torch.randint(0, 5, (n,)),
            gt_masks=BitMasks(torch.rand(n, 100, 100) > 0.5),
        ).to("cuda")
        for n in (4, 7)
    ]

    def step():
        losses = head(maps, instances)
        sum(losses.values()).backward()
        return losses

    with EventStorage():
        losses = without_waiting(step)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("values", [STANDARD, IMPLICIT], ids=["standard", "implicit"])
@torch.no_grad()
def test_masks(values):
    head, features = mask_head(values).eval(), torch.randn(2, 8, 25, 25)
    found = [(boxes(n), torch.randint(0, 5, (n,))) for n in (3, 6)]

    def predictor(device):
        instances = [
            Instances((100, 100), pred_boxes=Boxes(b), pred_classes=c).to(device) for b, c in found
        ]
        maps, on_device = {"p2": features.to(device)}, head.to(device)
        return lambda: torch.cat([x.pred_masks for x in on_device(maps, instances)])

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    on_cpu = predictor("cpu")()
    on_cuda = without_waiting(predictor("cuda")).cpu()
    assert on_cpu.std() > 1e-4
    # Points that are almost as uncertain as the last one chosen may be others.
    assert ((on_cpu - on_cuda).abs() > 1e-3).float().mean() < 1e-3


def test_semantic_head_does_not_wait():
    cfg = make_config(
        add_pointrend_config,
        {
            "MODEL.SEM_SEG_HEAD.NAME": "PointRendSemSegHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2"],
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
            "MODEL.POINT_HEAD.NUM_CLASSES": 5,
        },
    )
    head, maps = build_sem_seg_head(cfg, SHAPES).cuda(), {"p2": torch.randn(2, 8, 25, 30).cuda()}
    targets = torch.randint(0, 5, (2, 100, 120)).cuda()
    without_waiting(lambda: sum(head.train()(maps, targets)[1].values()).backward())
    with torch.no_grad():
        logits, _ = without_waiting(lambda: head.eval()(maps))
    assert logits.shape == (2, 5, 200, 240)


def test_hard_pixels():
    logits, labels = torch.randn(2, 5, 40, 50), torch.randint(0, 5, (2, 40, 50))
    loss = DeepLabCE(top_k_percent_pixels=0.2)
    inputs = logits.cuda(), labels.cuda()
    on_cuda = without_waiting(lambda: loss(*inputs))
    torch.testing.assert_close(on_cuda.cpu(), loss(logits, labels))


def test_panoptic_segmentation():
    sem_seg = torch.randint(0, 6, (1, 12, 15)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    heat, offsets = torch.rand(1, 96, 120), 8 * torch.randn(2, 96, 120)

    def segmented(device):
        panoptic, centers = get_panoptic_segmentation(
            *(x.to(device) for x in (sem_seg, heat, offsets)), [1, 2, 3], 1000, 64, -1
        )
        return panoptic.cpu(), centers.cpu()

    on_cpu, on_cuda = segmented("cpu"), segmented("cuda")
    assert torch.equal(on_cpu[1], on_cuda[1])
    assert (on_cpu[0] != on_cuda[0]).float().mean() < 1e-3
