"""Train a model from scratch on drawn shapes, and see how good it gets.

    python benchmarks/train_shapes.py mask_rcnn_R_50_FPN
    python benchmarks/train_shapes.py retinanet_R_50_FPN fcos_R_50_FPN --amp bfloat16
    python benchmarks/train_shapes.py cascade_mask_rcnn_R_50_FPN --num-gpus 2
    python benchmarks/train_shapes.py mask_rcnn_R_50_FPN --device cpu --iterations 20

The data set (``detectron2.data.shapes``) is drawn first, if ``--data`` has none. The models are
those of the model zoo with normalisation that can be trained from scratch, in place of frozen
statistics, and with anchors and batches of RoIs for small images that hold few objects. Each has a
number of iterations and metrics that it should reach with them; the exit status is 1 if one does
not. Prints the metrics over time, then a table, then one JSON line for each model.
"""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data.shapes import (
    KEYPOINT_NAMES,
    SHAPE_CLASSES,
    STUFF_CLASSES,
    register_shapes,
    write_shapes,
)
from detectron2.engine import DefaultTrainer, launch
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    RotatedCOCOEvaluator,
)
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    get_event_storage,
)
from detectron2.utils.logger import setup_logger


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        config: of the model zoo; of a ``.py`` file the model is taken, but no more.
        iterations: of 16 images.
        targets: metrics that should be reached by then, in percent.
        learning_rate: of SGD with momentum, or of AdamW.
        optimizer: "SGD" or "AdamW".
        dataset: which variant of the data set.
        overrides: further keys and values of the configuration.
    """

    config: str
    iterations: int
    targets: dict[str, float]
    learning_rate: float = 5e-4
    optimizer: str = "AdamW"
    dataset: str = ""
    overrides: tuple[Any, ...] = field(default=())


_BATCH = 16

# Against the large gradients of the first iterations, which AdamW remembers for a thousand more.
_CLIPPED = (
    *("SOLVER.CLIP_GRADIENTS.ENABLED", True),
    *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
)

_ROTATED = (
    *("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    *("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0, 1.0)),
    *("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    *("MODEL.ANCHOR_GENERATOR.ANGLES", [[-60, -30, 0, 30, 60, 90]]),
    *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.6, 1.0, 1.7]]),
    *("MODEL.ROI_HEADS.NAME", "RROIHeads"),
    *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0, 1.0)),
)
MODELS = {
    "mask_rcnn_R_50_FPN": Recipe(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
        1900,
        {"bbox/AP": 60, "segm/AP": 55},
    ),
    "faster_rcnn_R_50_FPN": Recipe(
        "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", 1000, {"bbox/AP": 50}
    ),
    "retinanet_R_50_FPN": Recipe(
        "COCO-Detection/retinanet_R_50_FPN_3x.yaml", 2000, {"bbox/AP": 38}, overrides=_CLIPPED
    ),
    "fcos_R_50_FPN": Recipe("common/models/fcos.py", 1000, {"bbox/AP": 35}),
    "cascade_mask_rcnn_R_50_FPN": Recipe(
        "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml", 1000, {"bbox/AP": 70, "segm/AP": 65}
    ),
    "keypoint_rcnn_R_50_FPN": Recipe(
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml", 1000, {"bbox/AP": 55, "keypoints/AP": 35}
    ),
    "panoptic_fpn_R_50": Recipe(
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml",
        1000,
        {"bbox/AP": 58, "segm/AP": 58, "panoptic_seg/PQ": 47},
        dataset="_panoptic_separated",
        overrides=_CLIPPED,
    ),
    "mask_rcnn_vitdet_B": Recipe(
        "common/models/mask_rcnn_vitdet.py",
        1000,
        {"bbox/AP": 38, "segm/AP": 22},
        learning_rate=2e-4,
        # What the mapper gives.
        overrides=("MODEL.MASK_ON", True),
    ),
    "rotated_faster_rcnn_R_50_FPN": Recipe(
        "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml",
        1000,
        {"bbox/AP": 40},
        dataset="_rotated",
        overrides=_ROTATED,
    ),
}


# Keys that every model gets; those of parts that it lacks do no harm.
_COMMON = (
    *("MODEL.WEIGHTS", ""),
    *("MODEL.BACKBONE.FREEZE_AT", 0),
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.PIXEL_MEAN", [127.5, 127.5, 127.5]),
    *("MODEL.PIXEL_STD", [64.0, 64.0, 64.0]),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 128),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 500),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 500),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 250),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 250),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64),
    *("MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5),
    *("MODEL.ROI_HEADS.NUM_CLASSES", len(SHAPE_CLASSES)),
    *("MODEL.RETINANET.NUM_CLASSES", len(SHAPE_CLASSES)),
    *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", len(KEYPOINT_NAMES)),
    # One class for all things.
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1 + len(STUFF_CLASSES)),
    *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 256),
    *("TEST.KEYPOINT_OKS_SIGMAS", [0.05] * len(KEYPOINT_NAMES)),
    *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
)


def make_config(name: str, args: argparse.Namespace) -> CfgNode:
    """The configuration of a run, with the additional keys ``RECIPE`` and ``OPTIMIZER``."""
    recipe = MODELS[name]
    cfg = get_cfg() if _is_lazy(recipe) else model_zoo.get_config(recipe.config)
    iterations = args.iterations or recipe.iterations
    norm = "SyncBN" if args.num_gpus > 1 else "BN"
    cfg.merge_from_list(
        [
            *_COMMON,
            *("MODEL.DEVICE", args.device),
            *("MODEL.RESNETS.NORM", norm),
            *("MODEL.FPN.NORM", norm),
            *("MODEL.ANCHOR_GENERATOR.SIZES", _scaled(cfg.MODEL.ANCHOR_GENERATOR.SIZES, args.size)),
            *("INPUT.MIN_SIZE_TRAIN", (args.size,)),
            *("INPUT.MIN_SIZE_TEST", args.size),
            *("DATASETS.TRAIN", ("shapes_train" + recipe.dataset,)),
            *("DATASETS.TEST", ("shapes_val" + recipe.dataset,)),
            *("DATALOADER.NUM_WORKERS", args.workers),
            *("SOLVER.IMS_PER_BATCH", args.batch),
            *("SOLVER.BASE_LR", args.learning_rate or recipe.learning_rate * args.batch / _BATCH),
            *("SOLVER.MAX_ITER", iterations),
            *("SOLVER.WARMUP_ITERS", min(200, iterations // 4)),
            *("SOLVER.AMP.ENABLED", args.amp != "off"),
            *("SOLVER.CHECKPOINT_PERIOD", iterations),
            *("TEST.EVAL_PERIOD", args.eval_period),
            *("OUTPUT_DIR", os.path.join(args.output, name)),
            *("SEED", args.seed),
            *recipe.overrides,
        ]
    )
    if args.amp != "off":
        cfg.merge_from_list(["SOLVER.AMP.DTYPE", args.amp])
    cfg.RECIPE, cfg.OPTIMIZER = name, args.optimizer or recipe.optimizer
    return cfg


def _scaled(anchor_sizes: list[list[float]], side: int) -> list[list[float]]:
    """From 16 to 256 pixels, rather than from 32 to 512, in images of 256 pixels."""
    return [[size * side / 512 for size in sizes] for sizes in anchor_sizes]


def _is_lazy(recipe: Recipe) -> bool:
    return recipe.config.endswith(".py")


def lazy_model(cfg: CfgNode) -> torch.nn.Module:
    """A model of a ``.py`` file, changed as ``cfg`` says."""
    model = model_zoo.get_config(MODELS[cfg.RECIPE].config).model
    model.pixel_mean, model.pixel_std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if "input_format" in model:
        model.input_format = cfg.INPUT.FORMAT
    norm, side = cfg.MODEL.RESNETS.NORM, cfg.INPUT.MIN_SIZE_TEST
    if "roi_heads" in model:
        model.roi_heads.num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        model.roi_heads.batch_size_per_image = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
        model.roi_heads.positive_fraction = cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION
        rpn = model.proposal_generator
        rpn.batch_size_per_image = cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE
        rpn.anchor_generator.sizes = _scaled(rpn.anchor_generator.sizes, side)
        rpn.post_nms_topk = (
            cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN,
            cfg.MODEL.RPN.POST_NMS_TOPK_TEST,
        )
    else:
        model.num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    if "net" in model.backbone:
        model.backbone.square_pad = side
        model.backbone.net.update(img_size=side, window_size=side // 32)
    else:
        model.backbone.norm = norm
        model.backbone.bottom_up.stem.norm = norm
        model.backbone.bottom_up.stages.update(norm=norm, stride_in_1x1=False)
    return instantiate(model).to(cfg.MODEL.DEVICE)


class Trainer(DefaultTrainer):
    """Trains one of ``MODELS``, and keeps the metrics over time in ``curve``."""

    started: float
    curve: list[dict[str, float]]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        return lazy_model(cfg) if _is_lazy(MODELS[cfg.RECIPE]) else super().build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        if cfg.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        groups = get_default_optimizer_params(model, weight_decay_norm=0.0, weight_decay=0.05)
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return optimizer(groups, lr=cfg.SOLVER.BASE_LR)

    def build_writers(self) -> list[EventWriter]:
        # All but TensorBoard's, which is another package.
        metrics = os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")
        return [CommonMetricPrinter(self.max_iter), JSONWriter(metrics)]

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if dataset_name.endswith("_rotated"):
            return RotatedCOCOEvaluator(dataset_name, output_dir=folder)
        instances = COCOEvaluator(dataset_name, kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS)
        if not dataset_name.endswith("_panoptic_separated"):
            return instances
        return DatasetEvaluators([instances, COCOPanopticEvaluator(dataset_name)])

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None) -> dict[str, Any]:
        before = time.perf_counter()
        # The tables that COCO's evaluation prints by itself would hide the curve.
        with contextlib.redirect_stdout(io.StringIO()):
            results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            now = time.perf_counter()
            point = {
                "iteration": min(get_event_storage().iter + 1, cfg.SOLVER.MAX_ITER),
                "seconds": round(now - cls.started, 1),
                "evaluation_seconds": round(now - before, 1),
            }
            for key in MODELS[cfg.RECIPE].targets:
                task, metric = key.split("/")
                value = results.get(task, {}).get(metric, math.nan)
                # NaN: no detection at all.
                point[key] = 0.0 if math.isnan(value) else round(value, 2)
            cls.curve.append(point)
            print(cfg.RECIPE, *(f"{key} {value}" for key, value in point.items()), flush=True)
        return results


def run(name: str, args: argparse.Namespace) -> None:
    """In each process: train, and write ``result.json`` in rank 0."""
    setup_logger()
    if not args.verbose:
        # The trainer would show the log if it were off; handlers can still leave it out.
        for handler in logging.getLogger("detectron2").handlers:
            handler.setLevel(logging.WARNING)
    for split in ("train", "val"):
        register_shapes(f"shapes_{split}", os.path.join(args.data, split))
    cfg = make_config(name, args)
    seed_all_rng(args.seed + comm.get_rank())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    Trainer.started, Trainer.curve = time.perf_counter(), []
    trainer = Trainer(cfg)
    trainer.train()
    if comm.is_main_process():
        with open(os.path.join(cfg.OUTPUT_DIR, "result.json"), "w") as file:
            json.dump(Trainer.curve, file)


def summary(name: str, args: argparse.Namespace) -> dict[str, Any]:
    with open(os.path.join(args.output, name, "result.json")) as file:
        curve = json.load(file)
    targets = MODELS[name].targets
    return {
        "benchmark": "train_shapes",
        "model": name,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "num_gpus": args.num_gpus,
        "amp": args.amp,
        "batch": args.batch,
        "size": args.size,
        **curve[-1],
        "targets": targets,
        "reached": all(curve[-1][key] >= least for key, least in targets.items()),
        "curve": curve,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--data", help="folder of the data set; default: a temporary one")
    parser.add_argument("--train", type=int, default=4000, help="images to be drawn, if none are")
    parser.add_argument("--val", type=int, default=300)
    parser.add_argument("--size", type=int, default=256, help="side of the images; of 32 n pixels")
    parser.add_argument("--batch", type=int, default=_BATCH)
    parser.add_argument("--iterations", type=int, help="default: what the model needs")
    parser.add_argument("--optimizer", choices=("SGD", "AdamW"), help="default: the model's")
    parser.add_argument("--learning-rate", type=float, help="default: the model's, by batch size")
    parser.add_argument("--eval-period", type=int, default=500)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument(
        "--amp", choices=("off", "float16", "bfloat16"), help="default: float16, on a CPU off"
    )
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", help="folder of logs and weights; default: a temporary one")
    parser.add_argument("--verbose", action="store_true", help="show the whole log")
    args = parser.parse_args()
    args.amp = args.amp or ("off" if args.device == "cpu" else "float16")
    return args


def main() -> int:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        args.data = args.data or os.path.join(folder, "shapes")
        args.output = args.output or os.path.join(folder, "output")
        for split, count, seed in (("train", args.train, 0), ("val", args.val, 1)):
            path = os.path.join(args.data, split)
            if not os.path.exists(os.path.join(path, "instances.json")):
                size = args.size, args.size
                write_shapes(path, count, size, seed, num_workers=args.workers)
        results = []
        for name in args.models:
            launch(run, args.num_gpus, args=(name, args), dist_url="auto")
            results.append(summary(name, args))
    for result in results:
        metrics = (f"{key} {result[key]:5.1f} (>= {t})" for key, t in result["targets"].items())
        print(
            f"{result['model']:30s} {result['seconds']:6.1f} s {result['iteration']:6d} iterations",
            *metrics,
            sep="  ",
        )
    for result in results:
        print(json.dumps(result))
    return 0 if all(result["reached"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
