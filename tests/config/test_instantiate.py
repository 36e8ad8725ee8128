import collections
import dataclasses
import functools

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config import LazyCall, instantiate
from detectron2.config.instantiate import dump_dataclass
from detectron2.layers import ShapeSpec


class Recorder:
    def __init__(self, a=None, **kwargs):
        self.a = a
        self.rest = kwargs

    def __call__(self, call_arg):
        return call_arg + self.a


@dataclasses.dataclass
class Point:
    x: int = 1
    y: object = None
    total: int = dataclasses.field(init=False, default=0)


L = LazyCall


def test_lazy_call_is_a_config():
    cfg = L(Recorder)(a=1, b=[2, L(Recorder)(a=3)])
    assert isinstance(cfg, DictConfig)
    assert cfg._target_ is Recorder
    made = instantiate(cfg)
    assert (made.a, made.rest["b"][0], made.rest["b"][1].a) == (1, 2, 3)
    cfg.b[1].a = 4
    assert instantiate(cfg).rest["b"][1].a == 4


def test_interpolations_resolve():
    cfg = L(Recorder)(a=L(Recorder)(a="${..b}"), b=7)
    assert instantiate(cfg).a.a == 7


def test_each_time_new_objects():
    shared = L(Recorder)(a=L(Recorder)())
    first, second = instantiate([shared, shared])
    assert first.a is not second.a


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, list, tuple])
def test_calls_of_containers_nest(kind):
    # In the reference, LazyCall(dict) fails.
    if issubclass(kind, dict):
        inner, made = L(kind)(a=1, b=L(Recorder)(a=2)), kind(a=1)
    else:
        inner, made = L(kind)(), kind()
    cfg = L(Recorder)(a=inner, b=L(Recorder)(a=inner))
    found = instantiate(cfg)
    assert type(found.a) is kind
    assert type(found.rest["b"].a) is kind
    if issubclass(kind, dict):
        assert found.a.pop("b").a == 2
    assert found.a == made


def test_lazy_target():
    assert instantiate(L(L(Recorder)(a=3))(call_arg=4)) == 7
    cfg = L("functools.partial")()
    cfg._target_ = functools.partial(Recorder, a=5)
    assert instantiate(cfg).a == 5


def test_dataclass_targets():
    cfg = L(ShapeSpec)(channels=3, stride=L(int)())
    assert cfg._target_ == "detectron2.layers.ShapeSpec"
    assert instantiate(cfg) == ShapeSpec(channels=3, stride=0)


def test_structured_configs_become_their_dataclass():
    cfg = OmegaConf.structured(ShapeSpec(channels=5))
    assert instantiate(cfg) == ShapeSpec(channels=5)
    assert instantiate(L(Recorder)(a=cfg)).a == ShapeSpec(channels=5)


def test_sequences():
    made = instantiate(OmegaConf.create([1, {"_target_": "builtins.int"}]))
    assert isinstance(made, ListConfig)
    assert made == [1, 0]
    assert type(instantiate([L(Recorder)()])) is list
    found = instantiate(L(Recorder)(a=(1, L(int)(), (2,)))).a
    assert list(found[:2]) == [1, 0]
    assert list(found[2]) == [2]


def test_lists_hold_the_objects_that_were_made():
    # A ListConfig would turn a dataclass and a dict into configs.
    specs, dicts = instantiate(
        [L(Recorder)(a=[L(ShapeSpec)(channels=1)]), L(Recorder)(a=[L(dict)(k=1)])]
    )
    assert isinstance(specs.a[0], ShapeSpec)
    assert type(dicts.a[0]) is dict


def test_other_values_are_kept():
    for value in (5, "s", None, {"k": 1}, torch.nn.ReLU):
        assert instantiate(value) is value
    plain = instantiate(L(Recorder)(a={"k": L(Recorder)()})).a
    assert "_target_" in plain.k


def test_bad_targets(caplog):
    with pytest.raises(ImportError, match=r"no\.such"):
        instantiate({"_target_": "no.such.thing"})
    with pytest.raises(TypeError, match="5, which cannot be called"):
        instantiate({"_target_": 5})
    with pytest.raises(TypeError, match="nope"):
        instantiate(L(ShapeSpec)(nope=3))
    assert "detectron2.layers.ShapeSpec" in caplog.text
    with pytest.raises(TypeError, match="not 5"):
        L(5)
    with pytest.raises(TypeError):
        L(Recorder)(1)


def test_dump_dataclass():
    point = Point(x=3, y=[Point(y=(Point(x=4),)), "a"])
    dumped = dump_dataclass(point)
    assert dumped["y"][0]["y"][0]["x"] == 4
    assert dumped["_target_"].endswith("Point")
    spec = ShapeSpec(channels=2, height=7)
    assert instantiate(dump_dataclass(spec)) == spec
    assert instantiate(L(Recorder)(a=dump_dataclass(spec))).a == spec
    for bad in (Point, {"a": 1}):
        with pytest.raises(TypeError, match="instance of a dataclass"):
            dump_dataclass(bad)
