"""The wheel is the same, byte for byte, when it is built in another folder."""

import os
from pathlib import Path

from nested_bazel import copy_checkout, run_bazel


def test_same_bytes_from_another_folder(tmp_path: Path) -> None:
    wheel = Path(os.environ["DETECTRON2_WHEEL"]).resolve()
    copy_checkout(tmp_path / "elsewhere")
    output = tmp_path / "output"
    # Without the cache of actions: every step runs again.
    run_bazel(tmp_path / "elsewhere", output, "build", "--disk_cache=", "//:wheel")
    [rebuilt] = output.glob(f"execroot/*/bazel-out/*/bin/wheel/{wheel.name}")
    assert rebuilt.read_bytes() == wheel.read_bytes()
