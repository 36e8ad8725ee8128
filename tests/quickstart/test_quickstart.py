"""docs/quickstart.md as a user follows it: every command, in order, with the output shown."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("DETECTRON2_NEO_ROOT", Path(__file__).absolute().parents[2]))
_NUMBER = re.compile(r"[-+]?(\d+:)*\d+(\.\d+)?([eE][-+]?\d+)?|\bnan\b")


@dataclass(frozen=True)
class Step:
    """Commands of a shell, and lines of their output."""

    commands: str
    output: list[str]


def read_steps(text: str) -> list[Step]:
    """Each block ``sh``, with the block ``text`` that follows it, if one does before the next."""
    steps: list[Step] = []
    for language, content in re.findall(r"^```(sh|text)\n(.*?)^```$", text, re.M | re.S):
        if language == "sh":
            steps.append(Step(content, []))
        else:
            steps[-1].output.extend(content.splitlines())
    return steps


def without_numbers(line: str) -> str:
    """Times, losses and metrics differ from machine to machine; words do not."""
    return " ".join(_NUMBER.sub("#", line).split())


def missing_line(expected: list[str], output: str) -> str | None:
    """The first expected line that the output has not, in this order; "…" stands for any lines."""
    lines = iter(without_numbers(line) for line in output.splitlines())
    for line in expected:
        if line.strip() not in ("", "…") and without_numbers(line) not in lines:
            return line
    return None


def test_a_missing_line_is_found():
    output = "iter 1  loss 2.5\nnoise\nAP 1.0 AP50 nan\n"
    assert missing_line(["iter 20  loss 0.1", "…", "AP 30.5 AP50 50.2"], output) is None
    assert missing_line(["AP 1 AP50 2", "iter 1  loss 2"], output) == "iter 1  loss 2"
    assert missing_line(["iter 1  loses 2"], output) == "iter 1  loses 2"


@pytest.mark.slow
def test_the_quick_start(commands: Path, tmp_path: Path):
    steps = read_steps((ROOT / "docs" / "quickstart.md").read_text())
    assert len(steps) >= 7
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON") or not os.environ.get("DETECTRON2_WHEEL")
    } | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    for step in steps:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step.commands],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{step.commands}\n{done.stdout}"
        missing = missing_line(step.output, done.stdout)
        assert missing is None, f"{step.commands}\nlacks {missing!r} in\n{done.stdout}"
