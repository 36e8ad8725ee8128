"""TorchScript of code and of models that use Instances."""

import pytest
import torch
from torch import nn

from detectron2.export import dump_torchscript_IR, scripting_with_instances
from detectron2.export.torchscript_patch import (
    freeze_training_mode,
    patch_builtin_len,
    patch_instances,
)
from detectron2.modeling.roi_heads import fast_rcnn
from detectron2.structures import Boxes, Instances

from .tiny_detectors import FIELDS_OF_MASK_RCNN, SIZES, image, make_detector

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

FIELDS = {"pred_boxes": Boxes, "scores": torch.Tensor}


def make(count=3):
    boxes = torch.arange(4.0 * count).reshape(count, 4)
    return Instances((8, 9), pred_boxes=Boxes(boxes), scores=torch.arange(float(count)))


def test_scripted_functions():
    def use(x: Instances) -> tuple[Instances, Instances, int, bool, bool, dict[str, torch.Tensor]]:
        best = x[x.scores > 0].to(torch.device("cpu"))
        bare = Instances(x.image_size)
        bare.scores = x.scores * 2
        joined = x.cat([x, best])
        return joined, bare, len(best), bare.has("scores"), bare.has("pred_boxes"), x.get_fields()

    with patch_instances(FIELDS) as scripted:
        function = torch.jit.script(use)
        joined, bare, count, has_scores, has_boxes, fields = function(
            scripted.from_instances(make())
        )
    assert torch.equal(joined.scores, torch.tensor([0.0, 1, 2, 1, 2]))
    assert isinstance(joined.pred_boxes, Boxes)
    assert torch.equal(joined.pred_boxes.tensor[3:], make().pred_boxes.tensor[1:])
    assert joined.image_size == (8, 9)
    assert torch.equal(bare.scores, torch.tensor([0.0, 2, 4]))
    assert (count, has_scores, has_boxes) == (2, True, False)
    assert sorted(fields) == ["pred_boxes", "scores"]
    assert torch.equal(fields["pred_boxes"], make().pred_boxes.tensor)


def test_fields_that_are_missing():
    def scores(x: Instances) -> torch.Tensor:
        return x.scores

    def length(x: Instances) -> int:
        return len(x)

    with patch_instances(FIELDS) as scripted:
        empty = scripted((8, 9))
        with pytest.raises(Exception, match="there is no field scores"):
            torch.jit.script(scores)(empty)
        with pytest.raises(Exception, match="without fields have no length"):
            torch.jit.script(length)(empty)
        with pytest.raises(AttributeError, match="no field 'ids'"):
            scripted.from_instances(Instances((8, 9), ids=torch.zeros(2)))


def count_items(x: Instances) -> int:
    return len(x.items)


def test_other_fields_the_next_time():
    for kind, value in ((torch.Tensor, torch.ones(2)), (Boxes, Boxes(torch.ones(3, 4)))):
        with patch_instances({"items": kind}) as scripted:
            instances = scripted.from_instances(Instances((8, 9), items=value))
            # A function that was compiled before, for the fields of then.
            assert torch.jit.script(count_items)(instances) == len(value)


@pytest.mark.parametrize("name", ["_boxes", "has", "no name", "class"])
def test_names_of_fields(name):
    with pytest.raises(ValueError, match=name), patch_instances({name: torch.Tensor}):
        pass


def test_instances_are_the_same_afterwards():
    with patch_instances(FIELDS):
        assert len(make()) == 3
        with pytest.raises(RuntimeError, match="nested"), patch_instances(FIELDS):
            pass
    assert not hasattr(Instances, "_jit_override_qualname")


class Branches(nn.Module):
    kept: torch.jit.Final[int] = 3

    def forward(self, x: torch.Tensor):
        # A script returns one type only.
        if self.training:
            return {"loss": x}
        return x * self.kept


class Derived(Branches):
    pass


@pytest.mark.parametrize("cls", [Branches, Derived])
def test_training_mode_as_a_constant(cls):
    model = cls().eval()
    with pytest.raises(Exception, match="Previous return statement"):
        torch.jit.script(model)
    with freeze_training_mode(model):
        assert torch.jit.script(model)(torch.ones(1)) == 3
    assert "training" not in cls.__annotations__
    assert Branches.__annotations__ == {"kept": torch.jit.Final[int]}


def test_length_that_is_not_an_int():
    class Counted:
        def __len__(self):
            return torch.tensor(3)

    with patch_builtin_len([pytest]):
        assert isinstance(fast_rcnn.len(Counted()), torch.Tensor)
        assert isinstance(pytest.len(Counted()), torch.Tensor)
        assert fast_rcnn.len([1, 2]) == 2
    assert not hasattr(fast_rcnn, "len")
    assert not hasattr(pytest, "len")


def test_scripted_detector(tmp_path):
    model = make_detector("mask")
    script = scripting_with_instances(model, FIELDS_OF_MASK_RCNN)
    with pytest.raises(AssertionError, match="training mode"):
        scripting_with_instances(make_detector("mask").train(), FIELDS_OF_MASK_RCNN)
    script.save(tmp_path / "model.ts")
    for graph in (script, torch.jit.load(tmp_path / "model.ts")):
        for size in SIZES:
            batch = [{"image": image(size)}]
            with torch.no_grad():
                (result,) = graph.inference(batch, do_postprocess=False)
                (wanted,) = model.inference(batch, do_postprocess=False)
            # A loaded script gives objects without properties.
            value = {name: getattr(result, f"_{name}") for name in wanted.get_fields()}
            assert len(value["scores"]) > 0
            torch.testing.assert_close(value["scores"], wanted.scores)
            torch.testing.assert_close(value["pred_boxes"].tensor, wanted.pred_boxes.tensor)
            torch.testing.assert_close(value["pred_masks"], wanted.pred_masks)


def test_dump(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    dump_torchscript_IR(torch.jit.trace(model, torch.rand(1, 2)), str(tmp_path / "dump"))
    texts = {path.name: path.read_text() for path in (tmp_path / "dump").iterdir()}
    assert sorted(texts) == [
        "model.txt",
        "model_ts_IR.txt",
        "model_ts_IR_inlined.txt",
        "model_ts_code.txt",
    ]
    assert "torch.linear" in texts["model_ts_code.txt"]
    assert "prim::CallMethod" in texts["model_ts_IR.txt"]
    assert "aten::linear" in texts["model_ts_IR_inlined.txt"]
    assert "CallMethod" not in texts["model_ts_IR_inlined.txt"]
    assert "Linear" in texts["model.txt"]
    with pytest.raises(TypeError, match="got Sequential"):
        dump_torchscript_IR(model, str(tmp_path))
