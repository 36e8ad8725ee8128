"""Instances as a container: fields of any type, indexing, concatenation, copies and errors."""

import copy
import pickle

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks

SIZE = (40, 50)


def make(count, start=0):
    """Instances with a field of each kind; number i has the values start + i."""
    numbers = torch.arange(start, start + count)
    corners = numbers[:, None].float() + torch.tensor([0.0, 0.0, 5.0, 5.0])
    return Instances(
        SIZE,
        boxes=Boxes(corners),
        names=[f"n{i}" for i in numbers.tolist()],
        ids=numbers,
        points=Keypoints(numbers[:, None, None].float().expand(-1, 2, 3)),
        polygons=PolygonMasks([[np.arange(6) + number] for number in numbers.tolist()]),
    )


def numbers_of(instances):
    """The numbers of the instances, once from each field; all fields must agree."""
    from_fields = [
        instances.boxes.tensor[:, 0].int().tolist(),
        [int(name[1:]) for name in instances.names],
        instances.ids.tolist(),
        instances.points.tensor[:, 1, 2].int().tolist(),
        [int(polygons[0][0]) for polygons in instances.polygons],
    ]
    assert from_fields.count(from_fields[0]) == len(from_fields), from_fields
    assert len(instances) == len(from_fields[0])
    assert instances.image_size == SIZE
    return from_fields[0]


MASK = [True, False, True, False, False]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (0, [0]),
        (4, [4]),
        (-1, [4]),
        (-5, [0]),
        (np.int64(3), [3]),
        (np.int32(-1), [4]),
        (torch.tensor(3), [3]),
        (torch.tensor(-2), [3]),
        (slice(None), [0, 1, 2, 3, 4]),
        (slice(1, 3), [1, 2]),
        (slice(-2, None), [3, 4]),
        (slice(None, None, 2), [0, 2, 4]),
        (slice(5, 5), []),
        (torch.tensor(MASK), [0, 2]),
        (torch.tensor([False] * 5), []),
        (torch.tensor([False, False, True, False, False]), [2]),
        (torch.tensor(MASK, dtype=torch.uint8), [0, 2]),
        (torch.tensor([4, 0, 0]), [4, 0, 0]),
        (torch.tensor([-1], dtype=torch.int32), [4]),
        (torch.tensor([], dtype=torch.int64), []),
        (torch.tensor(MASK).numpy(), [0, 2]),
        (torch.tensor([1, 3]).numpy(), [1, 3]),
        ([3, 1], [3, 1]),
    ],
)
def test_indexing_reaches_every_field_lists_included(item, expected):
    instances = make(5)
    instances.array = np.arange(5)
    assert numbers_of(instances[item]) == expected
    assert instances[item].array.tolist() == expected
    assert numbers_of(instances) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("item", [5, -6, 99])
def test_index_out_of_range(item):
    with pytest.raises(IndexError, match=f"index {item} is out of range for 5 instances"):
        make(5)[item]


@pytest.mark.parametrize("length", [0, 4, 6])
def test_mask_of_another_length(length):
    message = f"mask of length {length} cannot index 5 instances"
    with pytest.raises(IndexError, match=message):
        make(5)[torch.ones(length, dtype=torch.bool)]


def test_a_selection_shares_nothing_that_assigning_fields_would_change():
    instances = make(3)
    part = instances[:]
    part.more = [1, 2, 3]
    part.remove("ids")
    assert list(instances.get_fields()) == list(make(3).get_fields())


def test_gradients_pass_through_a_mask():
    scores = torch.rand(4, requires_grad=True)
    instances = Instances(SIZE, scores=scores)
    instances[torch.tensor([True, False, False, True])].scores.sum().backward()
    assert scores.grad.tolist() == [1, 0, 0, 1]


def test_fields():
    instances = Instances(SIZE)
    assert not instances.has("ids")
    instances.ids = torch.arange(3)
    instances.set("names", ["a", "b", "c"])
    instances.ids = torch.arange(1, 4)
    assert instances.has("ids")
    assert instances.get("ids") is instances.ids
    assert list(instances.get_fields()) == ["ids", "names"]
    instances.remove("ids")
    assert list(instances.get_fields()) == ["names"]
    for remove_or_get in (instances.remove, instances.get):
        with pytest.raises(KeyError, match="ids"):
            remove_or_get("ids")
    with pytest.raises(AttributeError, match=r"no field 'ids' in these Instances.*\['names'\]"):
        _ = instances.ids
    assert not hasattr(instances, "_other")
    instances._other = 1
    assert instances._other == 1
    assert not instances.has("_other")


def test_a_field_has_the_length_of_the_others():
    instances = make(3)
    message = "the field 'scores' has the length 2, but there are 3 instances"
    for assign in (instances.set, instances.__setattr__):
        with pytest.raises(ValueError, match=message):
            assign("scores", torch.zeros(2))
    with pytest.raises(ValueError, match="'b' has the length 0, but there are 1"):
        Instances(SIZE, a=[1], b=[])


@pytest.mark.parametrize("name", ["image_size", "to", "cat"])
def test_a_field_that_could_not_be_read_cannot_be_assigned(name):
    with pytest.raises(AttributeError, match=f"'{name}' cannot be assigned"):
        setattr(make(2), name, [1, 2])


def test_without_fields():
    instances = Instances(SIZE)
    with pytest.raises(NotImplementedError, match="no length"):
        len(instances)
    assert "num_instances=0" in str(instances)
    assert Instances.cat([instances, Instances(SIZE)]).get_fields() == {}


def test_not_iterable():
    with pytest.raises(NotImplementedError, match="iterated"):
        iter(make(2))


def test_cat():
    a, b, c = make(2), make(0, start=7), make(3, start=10)
    assert numbers_of(Instances.cat([a, b, c])) == [0, 1, 10, 11, 12]
    assert Instances.cat([a]) is a
    assert numbers_of(a) == [0, 1]
    # The fields are those of the first.
    c.more = [1, 2, 3]
    assert not Instances.cat([a, c]).has("more")


@pytest.mark.parametrize(
    ("elements", "error", "message"),
    [
        ([], ValueError, "at least one"),
        ([make(1), 5], TypeError, "one with int"),
        (make(1), TypeError, "got Instances"),
        ([make(1), Instances((9, 9), ids=[1])], ValueError, r"got \(40, 50\) and \(9, 9\)"),
        (
            [make(1), Instances(SIZE, ids=[1])],
            ValueError,
            "'boxes' is missing from number 1 of the 2",
        ),
        ([Instances(SIZE, a=(1,))] * 2, ValueError, "'a' cannot be concatenated: tuple"),
    ],
)
def test_what_cat_does_not_take(elements, error, message):
    with pytest.raises(error, match=message):
        Instances.cat(elements)


def test_cat_does_not_compare_sizes_that_are_tensors():
    size = torch.tensor(SIZE)
    result = Instances.cat([Instances(size, a=torch.arange(2)), Instances(size, a=torch.arange(1))])
    assert result.a.tolist() == [0, 1, 0]
    assert result.image_size is size


def test_to_moves_the_fields_that_can_be_moved():
    moved = make(2).to("meta")
    assert moved.ids.is_meta
    assert moved.boxes.device.type == "meta"
    assert moved.names == ["n0", "n1"]
    assert Instances(SIZE, a=torch.rand(2)).to(dtype=torch.float64).a.dtype == torch.float64


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(duplicate):
    instances = make(3)
    instances._note = "private"
    result = duplicate(instances)
    assert numbers_of(result) == [0, 1, 2]
    assert result._note == "private"


def test_an_object_without_its_state_does_not_recur():
    with pytest.raises(AttributeError, match="_fields"):
        _ = Instances.__new__(Instances).anything


def test_str():
    instances = Instances(SIZE, a=[1, 2], b=torch.tensor([3, 4]))
    expected = (
        "Instances(num_instances=2, image_height=40, image_width=50, "
        "fields=[a: [1, 2], b: tensor([3, 4])])"
    )
    assert str(instances) == repr(instances) == expected


def test_a_mask_becomes_indices_once_and_not_in_every_field():
    """On CUDA the device is waited for each time."""
    seen = []

    class Field:
        def __len__(self):
            return 3

        def __getitem__(self, item):
            seen.append(item)
            return self

    mask = torch.tensor([True, False, True])
    Instances(SIZE, a=Field(), b=Field())[mask]
    assert [item.tolist() for item in seen] == [[0, 2], [0, 2]]
    assert seen[0] is seen[1]


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_traced_code_may_use_instances():
    def keep_high(scores, size):
        instances = Instances(size, scores=scores, twice=scores * 2)
        instances = instances[instances.scores > 0.5]
        return Instances.cat([instances, instances]).twice, instances.image_size

    traced = torch.jit.trace(keep_high, (torch.rand(5), torch.tensor(SIZE)))
    scores = torch.tensor([0.9, 0.1, 0.6, 0.7, 0.2, 0.3, 0.8])
    for actual, expected in zip(
        traced(scores, torch.tensor([1, 2])), keep_high(scores, torch.tensor([1, 2])), strict=True
    ):
        assert torch.equal(actual, expected)


def test_compiled_code_may_use_instances_without_a_graph_break():
    def first_half_twice(scores):
        instances = Instances(SIZE, scores=scores, boxes=Boxes(scores[:, None].expand(-1, 4)))
        instances = instances[: len(instances) // 2]
        both = Instances.cat([instances, instances[instances.scores.argsort()]])
        return both.scores, both.boxes.tensor

    torch._dynamo.reset()
    compiled = torch.compile(first_half_twice, fullgraph=True, backend="eager", dynamic=True)
    for count in (6, 9):
        scores = torch.rand(count)
        for actual, expected in zip(compiled(scores), first_half_twice(scores), strict=True):
            assert torch.equal(actual, expected)

    def with_both(scores, boxes):
        return Instances(SIZE, scores=scores, boxes=Boxes(boxes)).boxes.tensor

    compiled = torch.compile(with_both, fullgraph=True, backend="eager", dynamic=True)
    with pytest.raises(RuntimeError):
        compiled(torch.rand(5), torch.rand(6, 4))
