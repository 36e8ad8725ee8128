from ._schedule import train_for
from .mask_rcnn_R_101_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

train_for(200, train, lr_multiplier)
