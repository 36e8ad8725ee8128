# From scratch, with large-scale jitter: Ghiasi et al., "Simple Copy-Paste is a Strong Data
# Augmentation Method for Instance Segmentation", CVPR 2021.

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers.batch_norm import NaiveSyncBatchNorm

from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.train import train
from ._schedule import large_scale_jitter_schedule

# ---- Model ----

model.backbone.norm = "SyncBN"
model.backbone.bottom_up.freeze_at = 0
model.backbone.bottom_up.stem.norm = "SyncBN"
model.backbone.bottom_up.stages.norm = "SyncBN"
model.proposal_generator.head.conv_dims = [-1, -1]


def _sync_bn_of_rois(channels):
    # Processes have different numbers of RoIs.
    return NaiveSyncBatchNorm(channels, stats_mode="N")


model.roi_heads.box_head.update(conv_norm=_sync_bn_of_rois, conv_dims=[256] * 4, fc_dims=[1024])
model.roi_heads.mask_head.conv_norm = _sync_bn_of_rois

# ---- Data ----

_side = 1024
dataloader.train.mapper.augmentations = [
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_side, target_width=_side),
    L(T.FixedSizeCrop)(crop_size=(_side, _side)),
    L(T.RandomFlip)(horizontal=True),
]
# Boxes that are cut no longer fit what is left of their masks.
dataloader.train.mapper.recompute_boxes = True
dataloader.train.total_batch_size = 64

# ---- Schedule ----

lr_multiplier = large_scale_jitter_schedule()
optimizer.lr = 0.1
optimizer.weight_decay = 4e-5
train.init_checkpoint = ""
train.max_iter = lr_multiplier.scheduler.num_updates
train.amp.enabled = True
train.ddp.fp16_compression = True
