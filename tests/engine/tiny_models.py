"""Small models, and trainings of them on drawn shapes that take a CPU seconds."""

import json
from pathlib import Path

import torch

from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.shapes import SHAPE_CLASSES, register_shapes
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock
from detectron2.utils import comm

FEATURES = ("res2", "res3", "res4", "res5")


def group_norm(channels: int) -> torch.nn.GroupNorm:
    return torch.nn.GroupNorm(4, channels)


@BACKBONE_REGISTRY.register()
def build_tiny_fpn_backbone(cfg, input_shape):
    """A pyramid of five levels on a ResNet with a block a stage."""
    width = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    stem = BasicStem(input_shape.channels, width, norm=group_norm)
    stages = []
    for index, out_width in enumerate((width, width * 3 // 2, width * 2, width * 3)):
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                1,
                in_channels=width,
                out_channels=out_width,
                stride=1 if index == 0 else 2,
                norm=group_norm,
            )
        )
        width = out_width
    resnet = ResNet(stem, stages, out_features=FEATURES)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(resnet, FEATURES, channels, norm=group_norm, top_block=LastLevelMaxPool())


def tiny_config(train: str, test: str, *, size: int) -> CfgNode:
    """A narrow Mask R-CNN for square images."""
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu"),
            *("MODEL.WEIGHTS", ""),
            *("MODEL.BACKBONE.NAME", "build_tiny_fpn_backbone"),
            *("MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
            *("MODEL.FPN.OUT_CHANNELS", 32),
            *("MODEL.PIXEL_MEAN", [127.5] * 3),
            *("MODEL.PIXEL_STD", [64.0] * 3),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[12], [24], [36], [56], [80]]),
            *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 64),
            *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200),
            *("MODEL.RPN.PRE_NMS_TOPK_TEST", 100),
            *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 100),
            *("MODEL.RPN.POST_NMS_TOPK_TEST", 50),
            *("MODEL.ROI_HEADS.NUM_CLASSES", len(SHAPE_CLASSES)),
            *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 128),
            *("MODEL.ROI_BOX_HEAD.NUM_FC", 1),
            *("MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
            *("MODEL.ROI_MASK_HEAD.NUM_CONV", 2),
            *("INPUT.MIN_SIZE_TRAIN", (size,)),
            *("INPUT.MIN_SIZE_TEST", size),
            *("INPUT.RANDOM_FLIP", "none"),
            *("DATASETS.TRAIN", (train,)),
            *("DATASETS.TEST", (test,)),
            *("DATALOADER.NUM_WORKERS", 0),
            *("SOLVER.IMS_PER_BATCH", 4),
            *("SOLVER.BASE_LR", 2e-3),
            *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
            *("SOLVER.WARMUP_ITERS", 10),
            *("SOLVER.CHECKPOINT_PERIOD", 10**6),
            *("SEED", 1),
        ]
    )
    return cfg


class TinyTrainer(DefaultTrainer):
    """Trains with AdamW, which needs few iterations, and evaluates boxes and masks."""

    @classmethod
    def build_optimizer(cls, cfg, model):
        return torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR, weight_decay=1e-4)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name)

    def build_writers(self):
        return []

    def losses(self) -> dict[str, list[float]]:
        """The losses of all iterations, by name; in rank 0."""
        histories = self.storage.histories().items()
        return {
            name: [value for value, _ in history.values()]
            for name, history in histories
            if "loss" in name
        }


def train_and_write_losses(folder: str, result: str, runs: dict[str, list]) -> None:
    """What each of several processes runs: trainings with these overrides of the configuration,
    whose losses are written to ``result``."""
    torch.set_num_threads(1)
    if "tests_shapes_train" not in DatasetCatalog:
        register_shapes("tests_shapes_train", folder)
    losses = {}
    for name, overrides in runs.items():
        cfg = tiny_config("tests_shapes_train", "tests_shapes_train", size=96)
        cfg.merge_from_list(["DATASETS.TEST", (), *overrides])
        torch.manual_seed(0)  # of the weights
        trainer = TinyTrainer(cfg)
        trainer.train()
        losses[name] = trainer.losses()
    if comm.is_main_process():
        Path(result).write_text(json.dumps(losses))
