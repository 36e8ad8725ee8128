from ..common.coco_schedule import lr_multiplier_1x as lr_multiplier
from ..common.data.coco import dataloader
from ..common.models._regnet import regnetx_4gf, use_regnet
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.train import train

use_regnet(model, regnetx_4gf(norm="FrozenBN"))
model.backbone.bottom_up.freeze_at = 2
optimizer.weight_decay = 5e-5
train.cudnn_benchmark = True
train.init_checkpoint = (
    "https://dl.fbaipublicfiles.com/pycls/dds_baselines/160906383/RegNetX-4.0GF_dds_8gpu.pyth"
)
