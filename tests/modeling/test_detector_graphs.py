"""Scripts and traces of RPN, RetinaNet and FCOS give what the modules give, for any sizes."""

import importlib

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, ImageList, Instances

from .test_dense_detectors import inputs, make_fcos, make_retinanet
from .test_rpn import make_inputs, make_rpn

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


class Detections:
    """Stands in for Instances, which TorchScript cannot compile."""

    def __init__(self, image_size: tuple[int, int]):
        self.image_size = image_size
        self.boxes = torch.jit.annotate(Boxes | None, None)
        self.logits = torch.jit.annotate(torch.Tensor | None, None)
        self.classes = torch.jit.annotate(torch.Tensor | None, None)

    @property
    def pred_boxes(self) -> Boxes:
        value = self.boxes
        assert value is not None
        return value

    @pred_boxes.setter
    def pred_boxes(self, value: Boxes) -> None:
        self.boxes = value

    @property
    def scores(self) -> torch.Tensor:
        value = self.logits
        assert value is not None
        return value

    @scores.setter
    def scores(self, value: torch.Tensor) -> None:
        self.logits = value

    @property
    def pred_classes(self) -> torch.Tensor:
        value = self.classes
        assert value is not None
        return value

    @pred_classes.setter
    def pred_classes(self, value: torch.Tensor) -> None:
        self.classes = value

    @property
    def proposal_boxes(self) -> Boxes:
        value = self.boxes
        assert value is not None
        return value

    @proposal_boxes.setter
    def proposal_boxes(self, value: Boxes) -> None:
        self.boxes = value

    @property
    def objectness_logits(self) -> torch.Tensor:
        value = self.logits
        assert value is not None
        return value

    @objectness_logits.setter
    def objectness_logits(self, value: torch.Tensor) -> None:
        self.logits = value


MODULES = [
    "meta_arch._one_stage",
    "meta_arch.dense_detector",
    "meta_arch.fcos",
    "meta_arch.retinanet",
    "proposal_generator._graph_proposals",
    "proposal_generator.proposal_utils",
    "proposal_generator.rpn",
]


def script(module, monkeypatch):
    with monkeypatch.context() as patch:
        for name in MODULES:
            of_module = importlib.import_module(f"detectron2.modeling.{name}")
            patch.setattr(of_module, "Instances", Detections)
        return torch.jit.script(module)


def detect(model, samples):
    images = model.preprocess_image(samples)
    features = model.backbone(images.tensor)
    maps = [features[name] for name in model.head_in_features]
    return model.forward_inference(images, maps, model.head(maps))


def check(a, b):
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
    torch.testing.assert_close(a.scores, b.scores)
    assert torch.equal(a.pred_classes, b.pred_classes)


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_scripts_of_dense_detectors(make, monkeypatch):
    model = make().eval()
    graph = script(model, monkeypatch)
    samples = [{"image": x["image"]} for x in inputs()]
    with torch.no_grad():
        results, wanted = graph(samples), detect(model, samples)
    sticks_out = False
    for a, b, sample in zip(results, wanted, samples, strict=True):
        check(a, b)
        height, width = sample["image"].shape[1:]
        corners = a.pred_boxes.tensor
        assert (corners >= 0).all()
        assert (corners <= torch.tensor([width, height, width, height])).all()
        # Some would stick out if they were not clipped.
        sticks_out |= bool((corners == torch.tensor([width, height] * 2)).any())
    assert sticks_out


@pytest.mark.parametrize("make", [make_retinanet, make_fcos])
def test_traces_of_dense_detectors(make):
    model = make(max_detections_per_image=1000, test_score_thresh=0.45).eval()

    class OfImage(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            (result,) = detect(self.model, [{"image": image}])
            return result.pred_boxes.tensor, result.scores, result.pred_classes

    counts = set()
    with torch.no_grad():
        graph = torch.jit.trace(OfImage(), torch.rand(3, 64, 80) * 255, check_trace=False)
        for size in ((64, 80), (96, 64), (128, 200)):
            image = torch.rand(3, *size) * 255
            results = graph(image)
            counts.add(len(results[0]))
            for x, y in zip(results, OfImage()(image), strict=True):
                torch.testing.assert_close(x, y)
    assert len(counts) == 3


def test_script_of_rpn(monkeypatch):
    rpn = make_rpn().eval()
    graph = script(rpn, monkeypatch)
    images, features, _ = make_inputs()
    with torch.no_grad():
        (results, losses), (wanted, _) = graph(images, features), rpn(images, features)
    assert losses == {}
    for a, b in zip(results, wanted, strict=True):
        torch.testing.assert_close(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
        torch.testing.assert_close(a.objectness_logits, b.objectness_logits)


def test_trace_of_rpn():
    rpn = make_rpn(post_nms_topk=(20, 1000), pre_nms_topk=(20, 1000)).eval()

    class OfFeatures(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rpn = rpn

        def forward(self, fine, coarse):
            height, width = fine.shape[2] * 8, fine.shape[3] * 8
            size = (height, width)
            if torch.jit.is_tracing():
                size = torch.stack([torch.as_tensor(height), torch.as_tensor(width)])
            images = ImageList(fine, [size])
            (proposals,), _ = self.rpn(images, {"a": fine, "b": coarse})
            return proposals.proposal_boxes.tensor, proposals.objectness_logits

    def features(height, width):
        return torch.randn(1, 6, height, width), torch.randn(1, 6, height // 2, width // 2)

    counts = set()
    with torch.no_grad():
        graph = torch.jit.trace(OfFeatures(), features(8, 10), check_trace=False)
        for size in ((8, 10), (16, 12), (4, 4)):
            x = features(*size)
            results = graph(*x)
            counts.add(len(results[0]))
            torch.testing.assert_close(by_logit(*results), by_logit(*OfFeatures()(*x)))
    assert len(counts) == 3


def by_logit(boxes, logits):
    """Rows of both, in an order that equal logits do not leave open."""
    rows = torch.cat([logits[:, None], boxes], dim=1).numpy()
    return torch.from_numpy(rows[np.lexsort(rows.T[::-1])])


def test_instances_are_the_real_ones_again():
    for name in MODULES:
        assert importlib.import_module(f"detectron2.modeling.{name}").Instances is Instances
