import torch

from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

# The caller sets params.model.
SGD = L(torch.optim.SGD)(
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
)

AdamW = L(torch.optim.AdamW)(
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.1,
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0, base_lr="${..lr}"),
)
