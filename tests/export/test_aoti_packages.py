"""Packages of AOTInductor give what the model gives. Their C++ takes a minute to compile."""

import pytest
import torch

from detectron2.export import export_aoti, export_program
from detectron2.export._predictions import predictions
from detectron2.export.flatten import flatten_to_tuple

from .tiny_detectors import SIZES, assert_alike, exported_detector, image

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faster", "mask", "keypoint", "panoptic", "retinanet", "fcos"])
def test_package(kind, tmp_path):
    model, exported = exported_detector(kind)
    path = export_aoti(exported, tmp_path / "model.pt2")
    compiled = torch._inductor.aoti_load_package(path)
    metadata = compiled.get_metadata()
    assert metadata["input_names"] == "image"
    assert metadata["output_names"] == ",".join(exported.output_names)
    for size in SIZES:
        batch = [{"image": image(size)}]
        with torch.no_grad():
            wanted = flatten_to_tuple(predictions(model, batch))[0]
        assert_alike(compiled(*exported.flatten(batch)), wanted)


def test_name_of_the_package():
    class Double(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    exported = export_program(Double().eval(), torch.ones(2))
    with pytest.raises(ValueError, match=r"ends in \.pt2, got 'model\.so'"):
        export_aoti(exported, "model.so")
