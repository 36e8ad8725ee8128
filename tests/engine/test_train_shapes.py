"""Training works: losses fall, detections get right, and two processes are like one."""

import json
import math
from pathlib import Path

import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.shapes import register_shapes, write_shapes
from detectron2.engine import launch

FOLDER = Path(__file__).parent
SIZE = 96


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """One thread of the CPU, as more only wait for each other; imports that processes can do."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(FOLDER)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def dataset(tmp_path):
    """Writes and registers drawn shapes, until the test ends."""
    before = set(DatasetCatalog.list())

    def make(name, num_images, size=(SIZE, SIZE), **arguments):
        write_shapes(tmp_path / name, num_images, size, **arguments)
        register_shapes(name, tmp_path / name)
        return str(tmp_path / name)

    yield make
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)


def train(train_set, test_set, folder, overrides):
    import tiny_models

    cfg = tiny_models.tiny_config(train_set, test_set, size=SIZE)
    cfg.merge_from_list(["OUTPUT_DIR", str(folder), *overrides])
    trainer = tiny_models.TinyTrainer(cfg)
    trainer.train()
    losses = trainer.losses()
    assert all(math.isfinite(value) for values in losses.values() for value in values)
    return losses, trainer.test(trainer.cfg, trainer.model)


def mean(values):
    return sum(values) / len(values)


def test_mask_rcnn_learns_four_images_by_heart(dataset, tmp_path):
    dataset("tests_few", 4, max_shapes=4)
    losses, results = train("tests_few", "tests_few", tmp_path, ["SOLVER.MAX_ITER", 160])
    assert set(losses) == {
        "loss_rpn_cls",
        "loss_rpn_loc",
        "loss_cls",
        "loss_box_reg",
        "loss_mask",
        "total_loss",
    }
    for name, values in losses.items():
        assert len(values) == 160
        # The regression of boxes has no foreground to begin with.
        highest = max(mean(values[i : i + 10]) for i in range(0, 80, 10))
        assert mean(values[-10:]) < 0.35 * highest, name
    assert results["bbox"]["AP"] > 90
    assert results["segm"]["AP"] > 60


@pytest.mark.slow
def test_mask_rcnn_detects_shapes_in_new_images(dataset, tmp_path):
    """Minutes: about 17 and 13 are reached."""
    size, classes = 128, ("rectangle", "triangle", "star")
    dataset("tests_many", 600, size=(size, size), classes=classes)
    dataset("tests_new", 60, size=(size, size), classes=classes, seed=1)
    overrides = [
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
        *("MODEL.FPN.OUT_CHANNELS", 64),
        *("MODEL.ROI_HEADS.NUM_CLASSES", len(classes)),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64),
        *("MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.5),
        *("INPUT.MIN_SIZE_TRAIN", (size,)),
        *("INPUT.MIN_SIZE_TEST", size),
        *("INPUT.RANDOM_FLIP", "horizontal"),
        *("SOLVER.MAX_ITER", 700),
        *("SOLVER.IMS_PER_BATCH", 8),
    ]
    _, results = train("tests_many", "tests_new", tmp_path, overrides)
    assert results["bbox"]["AP"] > 12
    assert results["segm"]["AP"] > 9


# All that could be drawn by lot is taken: 2307 anchors and up to 104 proposals an image.
_NOTHING_BY_LOT = [
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 2307),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 104),
    *("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0),
]


_TOLERANCES = {
    # Losses of an image are divided by a constant.
    "ProposalNetwork": {"loss_rpn_cls": 1e-5, "loss_rpn_loc": 1e-5},
    # Each process divides by its own number of proposals, and of those in the foreground.
    "GeneralizedRCNN": {
        "loss_rpn_cls": 5e-3,
        "loss_rpn_loc": 5e-3,
        "loss_cls": 0.05,
        "loss_box_reg": 0.05,
        "loss_mask": 0.05,
    },
}


def test_two_processes_train_like_one(dataset, tmp_path):
    """With the same images in an iteration, the losses are the same."""
    import tiny_models

    folder = dataset("tests_shapes_train", 16, max_shapes=4)
    iterations = 10
    runs = {
        architecture: [
            *("MODEL.META_ARCHITECTURE", architecture),
            *("SOLVER.MAX_ITER", iterations),
            *("SOLVER.WARMUP_ITERS", 0),
            *("OUTPUT_DIR", str(tmp_path / "output")),
            *_NOTHING_BY_LOT,
        ]
        for architecture in _TOLERANCES
    }
    curves = []
    for num_processes in (1, 2):
        result = tmp_path / f"{num_processes}.json"
        launch(
            tiny_models.train_and_write_losses,
            num_processes,
            dist_url="auto",
            args=(folder, str(result), runs),
        )
        curves.append(json.loads(result.read_text()))
    for architecture, tolerances in _TOLERANCES.items():
        one, two = (curve[architecture] for curve in curves)
        assert set(one) == set(two) == {*tolerances, "total_loss"}
        for name, tolerance in tolerances.items():
            assert len(one[name]) == iterations
            assert two[name] == pytest.approx(one[name], rel=tolerance), (architecture, name)
        # Otherwise the weights might as well not have changed.
        assert mean(one["total_loss"][-3:]) < 0.9 * mean(one["total_loss"][:3])
