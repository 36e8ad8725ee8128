"""``detectron2 train``."""

import argparse

HELP = "train a model"
EXAMPLES = """\
  detectron2 train --config COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml --num-gpus 8
  detectron2 train --config COCO-Detection/fcos_R_50_FPN_1x.py train.amp.enabled=true
  detectron2 train --config config.yaml --dataset my_train=train.json:images SOLVER.BASE_LR=0.01 \\
      DATASETS.TRAIN='("my_train",)' OUTPUT_DIR=runs/first
  detectron2 train --config runs/first --resume
  torchrun --nproc-per-node 8 -m detectron2 train --config config.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    _arguments.add_config_arguments(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint of the output folder, if there is one",
    )
    _arguments.add_dataset_arguments(parser)
    _arguments.add_launch_arguments(parser)
    _arguments.add_verbose_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Train in as many processes as are asked for."""
    from detectron2.cli._processes import run_in_processes

    run_in_processes(_train, args)
    return 0


def _train(args: argparse.Namespace) -> None:
    from detectron2.cli._config import is_lazy, last_checkpoint, load_config
    from detectron2.cli._processes import set_up_training
    from detectron2.cli._terminal import say
    from detectron2.utils import comm

    cfg = load_config(args, trained=False)
    set_up_training(cfg, args)
    if is_lazy(cfg):
        from detectron2.cli._lazy_training import train_lazy as train

        folder = cfg.train.output_dir
    else:
        from detectron2.cli._trainer import train

        folder = cfg.OUTPUT_DIR
    try:
        train(cfg, resume=args.resume, verbose=args.verbose)
    except KeyboardInterrupt:
        checkpoint = last_checkpoint(folder)
        if comm.is_main_process() and checkpoint is not None:
            say(f"--resume goes on from {checkpoint}")
        raise
    if comm.is_main_process():
        say(f"the trained model is {folder}/model_final.pth")
