"""A command line in this process, and what its commands need: drawn shapes and a tiny model."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from detectron2.cli import main
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.shapes import write_shapes

CONFIG = """\
VERSION: 2
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: True
  TINY_CHANNELS: 8
  BACKBONE: {NAME: build_tiny_cli_backbone}
  ANCHOR_GENERATOR: {SIZES: [[24]], ASPECT_RATIOS: [[1.0]]}
  RPN:
    IN_FEATURES: [p4]
    PRE_NMS_TOPK_TEST: 20
    POST_NMS_TOPK_TEST: 10
    PRE_NMS_TOPK_TRAIN: 20
    POST_NMS_TOPK_TRAIN: 10
  ROI_HEADS:
    {NAME: StandardROIHeads, NUM_CLASSES: 2, IN_FEATURES: [p4], BATCH_SIZE_PER_IMAGE: 8}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 16, POOLER_RESOLUTION: 3}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 8, POOLER_RESOLUTION: 4}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
DATASETS: {TRAIN: [tiny_train], TEST: [tiny_val]}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.001, MAX_ITER: 3, STEPS: [2]}
SEED: 1
"""


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """Runs a command line; data sets and the log are afterwards as before."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    datasets, metadata = set(DatasetCatalog), set(MetadataCatalog)
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    settings = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        for name in set(DatasetCatalog) - datasets:
            DatasetCatalog.remove(name)
        for name in set(MetadataCatalog) - metadata:
            MetadataCatalog.remove(name)
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code or 0
        out, err = capsys.readouterr()
        return Outcome(status, out, err)

    yield run
    sys.modules.pop("tiny_backbone", None)
    for name in set(DatasetCatalog) - datasets:
        DatasetCatalog.remove(name)
    for name in set(MetadataCatalog) - metadata:
        MetadataCatalog.remove(name)
    for logger, (handlers, level, propagate) in zip(loggers, settings, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes: folders train and val."""
    folder = tmp_path_factory.mktemp("shapes")
    for seed, split in enumerate(("train", "val")):
        write_shapes(folder / split, 4, (64, 64), seed, ("ellipse", "star"), max_shapes=2)
    return folder


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a tiny Mask R-CNN."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def tiny(config: Path, shapes: Path) -> list[str]:
    """Arguments of commands that train or evaluate the tiny model."""
    return [
        *("--config", str(config), "--import", "tiny_backbone", "--device", "cpu"),
        *("--dataset", f"tiny_train={shapes}/train", "--dataset", f"tiny_val={shapes}/val"),
    ]
