"""Another workspace depends on this one as an external repository."""

from pathlib import Path

from nested_bazel import CHECKOUT, run_bazel


def test_consumer_workspace(tmp_path: Path) -> None:
    run_bazel(CHECKOUT / "tests/consumer", tmp_path / "output", "test", "//...")
