"""Set-up of the process from environment variables, seeds, versions and stand-ins."""

import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from detectron2.utils import env
from detectron2.utils.develop import create_dummy_class, create_dummy_func
from detectron2.utils.torch_version_utils import min_torch_version


def run(code, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTRON2_")}
    environment.pop("OPENCV_OPENCL_RUNTIME", None)
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    result = subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True
    )
    return result.stdout.strip() + result.stderr.strip()


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.fixture
def keep_generators(monkeypatch):
    """Put the global generators and the environment back."""
    monkeypatch.setenv("PYTHONHASHSEED", os.environ.get("PYTHONHASHSEED", "random"))
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.mark.usefixtures("keep_generators")
def test_seed_all_rng():
    env.seed_all_rng(7)
    first = draw()
    assert os.environ["PYTHONHASHSEED"] == "7"
    env.seed_all_rng(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    env.seed_all_rng(7)
    assert draw() == first
    env.seed_all_rng(2**40 + 5)  # more than NumPy takes, and than the interpreter
    assert os.environ["PYTHONHASHSEED"] == "5"
    env.seed_all_rng()
    unseeded = draw()
    env.seed_all_rng()
    assert all(a != b for a, b in zip(draw(), unseeded, strict=True))


def test_custom_module_runs_once_at_import(tmp_path):
    module = tmp_path / "custom.py"
    module.write_text("def setup_environment():\n    print('custom set-up')\n")
    code = "import detectron2; detectron2.setup_environment()"
    assert run(code, DETECTRON2_ENV_MODULE=str(module)) == "custom set-up"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert run(code, DETECTRON2_ENV_MODULE="custom", PYTHONPATH=path) == "custom set-up"


def test_custom_module_without_the_function(tmp_path):
    module = tmp_path / "empty.py"
    module.write_text("setup_environment = 3\n")
    with pytest.raises(AttributeError, match=r"empty\.py.*setup_environment"):
        env.setup_custom_environment(str(module))


def test_opencv_settings():
    code = """
        import os, sys
        import detectron2
        print(os.environ.get("OPENCV_OPENCL_RUNTIME"), "cv2" in sys.modules)
    """
    assert run(code) == "disabled False"
    code = """
        import detectron2
        try:
            import cv2
        except ImportError:
            print("no cv2")
    """
    assert run(code, DETECTRON2_DISABLE_CV2="1") == "no cv2"


def test_fixup_module_metadata(monkeypatch):
    class Moved:
        def method(self):
            pass

    Moved.__module__ = Moved.method.__module__ = "detectron2.some.file"
    namespace = {"Moved": Moved, "Foreign": np.ndarray, "_private": 1}
    env.fixup_module_metadata("detectron2.some", namespace)
    assert Moved.__module__ == "detectron2.some.file"
    monkeypatch.setattr(env, "DOC_BUILDING", True)
    env.fixup_module_metadata("detectron2.some", namespace)
    assert Moved.__module__ == Moved.method.__module__ == "detectron2.some"
    assert np.ndarray.__module__ == "numpy"


@pytest.mark.parametrize(
    ("running", "wanted", "expected"),
    [
        ("2.10.0+cu130", "2.9", True),  # not compared as text
        ("2.10.0+cu130", "2.10", True),
        ("2.10.0", "2.10.1", False),
        ("2.11.0.dev20260101", "2.11", True),
        ("2.10.1", "3.0", False),
    ],
)
def test_min_torch_version(monkeypatch, running, wanted, expected):
    monkeypatch.setattr(torch, "__version__", running)
    assert min_torch_version(wanted) is expected


def test_min_torch_version_rejects_nonsense():
    with pytest.raises(ValueError, match="'newest'"):
        min_torch_version("newest")


def test_dummies_raise_on_use_only():
    dummy = create_dummy_class("Fancy", ["lvis", "panopticapi"], "Try another.")
    assert dummy.__name__ == "Fancy"
    message = r"Fancy needs lvis, panopticapi, which cannot be imported\. Try another\."
    with pytest.raises(ImportError, match=message):
        dummy(1, key=2)
    with pytest.raises(ImportError, match="Fancy needs"):
        _ = dummy.from_config
    assert not hasattr(dummy, "__wrapped__")

    function = create_dummy_func("draw", "shapely")
    assert function.__name__ == "draw"
    with pytest.raises(ImportError, match="draw needs shapely"):
        function()
