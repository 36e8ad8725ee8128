"""``detectron2 eval``."""

import argparse
import json

HELP = "evaluate a trained model on the data sets of its configuration"
EXAMPLES = """\
  detectron2 eval --config COCO-Detection/retinanet_R_50_FPN_3x.yaml --num-gpus 8
  detectron2 eval --config runs/first --dataset my_val=val.json:images \\
      DATASETS.TEST='("my_val",)' --results results.json
  detectron2 eval --config config.yaml --weights model_final.pth TEST.AUG.ENABLED=True
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from detectron2.cli import _arguments

    _arguments.add_config_arguments(parser)
    parser.add_argument("--results", metavar="FILE", help="write the metrics as JSON, too")
    _arguments.add_dataset_arguments(parser)
    _arguments.add_launch_arguments(parser)
    _arguments.add_verbose_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate in as many processes as are asked for."""
    from detectron2.cli._processes import run_in_processes

    run_in_processes(_evaluate, args)
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    from detectron2.cli._config import build_trained_model, dataset_names, is_lazy, load_config
    from detectron2.cli._datasets import check_files, load_records
    from detectron2.cli._errors import UsageError
    from detectron2.cli._evaluators import evaluate, evaluate_lazy
    from detectron2.cli._outputs import prepare_file
    from detectron2.cli._processes import set_up_inference
    from detectron2.cli._terminal import print_results
    from detectron2.engine import create_ddp_model
    from detectron2.utils import comm

    if args.results is not None:
        prepare_file(args.results, "--results")
    cfg = load_config(args, trained=True)
    set_up_inference(cfg, verbose=args.verbose)
    if is_lazy(cfg):
        check_files(dataset_names(cfg, "test"))
        model = create_ddp_model(build_trained_model(cfg))
        results = evaluate_lazy(cfg, model, verbose=args.verbose)
        if not results:
            raise UsageError("the configuration has no dataloader.evaluator")
    else:
        if not cfg.DATASETS.TEST:
            raise UsageError("DATASETS.TEST is empty")
        for name in cfg.DATASETS.TEST:
            load_records(name)
        results = evaluate(cfg, build_trained_model(cfg), verbose=args.verbose)
    if not comm.is_main_process():
        return
    for name, of_dataset in results.items():
        print_results(of_dataset, name)
    if args.results is not None:
        with open(args.results, "w") as file:
            json.dump(results, file, indent=1)
