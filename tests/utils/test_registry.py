"""Dotted paths to objects and back."""

import collections
import sys
from pathlib import Path

import pytest
import torch

from detectron2.structures import Boxes
from detectron2.utils.registry import Registry, _convert_target_to_string, locate


class Outer:
    class Inner:
        pass


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("collections.OrderedDict", collections.OrderedDict),
        ("detectron2.structures.boxes.Boxes", Boxes),
        ("detectron2.structures.Boxes.cat", Boxes.cat),
        ("torch.nn.functional.relu", torch.nn.functional.relu),
        ("dict", dict),
        ("builtins.len", len),
        ("collections", collections),
    ],
)
def test_locate(path: str, expected: object) -> None:
    assert locate(path) == expected


def test_locate_imports_submodules() -> None:
    sys.modules.pop("xml.sax.saxutils", None)
    assert locate("xml.sax.saxutils.escape")("<") == "&lt;"


@pytest.mark.parametrize(
    "path", ["", ".", "a.b.c", "torch.nn.Nothing", "torch..nn", "dict.no.thing"]
)
def test_locate_nothing(path: str) -> None:
    with pytest.raises(ImportError, match="cannot locate"):
        locate(path)


def test_error_inside_a_module_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_with_a_broken_import.py").write_text("import absent_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        locate("module_with_a_broken_import.thing")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Boxes, "detectron2.structures.Boxes"),
        (torch.nn.Conv2d, "torch.nn.Conv2d"),
        (torch.nn.functional.relu, "torch.nn.functional.relu"),
        (collections.OrderedDict, "collections.OrderedDict"),
        (Outer.Inner, f"{__name__}.Outer.Inner"),
        (dict, "builtins.dict"),
    ],
)
def test_convert_target_to_string(target: object, expected: str) -> None:
    assert _convert_target_to_string(target) == expected


def test_registry_names_itself_in_errors() -> None:
    registry = Registry("THINGS")
    registry.register(Outer)
    with pytest.raises(KeyError, match="THINGS"):
        registry.get("Nothing")
    with pytest.raises(AssertionError, match="THINGS"):
        registry.register(Outer)
