"""The commands on a tiny model and drawn shapes."""

import json

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detectron2.cli._drawing import Drawer
from detectron2.data.datasets import load_coco_json

LAZY_CONFIG = """\
from fvcore.common.param_scheduler import ConstantParamScheduler

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from tiny_backbone import TinyBackbone

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
for _part, _name in ((dataloader.train, "tiny_train"), (dataloader.test, "tiny_val")):
    _part.num_workers = 0
    _part.dataset.names = _name
    _part.mapper.augmentations[0].update(short_edge_length=(64,), sample_style="choice")
dataloader.train.total_batch_size = 2
dataloader.train.mapper.use_instance_mask = False

model = model_zoo.get_config("common/models/retinanet.py").model
model.backbone = L(TinyBackbone)(channels=8)
model.num_classes = 2
model.head_in_features = ["p4"]
model.head.input_shape = [ShapeSpec(channels=8)]
model.head.conv_dims = [8]
model.anchor_generator.sizes = [[16, 20, 25]]
model.anchor_generator.strides = [16]

optimizer = model_zoo.get_config("common/optim.py").SGD
optimizer.lr = 0.001
lr_multiplier = L(ConstantParamScheduler)(value=1.0)
train = model_zoo.get_config("common/train.py").train
train.update(max_iter=3, eval_period=0)
"""


@pytest.fixture
def trained(run, tiny, tmp_path):
    """The output folder of a short training."""
    outcome = run("train", *tiny, f"OUTPUT_DIR={tmp_path}/trained")
    assert outcome.status == 0, outcome.err
    return tmp_path / "trained"


def test_train_eval_predict(run, tiny, trained, shapes, tmp_path):
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth"} <= {
        path.name for path in trained.iterdir()
    }
    log = (trained / "log.txt").read_text()
    assert "Environment info" in log
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert "bbox/AP" in lines[-1]

    rest = tiny[2:]
    outcome = run("eval", "--config", trained, *rest, "--results", tmp_path / "results.json")
    assert outcome.status == 0, outcome.err
    assert [line.split()[:2] for line in outcome.out.splitlines()] == [
        ["tiny_val", "bbox"],
        ["tiny_val", "segm"],
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    for name in ("AP", "AP50"):
        # The evaluation at the end of the training was of the same model.
        assert results["tiny_val"]["bbox"][name] == pytest.approx(lines[-1][f"bbox/{name}"])

    out = tmp_path / "predictions"
    images = shapes / "val" / "images"
    arguments = ("--threshold", "0", "--out", out, "--scale", "2")
    outcome = run("predict", images, "--config", trained, *rest, *arguments)
    assert outcome.status == 0, outcome.err
    assert Image.open(out / "000001.jpg").size == (128, 128)
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"00000{i}.jpg" for i in range(1, 5)),
        "predictions.json",
    ]
    annotations = json.loads((out / "predictions.json").read_text())["annotations"]
    assert outcome.out.endswith(f": {len(annotations)} instances in 4 images\n")
    assert len(annotations) > 0
    # Both the COCO API and this library read the file.
    coco = COCO(str(out / "predictions.json"))
    assert [c["name"] for c in coco.loadCats([1, 2])] == ["ellipse", "star"]
    ground_truth = COCO(str(shapes / "val" / "instances.json"))
    assert len(ground_truth.loadRes(annotations).anns) == len(annotations)
    records = load_coco_json(str(out / "predictions.json"), "")
    assert sum(len(record["annotations"]) for record in records) == len(annotations)


def test_the_terminal_shows_what_matters(run, tiny, tmp_path):
    quiet = run("train", *tiny, f"OUTPUT_DIR={tmp_path}/quiet")
    assert quiet.status == 0, quiet.err
    assert "total_loss" in quiet.out
    assert "tiny_val  bbox" in quiet.out
    assert "Environment info" not in quiet.out
    assert quiet.err.endswith(f"the trained model is {tmp_path}/quiet/model_final.pth\n")
    verbose = run("train", *tiny, "--verbose", f"OUTPUT_DIR={tmp_path}/verbose")
    assert "Environment info" in verbose.out
    assert verbose.out.count("total_loss") == 1


def test_resume(run, tiny, trained):
    outcome = run("train", "--config", trained, *tiny[2:], "--resume", "SOLVER.MAX_ITER=5")
    assert outcome.status == 0, outcome.err
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line][-1] == 4
    assert "Starting training from iteration 3" in (trained / "log.txt").read_text()


def test_a_failed_training_is_one_line(run, tiny, tmp_path):
    outcome = run("train", *tiny, f"OUTPUT_DIR={tmp_path}", "SOLVER.BASE_LR=1e30")
    assert outcome.status == 1
    assert "Traceback" not in outcome.out + outcome.err
    error = [line for line in outcome.err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert "detectron2 train: error: " in error[0]


def test_too_few_classes(run, tiny, tmp_path):
    arguments = (f"OUTPUT_DIR={tmp_path}", "MODEL.ROI_HEADS.NUM_CLASSES=1")
    outcome = run("train", *tiny, *arguments)
    assert outcome.status == 2
    assert "tiny_train has 2 classes" in outcome.err
    assert "add MODEL.ROI_HEADS.NUM_CLASSES=2" in outcome.err


def test_eval_without_weights(run, tiny):
    outcome = run("eval", *tiny)
    assert outcome.status == 2
    assert "--weights names a checkpoint" in outcome.err


def test_weights_of_another_model(run, tiny, shapes, tmp_path):
    """An error, not random predictions; a file that fits in part is warned of."""

    def predict(weights):
        torch.save(weights, tmp_path / "weights.pth")
        arguments = (*tiny, "--weights", tmp_path / "weights.pth", "--out", tmp_path / "out")
        return run("predict", shapes / "val" / "images" / "000001.jpg", *arguments)

    other = {f"stem.{i}.weight": torch.zeros(1) for i in range(3)}
    outcome = predict({"model": other, "iteration": 5})
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "is of another model: it holds stem.0.weight, stem.1.weight and 1 more" in outcome.err
    assert "the model has backbone.layers.0.0.weight, backbone.layers.0.0.bias and " in outcome.err
    outcome = predict({"backbone.layers.0.0.weight": torch.zeros(9, 3, 3, 3), **other})
    assert outcome.status == 2
    assert "backbone.layers.0.0.weight is (9, 3, 3, 3) there, (8, 3, 3, 3) in the m" in outcome.err
    outcome = predict({"state_dict": other})
    assert outcome.status == 1
    assert "weights.pth has no 'model' and is no dict of weights: ['state_dict']" in outcome.err
    outcome = predict({"backbone.layers.0.0.bias": torch.zeros(8)})
    assert outcome.status == 0, outcome.err
    assert "Not loaded, as the checkpoint has nothing for them" in outcome.out + outcome.err
    evaluate = ("eval", *tiny, "--weights", tmp_path / "weights.pth", f"OUTPUT_DIR={tmp_path}")
    outcome = run(*evaluate)
    assert outcome.status == 0, outcome.err
    torch.save(other, tmp_path / "weights.pth")
    outcome = run(*evaluate)
    assert outcome.status == 2
    assert "is of another model" in outcome.err


def test_interrupted_predict_keeps_what_there_is(run, tiny, trained, shapes, tmp_path, monkeypatch):
    draw = Drawer.draw

    def interrupted(self, pixels, prediction):
        monkeypatch.setattr(Drawer, "draw", stop)
        return draw(self, pixels, prediction)

    def stop(self, pixels, prediction):
        raise KeyboardInterrupt

    monkeypatch.setattr(Drawer, "draw", interrupted)
    images, out = shapes / "val" / "images", tmp_path / "out"
    outcome = run("predict", images, "--config", trained, *tiny[2:], "--out", out)
    assert outcome.status == 130
    assert "interrupted" in outcome.err
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 2


def test_predict_names_and_threshold(run, tiny, trained, shapes, tmp_path):
    """Two files of the same name do not overwrite each other; a score of 1 leaves nothing."""
    first = shapes / "val" / "images" / "000001.jpg"
    second = shapes / "train" / "images" / "000001.jpg"
    out = tmp_path / "out"
    arguments = ("--config", trained, *tiny[2:], "--out", out, "--threshold", "1.1")
    outcome = run("predict", first, second, *arguments, "--batch", "2", "--video")
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith(": 0 instances in 2 images\n")
    assert (out / "000001.jpg").exists()
    assert (out / "000001_2.jpg").exists()
    outcome = run("predict", first, *arguments[:-4], "--out", tmp_path / "json", "--no-draw")
    assert outcome.status == 0, outcome.err
    assert [path.name for path in (tmp_path / "json").iterdir()] == ["predictions.json"]


def test_images_that_cannot_be_read(run, tiny, trained, shapes, tmp_path):
    """They are left out and named; the others' predictions are not lost."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    content = (shapes / "val" / "images" / "000001.jpg").read_bytes()
    for name, data in (("a", content), ("b", content[: len(content) // 2]), ("c", content)):
        (pictures / f"{name}.jpg").write_bytes(data)
    out = tmp_path / "out"
    outcome = run("predict", pictures, "--config", trained, *tiny[2:], "--out", out)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"left out: cannot read the image '{pictures}/b.jpg': ")
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"{pictures}/{x}.jpg" for x in "ac"]
    arguments = ("--config", trained, *tiny[2:], "--out", tmp_path / "other")
    outcome = run("predict", pictures / "b.jpg", *arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("detectron2 predict: error: cannot read the image")


def test_interrupted_training(run, tiny, tmp_path, monkeypatch):
    def interrupt(cfg, **_):
        (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
        raise KeyboardInterrupt

    monkeypatch.setattr("detectron2.cli._trainer.train", interrupt)
    outcome = run("train", *tiny, f"OUTPUT_DIR={tmp_path}")
    assert outcome.status == 130
    told = f"--resume goes on from {tmp_path}/model_0000004.pth\ninterrupted\n"
    assert outcome.err == told


def test_analyze(run, tiny):
    outcome = run("analyze", *tiny[:6], "--size", "64", "96", "--operators")
    assert outcome.status == 0, outcome.err
    rows = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if line.strip()}
    # 3 x 3 convolutions of 3 to 8 and 8 to 8 channels.
    assert rows["backbone"][0] == f"{(3 * 8 * 9 + 8 + 3 * (8 * 8 * 9 + 8)) / 1e6:.3f}"
    operations = 64 * 96 * 9 * (3 * 8 / 4 + 8 * 8 / 16 + 8 * 8 / 64 + 8 * 8 / 256)
    assert rows["backbone"][1] == f"{operations / 1e9:.3f}"
    assert "conv" in rows
    assert outcome.out.endswith("image: 64 x 96\n")
    outcome = run("analyze", *tiny[:6], "--structure")
    assert "TinyBackbone" in outcome.out


def test_benchmark(run, tiny):
    times = ("--iterations", "2", "--warmup", "1")
    outcome = run("benchmark", "infer", *tiny, *times, "--size", "64", "64", "--batch", "3")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("inference on 64 x 64, 3 images at a time in 1 processes: ")
    # Whatever the schedule, the numbers must not run away meanwhile.
    outcome = run("benchmark", "train", *tiny, *times, "SOLVER.BASE_LR=1e20")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("training, 2 images at a time in 1 processes: ")
    outcome = run("benchmark", "data", *tiny, *times)
    assert outcome.status == 0, outcome.err
    assert "Mapper in one process" in outcome.out


@pytest.mark.parametrize("task", ["infer", "train"])
def test_benchmark_loads_the_weights_named(run, tiny, tmp_path, task):
    file = tmp_path / "other.pth"
    torch.save({"model": {"unknown": torch.zeros(1)}}, file)
    outcome = run("benchmark", task, *tiny, "--weights", file, "--iterations", "1")
    assert outcome.status != 0
    assert "unknown" in outcome.err


def test_data(run, shapes, tmp_path):
    file = shapes / "val" / "instances.json"
    outcome = run("data", "check", file, "--image-root", shapes / "val" / "images")
    assert outcome.status == 0, outcome.err
    assert "nothing found" in outcome.out

    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [1, 2, float("nan"), 4]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(content))
    outcome = run("data", "check", broken, "--no-images")
    assert outcome.status == 1
    assert "error: " in outcome.out

    arguments = ("--dataset", f"mine={file}:{shapes}/val/images", "--out", tmp_path / "shown")
    outcome = run("data", "show", "mine", *arguments, "--number", "3")
    assert outcome.status == 0, outcome.err
    assert len(list((tmp_path / "shown").iterdir())) == 3

    arguments = ("--train", "2", "--val", "1", "--size", "32", "48", "--classes", "star")
    outcome = run("data", "shapes", tmp_path / "new", *arguments, "--max-shapes", "1")
    assert outcome.status == 0, outcome.err
    made = json.loads((tmp_path / "new" / "train" / "instances.json").read_text())
    assert [(i["height"], i["width"]) for i in made["images"]] == [(32, 48)] * 2
    assert len(made["annotations"]) == 2
    assert run("data", "shapes", tmp_path / "new").status == 2


def test_two_processes(run, tiny, tmp_path):
    outcome = run("train", *tiny, "--num-gpus", "2", f"OUTPUT_DIR={tmp_path}/out")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "out" / "log.txt.rank1").exists()
    assert "World size: 2" in (tmp_path / "out" / "log.txt").read_text()
    state = torch.load(tmp_path / "out" / "model_final.pth", weights_only=False)
    assert state["iteration"] == 2


def test_lazy_config(run, tiny, shapes, tmp_path):
    """Trained, resumed, evaluated, used, by the file and by the output folder."""
    config = tmp_path / "lazy.py"
    config.write_text(LAZY_CONFIG)
    folder, rest = tmp_path / "lazy", tiny[2:]
    outcome = run("train", "--config", config, *rest, f"train.output_dir={folder}")
    assert outcome.status == 0, outcome.err
    assert "total_loss" in outcome.out
    metrics = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]

    outcome = run("train", "--config", folder, *rest, "--resume", "train.max_iter=5")
    assert outcome.status == 0, outcome.err
    assert "Starting training from iteration 3" in (folder / "log.txt").read_text()

    weights = folder / "model_final.pth"
    assert torch.load(weights, weights_only=False)["iteration"] == 4
    results = tmp_path / "results.json"
    outcome = run("eval", "--config", folder, *rest, "--results", results)
    assert outcome.status == 0, outcome.err
    found = json.loads(results.read_text())["tiny_val"]["bbox"]
    assert found.keys() >= {"AP", "AP50"}
    assert "bbox/AP50" in metrics[-1]

    images = shapes / "val" / "images"
    out = tmp_path / "predictions"
    arguments = ("--config", config, *rest, "--weights", weights, "--out", out)
    outcome = run("predict", images, *arguments, "--threshold", "0")
    assert outcome.status == 0, outcome.err
    assert len(list(out.glob("*.jpg"))) == 4
    categories = json.loads((out / "predictions.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["ellipse", "star"]

    outcome = run("analyze", "--config", config, *rest[:4], "--size", "64", "64")
    assert outcome.status == 0, outcome.err
    arguments = ("--config", config, *rest, f"train.output_dir={tmp_path}")
    outcome = run("train", *arguments, "model.num_classes=1")
    assert outcome.status == 2
    assert "but model.num_classes is 1: add model.num_classes=2" in outcome.err
    outcome = run("train", "--config", config, *rest, "optimizer.lr.x=1")
    assert outcome.status == 2
    assert "optimizer.lr" in outcome.err


def test_export(run, tiny, trained, shapes, tmp_path):
    """A program, for an image of another size; and a trace."""
    from detectron2.data.detection_utils import read_image

    arguments = ("--config", trained, *tiny[2:6], "--size", "80", "96")
    outcome = run("export", *arguments, "--out", tmp_path / "model.pt2")
    assert outcome.status == 0, outcome.err
    names = outcome.out.splitlines()[-1].removeprefix("outputs: ").split(", ")
    assert {"pred_boxes", "scores", "pred_classes", "pred_masks"} <= set(names)
    pixels = read_image(shapes / "val" / "images" / "000001.jpg", format="BGR")
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
    of_program = torch.export.load(tmp_path / "model.pt2").module()(image)
    assert len(of_program) == len(names)

    arguments = (*arguments[:-2], "64", "64", "--format", "torchscript")
    outcome = run("export", *arguments, "--out", tmp_path / "model.ts")
    assert outcome.status == 0, outcome.err
    of_trace = torch.jit.load(tmp_path / "model.ts")(image)
    for a, b in zip(of_program, of_trace, strict=True):
        torch.testing.assert_close(a, b)
