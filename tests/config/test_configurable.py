import functools

import pytest
from omegaconf import OmegaConf

from detectron2.config import configurable, get_cfg


class Layer:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, extra=0):
        return {"a": cfg.SEED + extra, "b": 10}


class OverriddenFromConfig(Layer):
    @classmethod
    def from_config(cls, cfg):
        return {"a": "sub", "b": 1}


class TakesAnything(Layer):
    @classmethod
    def from_config(cls, cfg, *args, **kwargs):
        return {"a": args, "b": kwargs}


class ConfigurableWithCall(Layer):
    @configurable()
    def __init__(self, d, **kwargs):
        super().__init__(**kwargs)
        self.d = d

    @classmethod
    def from_config(cls, cfg, d):
        return {"d": d, **super().from_config(cfg)}


@configurable(from_config=lambda cfg, x, y=4: {"p": cfg.SEED, "q": x + y})
def function(p, q=0):
    """Adds nothing."""
    return p, q


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.SEED = 5
    return cfg


def test_explicit_arguments():
    assert Layer(1).values == (1, 2, 3)
    assert Layer(1, b=4, c=5).values == (1, 4, 5)
    assert function(1, q=2) == (1, 2)


def test_config(cfg):
    assert Layer(cfg).values == (5, 10, 3)
    assert Layer(cfg=cfg).values == (5, 10, 3)
    assert Layer(cfg, 100).values == (105, 10, 3)
    assert Layer(cfg, extra=1, c=9, b=8).values == (6, 8, 9)
    assert Layer(OmegaConf.create({"SEED": 7})).values == (7, 10, 3)


def test_a_dict_is_no_config():
    assert Layer({"SEED": 7}).values == ({"SEED": 7}, 2, 3)


def test_subclasses(cfg):
    assert OverriddenFromConfig(cfg).values == ("sub", 1, 3)
    assert TakesAnything(cfg, 1, c=2).values == ((1,), {"c": 2}, 3)
    layer = ConfigurableWithCall(cfg, d=1, c=2)
    assert (layer.d, layer.values) == (1, (5, 10, 2))
    assert ConfigurableWithCall(d=1, a=2).values == (2, 2, 3)


def test_function(cfg):
    assert function(cfg, 3) == (5, 7)
    assert function(cfg=cfg, x=1, q=0) == (5, 0)
    assert function.__doc__ == "Adds nothing."
    assert function.from_config(cfg, 1) == {"p": 5, "q": 5}


def test_what_cannot_be_configurable(cfg):
    class Without:
        @configurable
        def __init__(self, a):
            pass

    class NoClassmethod(Without):
        def from_config(self, cfg):
            return {}

    class OtherName(Without):
        @classmethod
        def from_config(cls, config):
            return {}

    with pytest.raises(AttributeError, match="Without"):
        Without(a=1)
    with pytest.raises(TypeError, match="classmethod"):
        NoClassmethod(a=1)
    with pytest.raises(TypeError, match="should be cfg"):
        OtherName(cfg)
    for bad in (3, len, lambda cfg: None):
        with pytest.raises(TypeError, match="configurable decorates"):
            configurable(bad)
    with pytest.raises(TypeError, match="should be a function"):
        configurable(from_config=functools.partial(int))
