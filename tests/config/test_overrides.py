import math

import pytest
from omegaconf import OmegaConf

from detectron2.config import LazyCall, LazyConfig
from detectron2.config._overrides import parse_override


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1_000", -1000),
        ("+3", 3),
        ("007", "007"),
        ("1.5", 1.5),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("-2.", -2.0),
        ("1_0.5E+2", 1050.0),
        ("inf", math.inf),
        ("-Inf", -math.inf),
        ("true", True),
        ("False", False),
        ("NULL", None),
        ("", ""),
        ("abc", "abc"),
        ("  a b  ", "a b"),
        ("a/b-c.d:e=f%@?|*&", "a/b-c.d:e=f%@?|*&"),
        ("detectron2://x/y.pkl", "detectron2://x/y.pkl"),
        (r"a\,b\=\[c\]\(\)", "a,b=[c]()"),
        (r"\ a\ ", " a "),
        (r"1\ ", "1 "),
        (r"c:\d", r"c:\d"),
        ("'1'", "1"),
        ('"a, b"', "a, b"),
        (r"'it\'s'", "it's"),
        (r"'a\\'", "a\\"),
        (r"'\d\\n'", r"\d\\n"),
        ("''", ""),
        ("[]", []),
        ("[1, 2.5,a b,'c,d',[null,{}]]", [1, 2.5, "a b", "c,d", [None, {}]]),
        ("{a:1, 'b c': [x], 3:true,d:{e:}}", {"a": 1, "b c": ["x"], 3: True, "d": {"e": ""}}),
        ("{a:b:c}", {"a": "b:c"}),
        ("${a.b}", "${a.b}"),
        ("[${a},x${f:1,2}y]", ["${a}", "x${f:1,2}y"]),
        ("${f:{a:[1]}}", "${f:{a:[1]}}"),
        ("int(3.7)", 3),
        ("float( '1' )", 1.0),
        ("bool(False)", False),
        ("str([1,null])", ["1", "null"]),
        ("str(true)", "true"),
        ("int({a:'5'})", {"a": 5}),
        ("json_str({a:[1,null]})", '{"a": [1, null]}'),
    ],
)
def test_values(text, value):
    sign, key, parsed = parse_override(f"a.b={text}")
    assert (sign, key) == ("", "a.b")
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan():
    assert math.isnan(parse_override("a=nan")[2])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=1", ("", "a", 1)),
        (" a =1", ("", "a", 1)),
        ("+a.b=1", ("+", "a.b", 1)),
        ("++a=1", ("++", "a", 1)),
        ("~a", ("~", "a", None)),
        ("a.0.b=1", ("", "a.0.b", 1)),
        ("a[0].b=1", ("", "a[0].b", 1)),
        ("a-b.$c=1", ("", "a-b.$c", 1)),
    ],
)
def test_keys(text, parsed):
    assert parse_override(text) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "no '='"),
        ("=1", "no key"),
        ("a..b=1", "no key"),
        ("db@x=1", "no key"),
        ("a=1,2", "sweep"),
        ("a=[1", "','"),
        ("a=[1 2", "','"),
        ("a=[,]", "missing"),
        ("a={b}", "':'"),
        ("a={[1]:2}", "key"),
        ("a='b", "no closing"),
        ("a=it's", "quotes"),
        ("a=[1]2", "unexpected"),
        ("a=x[0]", "quotes"),
        ("a=${b", "not closed"),
        ("a=choice(1)", "choice is not supported"),
        ("a=int(x)", "invalid literal"),
        ("a=bool(x)", "no bool"),
        ("a=int(1", r"'\)'"),
    ],
)
def test_bad_overrides(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_override(text)
    assert repr(text) in str(error.value)


@pytest.fixture
def cfg():
    return OmegaConf.create(
        {"train": {"lr": 0.1, "steps": [1, 2], "opt": {"k": 1}}, "lst": [{"v": 1}], "none": None},
        flags={"allow_objects": True},
    )


def test_apply(cfg):
    cfg.model = LazyCall(dict)(depth=1)
    overrides = [
        "train.lr=0.5",
        "train.steps=[3,4,5]",
        "train.opt={new: 2}",
        "train.opt.k=null",
        "lst.0.v=3",
        "model.depth=${train.steps.1}",
        "+other.x.y=a",
        "none.now=1",
    ]
    assert LazyConfig.apply_overrides(cfg, overrides) is cfg
    assert OmegaConf.to_container(cfg, resolve=True) == {
        "train": {"lr": 0.5, "steps": [3, 4, 5], "opt": {"k": None, "new": 2}},
        "lst": [{"v": 3}],
        "model": {"_target_": "builtins.dict", "depth": 4},
        "other": {"x": {"y": "a"}},
        "none": {"now": 1},
    }


def test_apply_with_brackets(cfg):
    LazyConfig.apply_overrides(cfg, ["lst[0].v=7", "lst[0].w.x=8"])
    assert cfg.lst == [{"v": 7, "w": {"x": 8}}]


@pytest.mark.parametrize("override", ["train.lr.x=3", "train.lr.x.y=3", "train.steps.0.x=1"])
def test_what_is_no_config_has_no_keys(cfg, override):
    with pytest.raises(KeyError, match="has no keys"):
        LazyConfig.apply_overrides(cfg, [override])


def test_deletion(cfg):
    with pytest.raises(NotImplementedError, match="~train"):
        LazyConfig.apply_overrides(cfg, ["~train.lr"])
