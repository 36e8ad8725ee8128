from ..common.models._regnet import regnetx_4gf, use_regnet
from .mask_rcnn_R_50_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

use_regnet(model, regnetx_4gf(norm="SyncBN"))
train.cudnn_benchmark = True
