import ast
import builtins
import logging
import os
import pickle
import threading
from fractions import Fraction

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.config._pseudo_code import to_pseudo_code
from detectron2.layers import ShapeSpec


@pytest.fixture
def tree(write):
    write("lib/common.py", "a = 3\ncfg = dict(x=a, y=dict(z=[1, {'q': 5}]))\n_hidden = dict(h=1)\n")
    write("lib/deep/middle.py", "from ..common import cfg\ncfg.x = 11\nfrom .leaf import leaf\n")
    write("lib/deep/leaf.py", "leaf = dict(file=__file__)\n")
    return write


def test_names_of_a_python_file(tree):
    path = tree(
        "top.py",
        "import os\nfrom omegaconf import OmegaConf\nfrom .lib.common import _hidden, a, cfg\n"
        "cfg.x = a + 10\nextra = dict(k=cfg.y.z[1].q)\nnum = 4.5\nlst = OmegaConf.create([1])\n"
        "def fn():\n    return 1\n",
    )
    cfg = LazyConfig.load(path)
    assert isinstance(cfg, DictConfig)
    assert cfg == {"cfg": {"x": 13, "y": {"z": [1, {"q": 5}]}}, "extra": {"k": 5}, "lst": [1]}
    extra, number = LazyConfig.load(path, ("extra", "num"))
    assert isinstance(extra, DictConfig)
    assert (extra.k, number) == (5, 4.5)
    assert LazyConfig.load(path, "fn")() == 1
    with pytest.raises(KeyError, match="no 'nope', only"):
        LazyConfig.load(path, "nope")


def test_nothing_is_shared_between_imports(tree):
    path = tree(
        "top.py",
        "from .lib.common import cfg as first\nfrom .lib.common import cfg as second\n"
        "from .lib.deep.middle import cfg as third, leaf\nfirst.x = 0\n",
    )
    cfg = LazyConfig.load(path)
    assert (cfg.first.x, cfg.second.x, cfg.third.x) == (0, 3, 11)
    assert cfg.leaf.file.endswith(os.path.join("lib", "deep", "leaf.py"))
    cfg.second.x = 99
    assert LazyConfig.load(path).second.x == 3


def test_star_import(tree):
    path = tree("top.py", "from .lib.common import *\ncfg.y.new = a\n")
    assert LazyConfig.load(path, "cfg").y.new == 3


def test_imports_within_functions_and_future_statements(tree):
    path = tree(
        "top.py",
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n"
        "def late():\n    from .lib.common import a\n    return a\nout = dict(x=Point().x)\n",
    )
    late, out = LazyConfig.load(path, ("late", "out"))
    assert (late(), out.x) == (3, 1)


def test_importing_elsewhere_is_left_alone(tree):
    path = tree("top.py", "import builtins\nseen = dict(same=builtins.__import__.__name__)\n")
    original = builtins.__import__
    assert LazyConfig.load(path).seen.same == "__import__"
    assert builtins.__import__ is original

    slow = tree("slow.py", "import time\ntime.sleep(0.2)\nfrom .lib.common import cfg\n")
    thread = threading.Thread(target=LazyConfig.load, args=(slow,))
    thread.start()
    with pytest.raises(ImportError):
        exec("from .lib.common import cfg", {"__package__": "absent", "__name__": "absent.x"})
    thread.join()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("from .lib import common", "is a folder"),
        ("from . import lib", "imports a whole file"),
        ("from .nothere import x", r"there is no .*nothere\.py"),
        ("from .lib.common import absent", "absent"),
    ],
)
def test_imports_of_other_things(tree, statement, message):
    path = tree("bad.py", statement + "\n")
    with pytest.raises(ImportError, match=message):
        LazyConfig.load(path)


def test_files_that_cannot_be_read(tree, tmp_path):
    with pytest.raises(SyntaxError, match=r"bad\.py"):
        LazyConfig.load(tree("bad.py", "x = = 1\n"))
    with pytest.raises(SyntaxError, match=r"bad\.py"):
        LazyConfig.load(tree("importer.py", "from .bad import x\n"))
    with pytest.raises(FileNotFoundError):
        LazyConfig.load(str(tmp_path / "absent.py"))
    with pytest.raises(ValueError, match=r"x\.json"):
        LazyConfig.load("x.json")


def test_yaml(write, caplog):
    path = write("a.yaml", "p:\n  q: [1, 2]\n  t: !!python/tuple [3, 4]\nr: ${p.q}\n")
    cfg = LazyConfig.load(path)
    assert isinstance(cfg.r, ListConfig)
    assert cfg.r == [1, 2]
    assert list(cfg.p.t) == [3, 4]
    assert LazyConfig.load(path, "p").q == [1, 2]
    assert not caplog.text


def test_circles(write):
    write("sub/b.py", "from ..a import x\n")
    with pytest.raises(ImportError, match=r"circle.*a\.py -> .*b\.py -> .*a\.py"):
        LazyConfig.load(write("a.py", "from .sub.b import x\n"))
    # A function may import later what imports its file.
    write("d.py", "from .c import y\n")
    late = LazyConfig.load(
        write("c.py", "y = 1\ndef f():\n    from .d import y\n    return y\n"), "f"
    )
    assert late() == 1


def test_classes_of_config_files(write, tmp_path, caplog):
    path = write(
        "top.py",
        "import dataclasses\nfrom detectron2.config import LazyCall as L\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n"
        "called = L(Point)(x=3)\nheld = dict(p=Point(x=5))\n",
    )
    cfg = LazyConfig.load(path)
    assert instantiate(cfg.called).x == 3
    assert instantiate(cfg.held.p).x == 5
    text = LazyConfig.to_py(cfg)
    assert text.count("Point(x=") == 2
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    assert "called._target_" in caplog.text
    assert LazyConfig.load(str(tmp_path / "saved.yaml")).called.x == 3


def test_dataclasses_are_saved_with_their_class(tmp_path):
    cfg = OmegaConf.create({"a": ShapeSpec(channels=3), "b": [L(dict)(s=ShapeSpec(height=2))]})
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    loaded = LazyConfig.load(path)
    assert instantiate(loaded.a) == ShapeSpec(channels=3)
    assert instantiate(loaded.b)[0]["s"] == ShapeSpec(height=2)
    assert "cfg.a = detectron2.layers.ShapeSpec(channels=3, height=None" in LazyConfig.to_py(cfg)


def test_load_rel(write):
    path = write(
        "sub/main.py",
        "from detectron2.config import LazyConfig\n"
        "out = LazyConfig.load_rel('../other.py', 'value')\n",
    )
    write("other.py", "value = dict(a=1)\n")
    assert LazyConfig.load(path).out.a == 1
    with pytest.raises(ValueError, match="no file"):
        exec("LazyConfig.load_rel('x.py')", {"LazyConfig": LazyConfig})


def test_files_behind_a_handler_of_the_path_manager(tree, register_prefix):
    register_prefix("lazytest://")
    tree("top.py", "from .lib.deep.middle import cfg\n")
    assert LazyConfig.load("lazytest://top.py").cfg.x == 11


def test_save_and_load(tmp_path, caplog):
    cfg = OmegaConf.create(
        {
            "model": L(ShapeSpec)(channels="${train.n}", stride=2),
            "net": L(torch.nn.Linear)(in_features=4, out_features=2),
            "outer": L(L(torch.nn.ReLU)())(input=1),
            "method": L(Fraction.from_float)(f=L(torch.relu)(input=1)),
            "train": {"n": 9, "lr": 1e-5, "dtype": torch.float16, "act": torch.nn.GELU},
            "tuples": ((1, 2), [3, (4,)]),
            "text": "1e-5",
        },
        flags={"allow_objects": True},
    )
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    assert not caplog.text
    loaded = LazyConfig.load(path)
    assert "trust its source" in caplog.text  # for the dtype and the class
    assert loaded.net._target_ == "torch.nn.Linear"
    assert "${train.n}" in (tmp_path / "saved.yaml").read_text()
    assert loaded.method._target_ == "fractions.Fraction.from_float"
    assert loaded.method.f._target_ == "torch.relu"
    assert instantiate(loaded.model) == ShapeSpec(channels=9, stride=2)
    assert isinstance(instantiate(loaded.net), torch.nn.Linear)
    assert loaded.train.dtype is torch.float16
    assert loaded.train.act is torch.nn.GELU
    assert (loaded.train.lr, loaded.text) == (1e-5, "1e-5")
    before, after = (OmegaConf.to_container(c.tuples) for c in (cfg, loaded))
    assert repr(before) == repr(after)
    assert callable(cfg.net._target_)


def test_save_what_cannot_be_loaded_again(tmp_path, caplog):
    def local():
        return None

    lock = threading.Lock()
    cfg = {"a": {"f": lambda: 1, "lock": lock}, "b": [L(local)(x=1)], "c": 1}
    path = str(tmp_path / "saved.yaml")
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(cfg, path)
    for name in ("a.f", "a.lock", "b.0._target_"):
        assert name in caplog.text
    loaded = LazyConfig.load(path)
    assert loaded.b[0].x == 1
    assert "lambda" in loaded.a.f
    assert loaded.c == 1
    assert "pickle cannot" in caplog.text
    assert not os.path.exists(path + ".pkl")
    del cfg["a"]["lock"]
    LazyConfig.save(cfg, path)
    with open(path + ".pkl", "rb") as file:
        pickled = pickle.load(file)
    assert pickled["a"]["f"]() == 1
    assert pickled["b"][0]["_target_"]() is None
    assert LazyConfig.load(path).c == 1


def test_to_py():
    cfg = OmegaConf.create(
        {
            "net": L(torch.nn.Linear)(in_features=4, out_features="${train.n}"),
            "spec": L(ShapeSpec)(channels=1),
            "train": {"n": 2, "sub": {"k": 'say "v"', "it": "it's"}, "a-b": None, "e": {}},
            "deep": [L(L(torch.nn.ReLU)())(input={"k": [1]}), [True, torch.nn.GELU]],
        },
        flags={"allow_objects": True},
    )
    text = LazyConfig.to_py(cfg)
    assert text.splitlines() == [
        'cfg.deep = [torch.nn.ReLU()(input={"k": [1]}), [True, torch.nn.GELU]]',
        "cfg.net = torch.nn.Linear(in_features=4, out_features=2)",
        "cfg.spec = detectron2.layers.ShapeSpec(channels=1)",
        'cfg.train["a-b"] = None',
        "cfg.train.e = {}",
        "cfg.train.n = 2",
        'cfg.train.sub.it = "it\'s"',
        "cfg.train.sub.k = 'say \"v\"'",
    ]
    # omegaconf has tuples from 2.4 on only.
    assert to_pseudo_code({"t": [(), (1,), (1, 2)]}, "x.") == "x.t = [(), (1,), (1, 2)]\n"
    assert LazyConfig.to_py({"a": {"b": 1}}, prefix="") == "a.b = 1\n"
    assert LazyConfig.to_py({"a": "${absent}", "b": 1}) == 'cfg.a = "${absent}"\ncfg.b = 1\n'


def test_to_py_breaks_long_lines():
    layers = [L(torch.nn.Conv2d)(in_channels=3, out_channels=64, kernel_size=3)] * 2
    text = LazyConfig.to_py({"net": L(torch.nn.Sequential)(layers=layers, name="x" * 60)})
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 88
    assert text.splitlines()[:3] == [
        "cfg.net = torch.nn.Sequential(",
        "    layers=[",
        "        torch.nn.Conv2d(in_channels=3, out_channels=64, kernel_size=3),",
    ]
    net = L(torch.nn.Linear)(in_features=64, out_features=64, device="x" * 30)
    assert LazyConfig.to_py({"net": net}).splitlines() == [
        "cfg.net = torch.nn.Linear(",
        f'    in_features=64, out_features=64, device="{"x" * 30}"',
        ")",
    ]
