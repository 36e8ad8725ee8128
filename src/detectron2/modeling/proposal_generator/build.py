"""Proposal generators by name."""

from torch import nn

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

__all__ = ["PROPOSAL_GENERATOR_REGISTRY", "build_proposal_generator"]

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")
PROPOSAL_GENERATOR_REGISTRY.__doc__ = """
Modules that propose where objects may be, called with ``(cfg, input_shape: dict[str, ShapeSpec])``.
They take images, features and, in training, ground truth, and give proposals and losses.
"""


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module | None:
    """The generator that ``cfg.MODEL.PROPOSAL_GENERATOR.NAME`` names; None for
    ``"PrecomputedProposals"``, which come with the data."""
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name == "PrecomputedProposals":
        return None
    return PROPOSAL_GENERATOR_REGISTRY.get(name)(cfg, input_shape)
