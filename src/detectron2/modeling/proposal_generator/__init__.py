"""Proposal generators."""

from detectron2.modeling.proposal_generator import build, proposal_utils, rpn, rrpn
from detectron2.modeling.proposal_generator.build import (
    PROPOSAL_GENERATOR_REGISTRY,
    build_proposal_generator,
)
from detectron2.modeling.proposal_generator.rpn import (
    RPN,
    RPN_HEAD_REGISTRY,
    StandardRPNHead,
    build_rpn_head,
)

__all__ = [
    "PROPOSAL_GENERATOR_REGISTRY",
    "RPN",
    "RPN_HEAD_REGISTRY",
    "StandardRPNHead",
    "build",
    "build_proposal_generator",
    "build_rpn_head",
    "proposal_utils",
    "rpn",
    "rrpn",
]
