"""Writes the API reference, one Markdown file, from the docstrings in the source.

    python docs/generate_api.py --package src/detectron2 --out api.md

Nothing is imported. A module's public names are those of its ``__all__``, or what it defines
without an underscore; what another module defines is described where it is public first.
"""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Module:
    """A parsed module."""

    name: str
    tree: ast.Module

    @property
    def is_public(self) -> bool:
        """Whether no part of the name begins with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    def definitions(self) -> dict[str, Definition]:
        """Classes and functions of the module, by name."""
        return {n.name: n for n in self.tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}

    def imports(self) -> dict[str, tuple[str, str]]:
        """Names that come from other modules: name → (module, name there)."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def public_names(self) -> list[str]:
        """In the order of the source."""
        for node in self.tree.body:
            is_all = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            if is_all and node.targets[0].id == "__all__":
                try:
                    return list(ast.literal_eval(node.value))
                except ValueError:
                    break
        return [name for name in self.definitions() if not name.startswith("_")]


class Package:
    """All modules below a folder."""

    def __init__(self, folder: Path) -> None:
        self._modules: dict[str, Module] = {}
        for file in sorted(folder.rglob("*.py")):
            parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            # The configurations of the model zoo are data.
            if ".configs" not in name:
                self._modules[name] = Module(name, ast.parse(file.read_text()))

    def public_modules(self) -> Iterator[Module]:
        """In alphabetical order."""
        return (module for _, module in sorted(self._modules.items()) if module.is_public)

    def home(self, module: Module, name: str) -> tuple[Module, Definition] | None:
        """The module that defines a name, and the definition; None for what is no class or
        function of this package."""
        for _ in range(len(self._modules)):
            if name in module.definitions():
                return module, module.definitions()[name]
            source, name = module.imports().get(name, ("", name))
            if source not in self._modules:
                return None
            module = self._modules[source]
        return None


def signature(node: ast.FunctionDef, *, is_method: bool = False) -> str:
    """``name(arguments) -> type``, without ``self`` and ``cls``."""
    arguments = ast.parse("def f(): ...").body[0].args
    for field in arguments._fields:
        setattr(arguments, field, getattr(node.args, field))
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    if is_method and not is_static:
        positional = arguments.posonlyargs + arguments.args
        arguments.posonlyargs, arguments.args = [], positional[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({ast.unparse(arguments)}){returns}"


def _is_property(node: ast.FunctionDef) -> bool:
    return any(
        isinstance(d, ast.Name) and d.id in ("property", "cached_property")
        for d in node.decorator_list
    )


def _is_setter(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)


def _doc(node: ast.AST) -> str:
    text = ast.get_docstring(node) or ""
    return f"```text\n{inspect.cleandoc(text)}\n```\n" if text else ""


def describe(name: str, node: Definition) -> str:
    """The entry of a class, with its public methods, or of a function."""
    if isinstance(node, ast.FunctionDef):
        return f"### {name}\n\n`{signature(node)}`\n\n{_doc(node)}"
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    parts = [f"### class {name}" + (f"({bases})" if bases else "") + f"\n\n{_doc(node)}"]
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or _is_setter(method):
            continue
        if method.name.startswith("_") and method.name not in ("__init__", "__call__"):
            continue
        head = method.name if _is_property(method) else signature(method, is_method=True)
        parts.append(f"`{node.name}.{head}`\n\n{_doc(method)}")
    return "\n".join(parts)


def generate(folder: Path) -> str:
    """The text of the reference.

    Args:
        folder: of the package, such as src/detectron2.
    """
    package = Package(folder)
    described: dict[tuple[str, str], str] = {}
    lines = ["# API reference\n"]
    for module in package.public_modules():
        entries = []
        for name in module.public_names():
            found = package.home(module, name)
            if found is None:
                continue
            home, node = found
            # What is public where it is defined is described there, once.
            place = home.name if home.is_public and name in home.public_names() else module.name
            place = described.setdefault((home.name, node.name), place)
            if place == module.name:
                entries.append(describe(name, node))
            else:
                entries.append(f"### {name}\n\nSee `{place}.{node.name}`.\n")
        doc = ast.get_docstring(module.tree) or ""
        if entries or doc:
            lines.append(f"## {module.name}\n\n{doc}\n")
            lines += entries
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="folder of the package")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args()
    options.out.write_text(generate(options.package))


if __name__ == "__main__":
    main()
