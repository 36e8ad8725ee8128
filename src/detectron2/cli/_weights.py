"""Weights of a trained model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.cli._errors import UsageError

# Names that are told of a file and of a model.
_NUM_EXAMPLES = 2


def load_trained(model: nn.Module, path: str) -> None:
    """Load a checkpoint; what it and the model do not share is warned of.

    Raises:
        UsageError: they share nothing, so that all of the model would be random.
    """
    _Checkpointer(model, path).load(path)


class _Checkpointer(DetectionCheckpointer):
    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__(model)
        self._path = path

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        names = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        shapes = incompatible.incorrect_shapes
        lost = {*incompatible.missing_keys, *(name for name, _, _ in shapes)}
        wanted = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        if wanted and lost.issuperset(wanted):
            if shapes:
                name, theirs, ours = min(shapes)
                raise UsageError(
                    f"{self._path} is of a model of other shapes: {name} is {tuple(theirs)} there, "
                    f"{tuple(ours)} in the model, and nothing else fits"
                )
            raise UsageError(
                f"{self._path} is of another model: it holds {_in_short(names)}, and the model has "
                f"{_in_short(wanted)}"
            )
        return incompatible


def _in_short(names: Collection[str]) -> str:
    """``a, b and 7 more``."""
    shown = list(names)[:_NUM_EXAMPLES]
    rest = len(names) - len(shown)
    if not shown:
        return "no weights"
    return f"{', '.join(shown)} and {rest} more" if rest else " and ".join(shown)
