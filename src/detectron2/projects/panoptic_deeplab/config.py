"""Configuration keys of Panoptic-DeepLab."""

from detectron2.config import CfgNode
from detectron2.projects.deeplab.config import add_deeplab_config

__all__ = ["add_deeplab_config", "add_panoptic_deeplab_config"]


def add_panoptic_deeplab_config(cfg: CfgNode) -> None:
    """Add Panoptic-DeepLab's keys and those of DeepLab, with their defaults, in place."""
    add_deeplab_config(cfg)

    targets = {
        "GAUSSIAN_SIGMA": 10,
        "IGNORE_CROWD_IN_SEMANTIC": False,
        "IGNORE_STUFF_IN_OFFSET": True,
        "SMALL_INSTANCE_AREA": 4096,
        "SMALL_INSTANCE_WEIGHT": 3,
    }
    semantic = {
        "HEAD_CHANNELS": 256,
        # Fraction of the pixels, of the largest losses, that "hard_pixel_mining" averages over.
        "LOSS_TOP_K": 0.2,
    }
    for node, values in (
        (cfg.INPUT, targets),
        (cfg.MODEL.SEM_SEG_HEAD, semantic),
        (cfg.SOLVER, {"OPTIMIZER": "ADAM"}),
    ):
        node.update(values)

    cfg.MODEL.INS_EMBED_HEAD = CfgNode(
        {
            "NAME": "PanopticDeepLabInsEmbedHead",
            "IN_FEATURES": ["res2", "res3", "res5"],
            "PROJECT_FEATURES": ["res2", "res3"],
            "PROJECT_CHANNELS": [32, 64],
            "ASPP_CHANNELS": 256,
            "ASPP_DILATIONS": [6, 12, 18],
            "ASPP_DROPOUT": 0.1,
            "HEAD_CHANNELS": 32,
            "CONVS_DIM": 128,
            "COMMON_STRIDE": 4,
            "NORM": "SyncBN",
            "CENTER_LOSS_WEIGHT": 200.0,
            "OFFSET_LOSS_WEIGHT": 0.01,
        }
    )
    cfg.MODEL.PANOPTIC_DEEPLAB = CfgNode(
        {
            # Segments of stuff of fewer pixels are left out.
            "STUFF_AREA": 2048,
            "CENTER_THRESHOLD": 0.1,
            "NMS_KERNEL": 7,
            "TOP_K_INSTANCE": 200,
            # Whether the output has "instances", too.
            "PREDICT_INSTANCES": True,
            "USE_DEPTHWISE_SEPARABLE_CONV": False,
            # What the sides of the padded images are multiples of; the backbone's if not positive.
            "SIZE_DIVISIBILITY": -1,
            # Leave out the post-processing, and return nothing.
            "BENCHMARK_NETWORK_SPEED": False,
        }
    )
