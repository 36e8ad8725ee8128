from ..common.models._regnet import regnety_4gf, use_regnet
from .mask_rcnn_R_50_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

use_regnet(model, regnety_4gf(norm="SyncBN"))
train.cudnn_benchmark = True
