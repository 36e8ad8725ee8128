# Image classification with torchvision's ResNet-50 and ImageNet: an example of a model, data and an
# evaluator that are not the library's.

import torch
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageNet
from torchvision.models.resnet import Bottleneck, ResNet

from detectron2.config import LazyCall as L
from detectron2.data.samplers import TrainingSampler
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm

from ..common.train import train

_EPOCHS = 100
_IMAGES = 1281167
_BATCH = 256
_normalize = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def build_data_loader(dataset, batch_size, num_workers, training=True):
    """Batches of (images, labels); without end, in random order, for training."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        sampler=TrainingSampler(len(dataset)) if training else None,
        pin_memory=True,
        drop_last=training,
    )


class ClassificationNet(nn.Module):
    """A classifier with the interface of detectors: a loss in training, or else the logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def device(self):
        return next(self.model.parameters()).device

    def forward(self, inputs):
        images, labels = inputs
        logits = self.model(images.to(self.device))
        if not self.training:
            return logits
        return nn.functional.cross_entropy(logits, labels.to(self.device))


class ClassificationAcc(DatasetEvaluator):
    """The share of images whose best class is the right one."""

    def reset(self):
        self.right = self.seen = 0

    def process(self, inputs, outputs):
        labels = inputs[1].to(outputs.device)
        self.right += (outputs.argmax(dim=1) == labels).sum().item()
        self.seen += labels.numel()

    def evaluate(self):
        counts = comm.all_gather((self.right, self.seen))
        right, seen = (sum(count) for count in zip(*counts, strict=True))
        return {"accuracy": right / max(seen, 1)}


def _loader(split, training, augmentations):
    return L(build_data_loader)(
        dataset=L(ImageNet)(
            root="/path/to/imagenet" if training else "${...train.dataset.root}",
            split=split,
            transform=L(transforms.Compose)(
                transforms=[
                    *augmentations,
                    transforms.ToTensor(),
                    L(transforms.Normalize)(**_normalize),
                ]
            ),
        ),
        batch_size=_BATCH // 8,
        num_workers=4,
        training=training,
    )


dataloader = OmegaConf.create(
    dict(
        train=_loader(
            "train",
            True,
            [L(transforms.RandomResizedCrop)(size=224), L(transforms.RandomHorizontalFlip)()],
        ),
        test=_loader(
            "val", False, [L(transforms.Resize)(size=256), L(transforms.CenterCrop)(size=224)]
        ),
        evaluator=L(ClassificationAcc)(),
    ),
    flags={"allow_objects": True},
)

_resnet50 = ResNet(Bottleneck, [3, 4, 6, 3], zero_init_residual=True)
model = L(ClassificationNet)(model=_resnet50)

optimizer = L(torch.optim.SGD)(
    lr=0.1, momentum=0.9, weight_decay=1e-4, params=L(get_default_optimizer_params)()
)

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01, 0.001], milestones=[30, 60, 90, _EPOCHS]
    ),
    warmup_length=1 / _EPOCHS,
    warmup_factor=0.1,
)

train.init_checkpoint = None
train.max_iter = _EPOCHS * _IMAGES // _BATCH
