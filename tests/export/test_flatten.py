"""Nested objects as flat tuples and back, and traces through them."""

import pytest
import torch
from torch import nn

from detectron2.export import TracingAdapter
from detectron2.export.flatten import (
    DictSchema,
    IdentitySchema,
    InstancesSchema,
    ListSchema,
    TensorWrapSchema,
    TupleSchema,
    flatten_to_tuple,
)
from detectron2.structures import Boxes, Instances, RotatedBoxes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def instances(boxes):
    return Instances((5, 6), scores=torch.arange(2.0), pred_boxes=boxes)


def test_schemas():
    leaf = IdentitySchema()
    leaves, schema = flatten_to_tuple({"b": [1, (2, "text")], "a": b"bytes"})
    assert leaves == (b"bytes", 1, 2, "text")
    pair = TupleSchema([leaf, leaf], [1, 1])
    assert schema == DictSchema([leaf, ListSchema([leaf, pair], [1, 2])], [1, 3], ["a", "b"])
    assert schema != DictSchema([leaf, TupleSchema([leaf, pair], [1, 2])], [1, 3], ["a", "b"])
    assert schema((4, 5, 6, 7)) == {"a": 4, "b": [5, (6, 7)]}
    assert isinstance(schema((4, 5, 6, 7))["b"][1], tuple)


def test_empty_containers():
    leaves, schema = flatten_to_tuple([[], {}, ()])
    assert leaves == ()
    assert schema(()) == [[], {}, ()]


@pytest.mark.parametrize("kind", [Boxes, RotatedBoxes])
def test_instances(kind):
    boxes = kind(torch.rand(2, 4 if kind is Boxes else 5))
    leaves, schema = flatten_to_tuple(instances(boxes))
    assert leaves[0] is boxes.tensor
    assert leaves[2].tolist() == [5, 6]
    wrap = TensorWrapSchema(f"detectron2.structures.{kind.__name__}")
    assert schema == InstancesSchema([wrap, IdentitySchema()], [1, 1], ["pred_boxes", "scores"])
    result = schema(leaves)
    assert type(result.pred_boxes) is kind
    assert torch.equal(result.pred_boxes.tensor, boxes.tensor)
    assert torch.equal(result.scores, torch.arange(2.0))
    assert torch.equal(result.image_size, torch.tensor([5, 6]))


@pytest.mark.parametrize("values", [(), (1, 2), (1, 2, 3, 4)])
def test_number_of_leaves(values):
    for obj in ([0, [0, 0]], {"a": 0, "b": (0, 0)}, instances(Boxes(torch.rand(2, 4)))):
        with pytest.raises(ValueError, match=f"got {len(values)}"):
            flatten_to_tuple(obj)[1](values)


def test_keys_are_strings():
    with pytest.raises(KeyError, match="got 3"):
        flatten_to_tuple({3: torch.zeros(1)})


class Model(nn.Module):
    def forward(self, inputs):
        boxes = Boxes(inputs[0]["boxes"] * 2)
        return [{"boxes": boxes, "count": torch.as_tensor(boxes.tensor.shape[0])}]


def test_trace_for_other_sizes():
    adapter = TracingAdapter(Model(), [{"boxes": torch.rand(3, 4)}])
    assert adapter.outputs_schema is None
    traced = torch.jit.trace(adapter, adapter.flattened_inputs)
    boxes = torch.rand(5, 4)
    leaves, schema = flatten_to_tuple(([{"boxes": boxes}],))
    assert schema == adapter.inputs_schema
    (result,) = adapter.outputs_schema(traced(*leaves))
    assert isinstance(result["boxes"], Boxes)
    assert torch.equal(result["boxes"].tensor, boxes * 2)
    assert result["count"] == 5


def test_wrapped_model_and_own_function():
    model = Model()
    adapter = TracingAdapter(nn.DataParallel(model), torch.ones(2), lambda m, x: x * 2)
    assert adapter.model is model
    (result,) = adapter(torch.zeros(2, requires_grad=True))
    assert not result.requires_grad


def test_outputs_of_another_structure():
    adapter = TracingAdapter(nn.Identity(), torch.ones(2), lambda _, x: [x] * len(x))
    assert len(adapter(torch.ones(2))) == 2
    with pytest.raises(ValueError, match="differ in structure"):
        adapter(torch.ones(3))


def test_leaves_that_are_no_tensors():
    def infer(model, x):
        return {"sum": x["a"] + x["b"], "text": "text"}

    inputs = {"a": torch.ones(2), "b": 3}
    with pytest.raises(ValueError, match="holds 3, a int"):
        TracingAdapter(nn.Identity(), inputs, infer)
    adapter = TracingAdapter(nn.Identity(), inputs, infer, allow_non_tensor=True)
    assert adapter.flattened_inputs == (inputs["a"],)
    assert adapter.inputs_schema is None
    (total,) = adapter(inputs["a"])
    assert total.tolist() == [4, 4]
    assert adapter.outputs_schema is None
    for others in ((torch.ones(2),), (), (inputs["a"],) * 2):
        with pytest.raises(ValueError, match="flattened_inputs only"):
            adapter(*others)
