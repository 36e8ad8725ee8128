"""What a user is told about tensors that were not loaded."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import nn

from detectron2.checkpoint._name_matching import grouped


def messages(model: nn.Module, incompatible: Any) -> list[str]:
    """A message for each reason not to load a tensor that there is.

    Args:
        model: what was loaded into.
        incompatible: what loading left: ``missing_keys``, ``unexpected_keys``, and
            ``incorrect_shapes``, a list of (name, shape in the checkpoint, shape in the model).
    """
    shapes = [
        f"{name}: {tuple(theirs)} in the checkpoint, {tuple(ours)} in the model"
        for name, theirs, ours in sorted(incompatible.incorrect_shapes)
    ]
    others = set(incompatible.missing_keys) - {name for name, _, _ in incompatible.incorrect_shapes}
    missing = _without_aliases(model, others)
    unused = incompatible.unexpected_keys
    found = [
        ("Not loaded, as the shapes differ", len(shapes), shapes),
        ("Not loaded, as the checkpoint has nothing for them", len(missing), grouped(missing)),
        ("Not used, as the model has nothing for them", len(unused), grouped(unused)),
    ]
    return [
        "\n  ".join([f"{reason} ({number}):", *lines]) for reason, number, lines in found if number
    ]


def _without_aliases(model: nn.Module, missing: Iterable[str]) -> list[str]:
    """``missing`` less the names of tensors that were loaded under another of their names."""
    missing = list(missing)
    aliases = defaultdict(set)
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            aliases[id(tensor)].add(name)
    loaded = {name for names in aliases.values() if names - set(missing) for name in names}
    return [name for name in missing if name not in loaded]
