"""Arguments, help, errors and exit statuses of ``detectron2``."""

import os
import re
import subprocess
import sys

import pytest

import detectron2
from detectron2.cli import main
from detectron2.cli._errors import UsageError, one_line
from detectron2.cli._main import COMMANDS, parse
from detectron2.data.shapes import SHAPE_CLASSES


def test_help_does_not_import_torch():
    code = """
import contextlib, sys
from detectron2.cli import main
for arguments in (["--help"], ["train", "--help"], ["--version"]):
    with contextlib.suppress(SystemExit):
        main(arguments)
print("heavy:", *({"torch", "numpy", "PIL", "omegaconf", "fvcore"} & set(sys.modules)))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.startswith("usage: detectron2")
    assert f"detectron2-neo {detectron2.__version__}" in output
    assert output.splitlines()[-1].strip() == "heavy:"


def test_python_m_runs_it():
    command = [sys.executable, "-m", "detectron2", "--version"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output == f"detectron2-neo {detectron2.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(run, command):
    outcome = run(command, "--help")
    assert outcome.status == 0
    examples = outcome.out.partition("examples:\n")[2].replace("\\\n", " ")
    lines = [line for line in examples.splitlines() if re.match(r" +detectron2 ", line)]
    assert lines
    for line in lines:
        words = line.partition("   #")[0].split()
        assert parse(words[1:]).command == command


@pytest.mark.parametrize(
    "command", [(name,) for name in COMMANDS] + [("data", x) for x in ("check", "show", "shapes")]
)
def test_help_tells_about_every_option(run, command):
    options = run(*command, "--help").out.partition("options:\n")[2].partition("examples:")[0]
    entries = re.findall(r"^  (--\S.*(?:\n {4,}.*)*)", options, flags=re.M)
    assert entries
    for entry in entries:
        assert re.search(r"\s{2,}\S", entry), entry


def test_help_names_the_classes_of_shapes(run):
    text = " ".join(run("data", "shapes", "--help").out.split())
    assert f"some of {', '.join(SHAPE_CLASSES)} (default: all)" in text


def test_overrides_stand_anywhere():
    args = parse(["train", "A.B=1", "--config", "x.yaml", "C=2", "--num-gpus", "2", "D=(1, 2)"])
    assert sorted(args.overrides) == ["A.B=1", "C=2", "D=(1, 2)"]
    assert args.num_gpus == 2
    assert parse(["train", "--config-file", "x.yaml"]).config == "x.yaml"
    args = parse(["predict", "a.jpg", "--config", "x", "--out", "y", "A=1"])
    assert args.overrides == ["A=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is needed"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "required: --config"),
        (["train", "--config", "x", "--gpus", "2"], "unknown arguments: --gpus"),
        (["info", "A=1"], "unknown arguments: A=1"),
        (["data", "check", "no_such_set"], "no_such_set"),
        (["data", "show", "coco_2017_trian", "--out", "x"], "did you mean coco_2017_train"),
        (["data", "show", "x", "--dataset", "x", "--out", "y"], "write NAME=PATH"),
        (["data", "show", "x", "--dataset", "x=no.json", "--out", "y"], "there is no no.json"),
        (["train", "--config", "no.yaml"], "no such file, and 'no.yaml' is not in the model zoo"),
        (["train", "--config", __file__ + "x"], "no such file"),
        (["train", "--config", "x", "--import", "no_such_module"], "No module named"),
        (["predict", "no.jpg", "--config", "x", "--out", "y"], "there is no no.jpg"),
        (["predict", "A=1", "--config", "x", "--out", "y"], "no images to predict for"),
        (["benchmark", "infer", "--config", "x", "--batch", "0"], "--batch 0 must be positive"),
        (["export", "--config", "x", "--out", "x.onnx", "--format", "aoti"], "ends in .pt2"),
        (["export", "--config", "x", "--out", f"{__file__}/x"], f"--out {__file__}: File exists"),
        (["eval", "--config", "x", "--results", os.path.dirname(__file__)], "is a folder"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(run, arguments, message):
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert re.match(r"detectron2( \w+)*: error: ", outcome.err)


def test_traceback_is_shown_if_asked_for(run):
    with pytest.raises(UsageError, match="no such file"):
        run("train", "--config", "no.yaml", "--traceback")
    with pytest.raises(UsageError, match="no_such_set"):
        run("data", "check", "no_such_set", "--traceback")


def test_one_process_of_torchrun_speaks(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        outcome = run("train", "--help")
        assert (outcome.status, bool(outcome.out)) == (0, rank == "0")
        for arguments in (["train"], ["train", "--config", "no.yaml"], ["info", "--no-test"]):
            outcome = run(*arguments)
            assert (outcome.status, bool(outcome.err)) == (2, rank == "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "info runs in one process, but torchrun has started 2" in run("info").err


def test_other_errors_have_status_1(run, monkeypatch):
    def fail(*_):
        raise TypeError("first line\n  second line")

    monkeypatch.setattr("detectron2.cli.info._print_models", fail)
    outcome = run("info", "--models")
    assert outcome.status == 1
    assert outcome.err == "detectron2 info: error: TypeError: first line second line\n"


def test_interruption_has_status_130(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("detectron2.cli.info._print_models", interrupt)
    assert run("info", "--models").status == 130


def test_errors_as_one_line():
    assert one_line(ValueError("a\n\n b")) == "a b"
    assert one_line(KeyError("a 'b'")) == "a 'b'"
    assert one_line(AttributeError("no x")) == "AttributeError: no x"
    assert one_line(AssertionError()) == "AssertionError"


def test_a_reader_that_stops_reading():
    command = f"{sys.executable} -m detectron2 info --models | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "Error" not in done.stderr


def test_models_of_the_zoo(run):
    outcome = run("info", "--models", "keypoint_rcnn_R_50_FPN_3x")
    assert outcome.out == "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml  (trained weights)\n"
    assert len(run("info", "--models").out.splitlines()) > 80


def test_main_is_what_the_wheel_starts():
    assert main(["info", "--models", "no such model"]) == 0
