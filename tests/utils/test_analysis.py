"""Counts of operations, activations and parameters of models small enough to count by hand."""

import logging

import pytest
import torch
from torch import nn

from detectron2 import model_zoo
from detectron2.layers import DeformConv
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
    parameter_count,
    parameter_count_table,
)


class Detector(nn.Module):
    """Inputs and outputs as those of the models of this library."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)
        self.head.eval()

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        images = torch.stack([item["image"].float() for item in batched_inputs])
        features = self.backbone(images).relu()
        boxes = Boxes(self.head(features.mean((2, 3)))[:, :4])
        instances = Instances((6, 8), pred_boxes=boxes, scores=boxes.area())
        return [{"instances": instances, "width": 8, "file_name": "a.jpg"}]


INPUTS = [{"image": torch.ones(3, 6, 8, dtype=torch.uint8), "height": 6}]
CONV_FLOPS = 6 * 8 * 4 * 3 * 3 * 3
LINEAR_FLOPS = 4 * 5
NORM_FLOPS = 6 * 8 * 4 * 5  # in training mode
EVALUATING_NORM_FLOPS = 6 * 8 * 4 * 2


def test_flops_by_module_have_the_names_of_the_modules() -> None:
    model = Detector()
    flops = FlopCountAnalysis(model, INPUTS)
    assert flops.total() == CONV_FLOPS + NORM_FLOPS + LINEAR_FLOPS
    assert flops.by_module() == {
        "": CONV_FLOPS + NORM_FLOPS + LINEAR_FLOPS,
        "backbone": CONV_FLOPS + NORM_FLOPS,
        "backbone.0": CONV_FLOPS,
        "backbone.1": NORM_FLOPS,
        "head": LINEAR_FLOPS,
    }
    assert flops.by_module().keys() <= parameter_count(model).keys()
    assert flops.by_module_and_operator()["backbone.0"] == {"conv": CONV_FLOPS}
    assert not flops.uncalled_modules()
    assert "forward" not in vars(model)
    assert "instances" in model(INPUTS)[0]


def test_several_arguments() -> None:
    class Two(nn.Module):
        def forward(self, left: torch.Tensor, right: list[torch.Tensor]) -> dict:
            return {"product": left @ right[0]}

    flops = FlopCountAnalysis(Two(), (torch.ones(2, 3), [torch.ones(3, 4)]))
    assert flops.by_operator() == {"matmul": 24}


def test_equals_an_analysis_of_tensors_alone() -> None:
    from fvcore.nn import FlopCountAnalysis as FvcoreAnalysis

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2 * 9, 3)
    )
    image = torch.ones(2, 3, 7, 7)
    assert FlopCountAnalysis(model, image).by_module_and_operator() == (
        FvcoreAnalysis(model, image).by_module_and_operator()
    )


def test_model_is_as_before_where_it_fails() -> None:
    model = Detector()
    with pytest.raises(KeyError):
        FlopCountAnalysis(model, [{}]).total()
    assert "forward" not in vars(model)


def test_element_wise_operators_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        FlopCountAnalysis(Detector(), INPUTS).total()
    assert not [record for record in caplog.records if "nsupported operator" in record.message]


@pytest.mark.parametrize(
    "name",
    [
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    ],
)
def test_nothing_of_a_model_of_the_zoo_is_reported(name: str) -> None:
    cfg = model_zoo.get_config(name)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    cfg.merge_from_list(["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 16])
    flops = FlopCountAnalysis(build_model(cfg).eval(), [{"image": torch.zeros(3, 64, 96)}])
    assert flops.uncalled_modules_warnings(False).total() > 0
    assert not flops.unsupported_ops()


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (
            flop_count_operators,
            {
                "conv": CONV_FLOPS / 1e9,
                "batch_norm": EVALUATING_NORM_FLOPS / 1e9,
                "linear": LINEAR_FLOPS / 1e9,
            },
        ),
        (activation_count_operators, {"conv": 6 * 8 * 4 / 1e6, "linear": 5 / 1e6}),
    ],
)
def test_count_operators(count, expected: dict[str, float]) -> None:
    model = Detector()
    counts = count(model, INPUTS)
    assert counts == pytest.approx(expected)
    assert counts["absent"] == 0
    assert model.backbone.training
    assert not model.head.training
    assert model.backbone[1].num_batches_tracked == 0


def test_deformable_convolution() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = DeformConv(4, 6, 3, padding=1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x, x.new_zeros(1, 18, 5, 7))

    image = torch.zeros(1, 4, 5, 7)
    assert FlopCountAnalysis(Model(), image).by_module_and_operator()["conv"] == {
        "deform_conv": 6 * 5 * 7 * (4 // 2) * 3 * 3
    }
    assert activation_count_operators(Model(), image) == {"deform_conv": 6 * 5 * 7 / 1e6}


def test_further_handles() -> None:
    handle = {"aten::relu": lambda inputs, outputs: 7e6}
    assert activation_count_operators(Detector(), INPUTS, supported_ops=handle)["relu"] == 7


def test_parameter_count_table() -> None:
    assert "backbone.0" in parameter_count_table(Detector(), max_depth=2)


class TestUnusedParameters:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
            loss = self.used(x).sum() * scale
            return {"loss_a": loss, "loss_b": loss * 2}

    @pytest.mark.parametrize("inputs", [torch.ones(1, 2), (torch.ones(1, 2), 3.0)])
    def test_names(self, inputs) -> None:
        model = self.Model()
        before = torch.ones(2)
        model.unused.bias.grad = before
        assert find_unused_parameters(model, inputs) == ["unused.weight", "unused.bias"]
        assert model.unused.bias.grad is before
        assert model.used.weight.grad is None

    def test_evaluation_mode(self) -> None:
        with pytest.raises(ValueError, match="Model is in evaluation mode"):
            find_unused_parameters(self.Model().eval(), torch.ones(1, 2))
