"""Configurations that differ from the defaults in what the solver reads."""

from detectron2.config import CfgNode, get_cfg


def config(clip=None, **solver) -> CfgNode:
    """``clip`` are keys of SOLVER.CLIP_GRADIENTS, which it enables; the others are SOLVER's."""
    cfg = get_cfg()
    cfg.SOLVER.update(solver)
    if clip is not None:
        cfg.SOLVER.CLIP_GRADIENTS.update(clip, ENABLED=True)
    return cfg
