"""One program of a detector gives what the detector gives, for images of any size."""

import pytest
import torch

from detectron2.export import export_program
from detectron2.export._predictions import predictions
from detectron2.export.flatten import flatten_to_tuple
from detectron2.layers import batched_nms
from detectron2.modeling.postprocessing import detector_postprocess

from .tiny_detectors import SIZES, assert_alike, exported_detector, image, make_detector

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

DETECTIONS = ("pred_boxes", "pred_classes", "scores", "image_size")


def export(model, size=SIZES[0]):
    return export_program(model, [{"image": image(size)}])


def predict(model, size):
    with torch.no_grad():
        return flatten_to_tuple(predictions(model, [{"image": image(size)}]))[0]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        pytest.param("faster", DETECTIONS, marks=pytest.mark.slow),
        ("mask", ("pred_boxes", "pred_classes", "pred_masks", "scores", "image_size")),
        (
            "keypoint",
            (
                "pred_boxes",
                "pred_classes",
                "pred_keypoint_heatmaps",
                "pred_keypoints",
                "scores",
                "image_size",
            ),
        ),
        (
            "panoptic",
            ("pred_boxes", "pred_classes", "pred_masks", "scores", "image_size", "sem_seg"),
        ),
        ("retinanet", DETECTIONS),
        ("fcos", DETECTIONS),
    ],
)
def test_one_program_for_all_sizes(kind, names):
    model, exported = exported_detector(kind)
    assert exported.input_names == ("image",)
    assert exported.output_names == names
    counts = set()
    for size in SIZES:
        outputs = exported([{"image": image(size)}])
        assert_alike(flatten_to_tuple(outputs)[0], predict(model, size))
        (output,) = outputs
        assert output["instances"].image_size.tolist() == list(size)
        if kind == "panoptic":
            assert output["sem_seg"].shape == (5, *size)
        counts.add(len(output["instances"]))
    assert min(counts) > 0
    assert len(counts) > 1 or counts == {20}


def test_predictions_are_those_of_the_model_before_post_processing():
    model = make_detector("mask")
    size = SIZES[1]
    with torch.no_grad():
        (raw,) = predictions(model, [{"image": image(size)}])
        (wanted,) = model([{"image": image(size), "height": 150, "width": 120}])
    result = detector_postprocess(raw["instances"], 150, 120)
    assert_alike(flatten_to_tuple(result)[0], flatten_to_tuple(wanted["instances"])[0])


def test_nothing_is_detected():
    model = make_detector("mask")
    model.roi_heads.box_predictor.test_score_thresh = 2.0
    (output,) = export(model)([{"image": image(SIZES[1])}])
    assert len(output["instances"]) == 0
    assert output["instances"].pred_masks.shape == (0, 1, 8, 8)


@pytest.mark.slow
def test_several_images():
    model = make_detector("fcos")
    exported = export_program(model, [{"image": image(SIZES[0])}, {"image": image(SIZES[1])}])
    assert exported.input_names == ("0.image", "1.image")
    assert exported.output_names[0] == "0.instances.pred_boxes"
    batch = [{"image": image(SIZES[2])}, {"image": image(SIZES[0])}]
    with torch.no_grad():
        wanted = flatten_to_tuple(predictions(model, batch))[0]
    assert_alike(flatten_to_tuple(exported(batch))[0], wanted)


def test_program_from_a_file(tmp_path):
    model, exported = exported_detector("retinanet")
    torch.export.save(exported.program, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    outputs = program(*exported.flatten([{"image": image(SIZES[2])}]))
    assert_alike(outputs, predict(model, SIZES[2]))


def test_own_function_and_dimensions():
    class Scale(torch.nn.Module):
        def forward(self, x):
            return {"y": x["x"] * 2}

    exported = export_program(
        Scale().eval(),
        ({"x": torch.ones(4, 3)}, torch.ones(3)),
        lambda model, x, offset: {"z": model(x)["y"] + offset},
        dynamic_dims={"x": (0,)},
    )
    assert exported.input_names == ("x", "input.1")
    assert exported.output_names == ("z",)
    result = exported({"x": torch.ones(6, 3)}, torch.arange(3))
    assert torch.equal(result["z"], torch.tensor([[2.0, 3, 4]] * 6))


def test_errors():
    model = make_detector("fcos")
    with pytest.raises(
        ValueError, match="longer than 16, the model's coarsest stride, got 16 x 80"
    ):
        export(model, (16, 80))
    with pytest.raises(ValueError, match="got 480, a int, among the inputs"):
        export_program(model, [{"image": image(SIZES[0]), "height": 480}])
    with pytest.raises(ValueError, match=r"names \['images'\], but the inputs are \['image'\]"):
        export_program(model, [{"image": image(SIZES[0])}], dynamic_dims={"images": (1,)})
    with pytest.raises(AssertionError, match="evaluation mode"):
        export(model.train())


@pytest.mark.parametrize("count", [0, 1, 500])
def test_nms_in_programs(count):
    class Module(torch.nn.Module):
        def forward(self, boxes, scores, classes):
            return batched_nms(boxes, scores, classes, 0.3)

    def inputs(count):
        corners = torch.rand(count, 2) * 50
        boxes = torch.cat([corners, corners + torch.rand(count, 2) * 50], dim=1)
        # Some scores are equal.
        return boxes, torch.randint(20, (count,)) / 20, torch.randint(3, (count,))

    rows = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Module(), inputs(10), dynamic_shapes=(rows,) * 3).module()
    arguments = inputs(count)
    assert torch.equal(program(*arguments), batched_nms(*arguments, 0.3))
