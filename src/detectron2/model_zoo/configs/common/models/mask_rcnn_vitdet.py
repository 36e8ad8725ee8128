from functools import partial

from torch import nn

from detectron2.config import LazyCall as L
from detectron2.modeling import SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from ..data.constants import constants
from .mask_rcnn_fpn import model

_image_side = 1024
_depth = 12
# All blocks but these four attend within windows.
_global_blocks = (2, 5, 8, 11)

# ViT-B.
model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        img_size=_image_side,
        patch_size=16,
        embed_dim=768,
        depth=_depth,
        num_heads=12,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        window_block_indexes=[i for i in range(_depth) if i not in _global_blocks],
        residual_block_indexes=[],
        drop_path_rate=0.1,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    scale_factors=(4.0, 2.0, 1.0, 0.5),
    out_channels=256,
    norm="LN",
    top_block=L(LastLevelMaxPool)(),
    square_pad=_image_side,
)

model.input_format = "RGB"
model.pixel_mean = constants.imagenet_rgb256_mean
model.pixel_std = constants.imagenet_rgb256_std

model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.update(conv_norm="LN", conv_dims=[256] * 4, fc_dims=[1024])
model.roi_heads.mask_head.conv_norm = "LN"
