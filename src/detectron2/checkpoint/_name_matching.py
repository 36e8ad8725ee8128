"""Which tensor of a checkpoint belongs to which of a model, where names agree only at their end."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass
class NameMatch:
    """What :func:`match_names` found."""

    matched: dict[str, str] = field(default_factory=dict)
    """Name in the model -> name in the checkpoint."""

    wrong_shape: dict[str, str] = field(default_factory=dict)
    """Likewise, for those whose shapes differ, so that nothing can be loaded."""


def _ends(name: str) -> Iterator[str]:
    """``a.b.c``, ``b.c``, ``c`` for ``a.b.c``."""
    yield name
    for position, character in enumerate(name):
        if character == ".":
            yield name[position + 1 :]


def match_names(model: Mapping[str, Shape], checkpoint: Mapping[str, Shape]) -> NameMatch:
    """Match by the longest name in the checkpoint that a name in the model ends with.

    A name is an end of another at a dot only: ``conv1.weight`` is one of ``res2.conv1.weight``,
    not of ``my_conv1.weight``.

    Args:
        model: shapes by name.
        checkpoint: shapes by name.

    Raises:
        ValueError: two names in the model would take the same from the checkpoint.
    """
    result = NameMatch()
    takers: dict[str, str] = {}
    for name in sorted(model):
        source = next((end for end in _ends(name) if end in checkpoint), None)
        if source is None:
            continue
        if model[name] != checkpoint[source]:
            result.wrong_shape[name] = source
            continue
        if source in takers:
            raise ValueError(
                f"cannot tell where {source!r} of the checkpoint belongs: both "
                f"{takers[source]!r} and {name!r} of the model end with it"
            )
        takers[source] = name
        result.matched[name] = source
    return result


def common_prefix(names: Iterable[str]) -> str:
    """The longest string that all of ``names`` start with; ``""`` for none."""
    names = sorted(names)
    if not names:
        return ""
    # What the first and the last in order have in common, all between them have.
    first, last = names[0], names[-1]
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differs, len(first))]


def grouped(names: Collection[str]) -> list[str]:
    """Names in short: ``a.{bias,weight}`` for ``a.bias`` and ``a.weight``, sorted."""
    groups = defaultdict(list)
    for name in sorted(names):
        module, dot, last = name.rpartition(".")
        groups[module + dot].append(last)
    return [module + _braced(last) for module, last in groups.items()]


def _braced(endings: list[str]) -> str:
    return endings[0] if len(endings) == 1 else "{" + ",".join(endings) + "}"


def _shortened(names: list[str]) -> str:
    prefix = common_prefix(names)
    return prefix + _braced([name.removeprefix(prefix) for name in names])


def match_table(
    matched: Mapping[str, str], shapes: Mapping[str, Shape], original_names: Mapping[str, str]
) -> str:
    """A table of what was matched, a row a module.

    Args:
        matched: name in the model -> name in the checkpoint.
        shapes: of the model, by name.
        original_names: name in the checkpoint -> name in the file, where that is another.

    Returns:
        Lines of text. Names in the model lack the modules that all of them are in, which the
        first line gives.
    """
    root = common_prefix(matched)
    root = root[: root.rfind(".") + 1]
    modules = defaultdict(list)
    for name in sorted(matched):
        modules[name.rpartition(".")[0]].append(name)
    rows = [("in the model", "in the checkpoint", "shapes")]
    for names in modules.values():
        sources = [original_names.get(matched[name], matched[name]) for name in names]
        sizes = [str(shapes[name]) for name in names]
        rows.append((_shortened(names).removeprefix(root), _shortened(sources), " ".join(sizes)))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    within = f" Names in the model are within {root.removesuffix('.')!r}." if root else ""
    title = f"Matched {len(matched)} names of the model by their ends.{within}"
    return "\n".join([title, *lines])
