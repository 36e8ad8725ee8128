"""On CUDA, the host waits for the device only where the size of a result depends on it."""

import pytest
import torch

from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.sampling import subsample_masks
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from .host_syncs import count_host_syncs
from .test_dense_detectors import inputs as dense_inputs
from .test_dense_detectors import make_fcos, make_retinanet
from .test_rpn import make_inputs, make_rpn

pytestmark = pytest.mark.gpu


def test_the_count_itself():
    x = torch.ones(3, device="cuda")
    assert count_host_syncs(lambda: x + 1) == 0
    assert count_host_syncs(lambda: [x.sum().item(), x.nonzero()]) == 2


def rpn_on_cuda():
    rpn = make_rpn().cuda()
    images, features, gt = make_inputs()
    features = {name: x.cuda() for name, x in features.items()}
    return rpn, images, features, [x.to("cuda") for x in gt]


def test_proposals():
    """Once: how many there are of each image."""
    rpn, images, features, _ = rpn_on_cuda()
    rpn.eval()
    with torch.no_grad():
        assert count_host_syncs(lambda: rpn(images, features)) == 1


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_training_of_proposals(kind):
    rpn, images, features, gt = rpn_on_cuda()
    rpn.box_reg_loss_type = kind

    def step():
        _, losses = rpn(images, features, gt)
        sum(losses.values()).backward()

    with EventStorage():
        assert count_host_syncs(step) == 1


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_training_of_dense_detectors(make):
    model = make().cuda()
    samples = dense_inputs((3, 2))
    for sample in samples:
        sample["image"] = sample["image"].cuda()
        sample["instances"] = sample["instances"].to("cuda")
    with EventStorage():
        assert count_host_syncs(lambda: sum(model(samples).values()).backward()) == 0


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_inference_of_dense_detectors(make):
    """Twice: how many detections there are, and which of them are outside of the image."""
    model = make().cuda().eval()
    samples = dense_inputs()
    for sample in samples:
        sample["image"] = sample["image"].cuda()
    with torch.no_grad():
        assert count_host_syncs(lambda: model(samples)) == 2


def test_pooling():
    """Never by RoIAlign. By others once, of several levels: how many boxes there are on each."""
    x = [torch.randn(2, 3, s, s, device="cuda") for s in (32, 16)]
    boxes = [Boxes(torch.rand(5, 4, device="cuda").cumsum(1) * 30) for _ in range(2)]
    for kind, waits in (("ROIAlignV2", 0), ("ROIAlign", 0), ("ROIPool", 1)):
        two_levels = ROIPooler(4, [1 / 4, 1 / 8], 0, kind)
        assert count_host_syncs(lambda pooler=two_levels: pooler(x, boxes)) == waits
        one_level = ROIPooler(4, [1 / 4], 0, kind)
        assert count_host_syncs(lambda pooler=one_level: pooler(x[:1], boxes)) == 0


def test_sampling():
    labels = torch.randint(-1, 2, (4, 1000), device="cuda", dtype=torch.int8)
    assert count_host_syncs(lambda: subsample_masks(labels, 64, 0.5, 0)) == 0


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_cpu_and_cuda_agree(make):
    model = make().eval()
    samples, training = dense_inputs(), dense_inputs((3, 2))
    with torch.no_grad(), EventStorage():
        on_cpu = [x["instances"] for x in model(samples)]
        losses = model.train()(training)
        if isinstance(model, RetinaNet):
            model.loss_normalizer = 100
        else:
            model.loss_normalizer = 300
        model.cuda()
        on_cuda_losses = model(training)
        on_cuda = [x["instances"] for x in model.eval()(samples)]
    for a, b in zip(on_cpu, on_cuda, strict=True):
        assert len(a) == pytest.approx(len(b), abs=2)
        torch.testing.assert_close(a.scores[:5], b.scores[:5].cpu(), rtol=1e-2, atol=1e-2)
    for name, loss in losses.items():
        torch.testing.assert_close(on_cuda_losses[name].cpu(), loss, rtol=1e-2, atol=1e-3)
