"""The wheel is the same, byte for byte, when it is built in another folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def test_same_bytes_from_another_folder(
    copied_checkout: Path, run_bazel: Callable[..., Path]
) -> None:
    if "DETECTRON2_WHEEL" not in os.environ:
        pytest.skip("DETECTRON2_WHEEL is not set")
    wheel = Path(os.environ["DETECTRON2_WHEEL"]).absolute()
    # Without the cache of actions: every step runs again.
    output_base = run_bazel(copied_checkout, "build", "--disk_cache=", "//:wheel")
    [rebuilt] = output_base.glob(f"execroot/*/bazel-out/*/bin/wheel/{wheel.name}")
    assert rebuilt.read_bytes() == wheel.read_bytes()
