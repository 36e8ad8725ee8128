"""Configuration keys of DeepLab."""

from detectron2.config import CfgNode

__all__ = ["add_deeplab_config"]


def add_deeplab_config(cfg: CfgNode) -> None:
    """Add DeepLab's keys, with their defaults, in place."""
    # A random crop is drawn again while one class covers more of it than this.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0

    cfg.SOLVER.POLY_LR_POWER = 0.9
    # Fraction of the base learning rate below which it does not fall; 0: none.
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0

    resnets = cfg.MODEL.RESNETS
    resnets.STEM_TYPE = "deeplab"
    resnets.RES4_DILATION = 1
    # Of each block of res5, times RES5_DILATION.
    resnets.RES5_MULTI_GRID = [1, 2, 4]

    head = cfg.MODEL.SEM_SEG_HEAD
    head.LOSS_TYPE = "hard_pixel_mining"
    # Features that the decoder takes besides the coarsest one, and channels each is reduced to.
    head.PROJECT_FEATURES = ["res2"]
    head.PROJECT_CHANNELS = [48]
    head.ASPP_CHANNELS = 256
    head.ASPP_DILATIONS = [6, 12, 18]
    head.ASPP_DROPOUT = 0.1
    head.USE_DEPTHWISE_SEPARABLE_CONV = False
