"""RoI heads of configurations and checkpoints from before the mask head had its points."""

import logging
from typing import Any

import torch

from detectron2.config import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.roi_heads.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.projects.point_rend._renaming import is_before_version, rename_parameters

__all__ = ["PointRendROIHeads"]


@ROI_HEADS_REGISTRY.register()
class PointRendROIHeads(StandardROIHeads):
    """:class:`StandardROIHeads` that takes old configurations and checkpoints of PointRend.

    New configurations have StandardROIHeads with :class:`PointRendMaskHead`.
    """

    _version = 2

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        if is_before_version(local_metadata, 2):
            for old, new in (
                ("mask_point_head", "mask_head.point_head"),
                ("mask_coarse_head", "mask_head.coarse_head"),
            ):
                rename_parameters(state_dict, f"{prefix}{old}.", f"{prefix}{new}.")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.NAME == "CoarseMaskHead":
            logging.getLogger(__name__).warning(
                "MODEL.ROI_MASK_HEAD.NAME 'CoarseMaskHead' is an old name: taken as "
                "'PointRendMaskHead' with POOLER_TYPE ''"
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
            cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
            cfg.freeze()
        return super()._init_mask_head(cfg, input_shape)
