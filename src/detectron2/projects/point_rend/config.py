"""Configuration keys of PointRend."""

from detectron2.config import CfgNode

__all__ = ["add_pointrend_config"]


def add_pointrend_config(cfg: CfgNode) -> None:
    """Add PointRend's keys, with their defaults, in place."""
    # A random crop is drawn again while one class covers more of it than this.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    cfg.INPUT.COLOR_AUG_SSD = False

    # The head of coarse masks.
    mask_head = cfg.MODEL.ROI_MASK_HEAD
    mask_head.IN_FEATURES = ("p2",)
    mask_head.FC_DIM = 1024
    mask_head.NUM_FC = 2
    mask_head.OUTPUT_SIDE_RESOLUTION = 7
    mask_head.POINT_HEAD_ON = False

    cfg.MODEL.POINT_HEAD = CfgNode(
        {
            "NAME": "StandardPointHead",
            "NUM_CLASSES": 80,
            "IN_FEATURES": ("p2",),
            # Points of an instance, or of an image, in training: of OVERSAMPLE_RATIO times as many
            # the most uncertain ones, IMPORTANCE_SAMPLE_RATIO of all; the others anywhere.
            "TRAIN_NUM_POINTS": 14 * 14,
            "OVERSAMPLE_RATIO": 3,
            "IMPORTANCE_SAMPLE_RATIO": 0.75,
            # Doublings of the resolution at test time, and points predicted in each.
            "SUBDIVISION_STEPS": 3,
            "SUBDIVISION_NUM_POINTS": 28 * 28,
            "FC_DIM": 256,
            "NUM_FC": 3,
            "CLS_AGNOSTIC_MASK": False,
            # Give the coarse prediction to every layer, not only to the first.
            "COARSE_PRED_EACH_LAYER": True,
            "COARSE_SEM_SEG_HEAD_NAME": "SemSegFPNHead",
        }
    )
    cfg.MODEL.IMPLICIT_POINTREND = CfgNode(
        {
            "IMAGE_FEATURE_ENABLED": True,
            "POS_ENC_ENABLED": True,
            "PARAMS_L2_REGULARIZER": 1e-5,
        }
    )
