"""Writes configuration.md's tables from the source of the defaults.

    python docs/generate_configuration.py [--package src/detectron2] [--out docs/configuration.md]

A key's meaning is the comment above it in detectron2/config/_default_*.py.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = """\
# Configuration

Every key of a `CfgNode` configuration, with its default. The file is generated:
`python docs/generate_configuration.py` writes it from the source of the defaults.

A YAML file, or `KEY=VALUE` on the command line, changes keys that exist and keeps their types. A
file that names another as `_BASE_` starts from that one. In Python:

```python
from detectron2.config import get_cfg

cfg = get_cfg()
cfg.merge_from_file("config.yaml")
cfg.SOLVER.BASE_LR = 0.01
```

Lazy configurations (`.py` files) have no keys of their own: what can be set is what the functions
and classes that they name take. `detectron2 info --models` lists the configurations of the model
zoo.

[howto.md](howto.md#write-a-configuration) shows how to write one, also with keys of your own.
"""


@dataclass(frozen=True)
class Key:
    """A key of the configuration: dotted name, default as in the source, and meaning."""

    name: str
    default: str
    meaning: str


class Defaults:
    """The dictionaries of defaults in a folder of Python files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: dict[str, tuple[ast.Module, list[str]]] = {}

    def keys(self) -> tuple[list[Key], list[Key]]:
        """The keys that every configuration has, and those that are hidden until they are set."""
        tree, _ = self._source("defaults")
        trees = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        (root,) = [c for c in trees if isinstance(c.func, ast.Name) and c.func.id == "CN"]
        (loop,) = [node for node in tree.body if isinstance(node, ast.For)]
        optional = loop.iter.func.value
        return (
            list(self._keys(root.args[0], "defaults", "")),
            list(self._keys(optional, "defaults", "")),
        )

    def _source(self, module: str) -> tuple[ast.Module, list[str]]:
        if module not in self._sources:
            text = (self._folder / f"{module}.py").read_text()
            self._sources[module] = ast.parse(text), text.splitlines()
        return self._sources[module]

    def _keys(self, node: ast.Dict, module: str, prefix: str, inherited: str = "") -> Iterator[Key]:
        lines = self._source(module)[1]
        for key, value in zip(node.keys, node.values, strict=True):
            name = f"{prefix}{key.value}"
            # Of a section on one line, its first key has the section's comment.
            meaning = _comment_above(lines, key.lineno) or inherited
            inherited = ""
            dictionary, home = self._resolved(value, module)
            if dictionary is None:
                yield Key(name, ast.unparse(value), meaning)
            else:
                yield from self._keys(dictionary, home, f"{name}.", meaning)

    def _resolved(self, value: ast.expr, module: str) -> tuple[ast.Dict | None, str]:
        if isinstance(value, ast.Dict):
            return value, module
        if isinstance(value, ast.Name):
            return self._variable(value.id, module), module
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            home = self._alias(value.value.id, module)
            return self._variable(value.attr, home), home
        return None, module

    def _variable(self, name: str, module: str) -> ast.Dict:
        (found,) = [
            node.value
            for node in self._source(module)[0].body
            if isinstance(node, ast.Assign) and node.targets[0].id == name
        ]
        return found

    def _alias(self, alias: str, module: str) -> str:
        (found,) = [
            name.name
            for node in self._source(module)[0].body
            if isinstance(node, ast.ImportFrom)
            for name in node.names
            if name.asname == alias
        ]
        return found


def _comment_above(lines: list[str], line_number: int) -> str:
    """The comment that ends above a line (numbered from 1), without its signs."""
    parts: list[str] = []
    index = line_number - 2
    while index >= 0 and lines[index].lstrip().startswith("#"):
        parts.insert(0, lines[index].strip().removeprefix("#").strip())
        index -= 1
    return " ".join(parts)


def _section(name: str) -> str:
    """The heading that a key stands under: MODEL.RPN, SOLVER; of top-level keys none."""
    parts = name.split(".")[:-1]
    return ".".join(parts[: 2 if parts[:1] == ["MODEL"] else 1])


def _table(keys: list[Key]) -> list[str]:
    rows = [
        f"| `{key.name}` | `{key.default}` | {key.meaning.replace('|', chr(92) + '|')} |"
        for key in keys
    ]
    return ["| Key | Default | Meaning |", "| --- | --- | --- |", *rows]


def generate(folder: Path) -> str:
    """The text of configuration.md.

    Args:
        folder: that of the package detectron2.config.
    """
    keys, optional = Defaults(folder).keys()
    sections: dict[str, list[Key]] = {}
    for key in keys:
        sections.setdefault(_section(key.name), []).append(key)
    lines = [HEADER]
    for name in sorted(sections, key=lambda name: (name != "", list(sections).index(name))):
        lines += [f"## {name or 'Top level'}", "", *_table(sections[name]), ""]
    lines += [
        "## Hidden until they are set",
        "",
        "Upstream does not have these, or has no default for them.",
        "",
        *_table(optional),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=root / "src" / "detectron2")
    parser.add_argument("--out", type=Path, default=root / "docs" / "configuration.md")
    options = parser.parse_args()
    options.out.write_text(generate(options.package / "config"))


if __name__ == "__main__":
    main()
