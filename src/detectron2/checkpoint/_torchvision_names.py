"""From the names of torchvision's ResNets to those of ResNets here."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_FIRST_BLOCK = "layer1.0.conv1.weight"


def are_of_torchvision(names: Iterable[str]) -> bool:
    """Whether these are names of a ResNet of torchvision, alone or within a model."""
    return any(f".{name}".endswith(f".{_FIRST_BLOCK}") for name in names)


def is_torchvision_resnet(weights: Mapping[str, Any]) -> bool:
    """Whether these are the weights of a ResNet of torchvision, and nothing else."""
    return _FIRST_BLOCK in weights


def from_torchvision(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a ResNet by the ends of their names here.

    ``layer1.0.downsample.1.bias`` becomes ``res2.0.shortcut.norm.bias``. The number of batches
    that a norm has seen is left out.
    """
    return {
        _backbone_name(name): value
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def _backbone_name(name: str) -> str:
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"^layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", name)
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    name = name.replace("downsample.0", "shortcut")
    return name.replace("downsample.1", "shortcut.norm")
