"""Another workspace depends on this one as an external repository."""

from collections.abc import Callable
from pathlib import Path


def test_consumer_workspace(checkout: Path, run_bazel: Callable[..., Path]) -> None:
    run_bazel(checkout / "tests/consumer", "test", "//...")
