"""Parts of the command line: configurations, inputs, the terminal, the test of operators."""

import argparse
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2 import model_zoo
from detectron2.cli import _self_test
from detectron2.cli._config import device_of, is_lazy, load_config, weights_of
from detectron2.cli._datasets import check_files
from detectron2.cli._errors import UsageError
from detectron2.cli._images import find_inputs, read_inputs
from detectron2.cli._terminal import ProgressBar, bar_text, print_results
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

FASTER_RCNN = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
LAZY_FCOS = "COCO-Detection/fcos_R_50_FPN_1x.py"


def arguments(config, *overrides, weights=None, device="cpu", modules=()):
    return argparse.Namespace(
        config=str(config), overrides=overrides, weights=weights, device=device, modules=modules
    )


def test_names_of_the_zoo():
    cfg = load_config(arguments(FASTER_RCNN), trained=True)
    assert weights_of(cfg) == model_zoo.get_checkpoint_url(FASTER_RCNN + ".yaml")
    assert device_of(cfg) == "cpu"
    cfg = load_config(arguments(FASTER_RCNN + ".yaml"), trained=False)
    assert weights_of(cfg) == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    cfg = load_config(arguments("COCO-Detection/fcos_R_50_FPN_1x"), trained=False)
    assert is_lazy(cfg)
    assert device_of(cfg) == "cpu"


def test_weights_that_are_named_win():
    cfg = load_config(arguments(FASTER_RCNN, weights="mine.pth"), trained=True)
    assert weights_of(cfg) == "mine.pth"
    unpublished = "quick_schedules/mask_rcnn_R_50_FPN_instant_test.yaml"
    with pytest.raises(UsageError, match="--weights names some"):
        load_config(arguments(unpublished), trained=True)
    cfg = load_config(arguments(unpublished, "MODEL.WEIGHTS=mine.pth"), trained=True)
    assert weights_of(cfg) == "mine.pth"


def test_overrides_keep_types():
    cfg = load_config(
        arguments(FASTER_RCNN, "SOLVER.STEPS=(1, 2)", "OUTPUT_DIR=a=b", "MODEL.WEIGHTS="),
        trained=False,
    )
    assert cfg.SOLVER.STEPS == (1, 2)
    assert cfg.OUTPUT_DIR == "a=b"
    assert cfg.MODEL.WEIGHTS == ""
    for wrong in ("SOLVER.MAX_ITER=many", "SOLVER.NO_SUCH=1", "MODEL.RPN=3"):
        with pytest.raises(UsageError, match=wrong.partition("=")[0]):
            load_config(arguments(FASTER_RCNN, wrong), trained=False)


def test_keys_of_projects(tmp_path):
    file = tmp_path / "point_rend.yaml"
    file.write_text("VERSION: 2\nMODEL: {POINT_HEAD: {NUM_FC: 1}}\n")
    with pytest.raises(UsageError, match="POINT_HEAD"):
        load_config(arguments(file), trained=False)
    cfg = load_config(arguments(file, modules=["detectron2.projects.point_rend"]), trained=False)
    assert isinstance(cfg, CfgNode)
    assert cfg.MODEL.POINT_HEAD.NUM_FC == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.maxiter=3",
            r"no train\.maxiter; did you mean train\.max_iter\? \+train\.maxiter=3",
        ),
        ("nothing.like.it=3", r"there is no nothing; \+nothing\.like\.it=3 would add it"),
        ("train.amp.dtype.x=3", r"there is no train\.amp\.dtype;"),
        ("train.max_iter=many", r"train\.max_iter is 90000 and cannot become text"),
        ("train.amp.enabled=yes_please", "is False and cannot become text"),
        ("train.max_iter.x=3", "a int, which has no keys"),
    ],
)
def test_overrides_that_lazy_configs_do_not_know(override, message):
    with pytest.raises(UsageError, match=message):
        load_config(arguments(LAZY_FCOS, override), trained=False)


def test_overrides_of_lazy_configs():
    overrides = (
        *(
            "train.max_iter=3",
            "train.seed=1",
            "+train.mine=2",
            "++mine.a.b=3",
            "train.output_dir=1",
        ),
        *("model.head.norm=GN", "model.not_yet.known=5", "dataloader.train.num_workers=null"),
        "optimizer.lr=${train.max_iter}",
    )
    cfg = load_config(arguments(LAZY_FCOS, *overrides), trained=False)
    assert (cfg.train.max_iter, cfg.train.seed, cfg.train.mine, cfg.mine.a.b) == (3, 1, 2, 3)
    assert (cfg.model.head.norm, cfg.model.not_yet.known, cfg.optimizer.lr) == ("GN", 5, 3)


def test_data_sets_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"'no_set'; --dataset no_set=PATH registers one"):
        check_files(["no_set"])
    with pytest.raises(UsageError, match="did you mean coco_2017_train"):
        check_files(["coco_2017_trian"])
    file = tmp_path / "no.json"
    monkeypatch.setitem(vars(MetadataCatalog.get("coco_2017_val")), "json_file", str(file))
    monkeypatch.setitem(vars(MetadataCatalog.get("coco_2017_val")), "image_root", str(tmp_path))
    with pytest.raises(UsageError, match=r"coco_2017_val is not there: .*no\.json is missing"):
        check_files(["coco_2017_val"])
    file.write_text("{}")
    check_files(["coco_2017_val"])


def test_the_cpu_where_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(load_config(arguments(FASTER_RCNN, device=None), trained=False)) == "cpu"
    assert "using the CPU" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(load_config(arguments(FASTER_RCNN, device=None), trained=False)) == "cuda"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "--device gpu: there is no such kind"),
        ("cuda:3", r"--device cuda:3: PyTorch finds no CUDA device"),
    ],
)
def test_devices_that_are_not_there(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match=message):
        load_config(arguments(FASTER_RCNN, device=device), trained=False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "MODEL: [a", "ParserError: while parsing a flow sequence"),
        ("a.py", "x = (", "SyntaxError: '\\(' was never closed"),
        ("a.py", "import no_such_module", "No module named 'no_such_module'"),
        ("a.py", "model = 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_broken_configurations_are_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"--config .*{name}: {message}"):
        load_config(arguments(tmp_path / name), trained=False)


def test_folders_without_a_configuration(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.yaml"):
        load_config(arguments(tmp_path), trained=True)


def test_inputs(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("")
        else:
            Image.new("RGB", (5, 3), (255, 0, 0)).save(tmp_path / name)
    files = find_inputs([str(tmp_path)])
    assert [file.rpartition("/")[2] for file in files] == ["a.JPG", "b.png"]
    unreadable = []
    (tmp_path / "broken.png").write_bytes(b"no image")
    inputs = [*files, str(tmp_path / "broken.png"), str(tmp_path / "b.png")]
    images = list(read_inputs(inputs, unreadable))
    assert [image.name for image in images] == ["a", "b", "b_2"]
    assert images[1].pixels.shape == (3, 5, 3)
    assert images[1].pixels[0, 0].tolist() == [0, 0, 255]  # BGR
    (tmp_path / "empty").mkdir()
    (message,) = unreadable
    assert re.match(r"cannot read the image .*broken\.png': Unidentified", message)
    with pytest.raises(UsageError, match="no images"):
        find_inputs([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="neither an image nor a video"):
        find_inputs([str(tmp_path / "notes.txt")])


def test_images_of_every_kind(tmp_path):
    """8 bits, BGR and upright, whatever the file has."""
    rows = np.arange(0, 240, 40, dtype=np.uint8)[:, None]
    grey = Image.fromarray(np.repeat(rows, 4, axis=1))
    turned = Image.Exif()
    turned[0x0112] = 6
    folder = tmp_path / "ein Ordner ü 写真"
    folder.mkdir()
    grey.save(folder / "grey é.png")
    grey.convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(rows.astype(np.uint16).repeat(4, axis=1) * 257).save(folder / "deep.png")
    grey.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=turned)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    images = {image.name: image.pixels for image in read_inputs(find_inputs([str(folder)]), [])}
    assert images.pop("one").shape == (1, 1, 3)
    assert len(images) == 4
    for name, pixels in images.items():
        assert np.array_equal(pixels, np.repeat(np.asarray(grey)[..., None], 3, axis=2)), name


def test_videos(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    file = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 24))
    for value in (0, 100, 200):
        writer.write(np.full((24, 32, 3), value, np.uint8))
    writer.release()
    frames = list(read_inputs(find_inputs([file]), []))
    assert [frame.name for frame in frames] == [f"film_00000{i}" for i in range(3)]
    for frame, value in zip(frames, (0, 100, 200), strict=True):
        assert abs(frame.pixels.mean() - value) < 5
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match="opencv-python"):
        list(read_inputs([file], []))


def test_progress_is_for_terminals(monkeypatch, capsys):
    with ProgressBar(10, "work") as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar(10, "work") as bar:
        bar.update(10, "loss 1.5")
    shown = capsys.readouterr().err
    assert "work [########################] 10/10" in shown
    assert shown.endswith("\r\033[K")


def test_bar():
    assert bar_text("x", 5, 10, 10.0) == "x [############------------] 5/10  0.5/s  0:10 left"
    assert bar_text("x", 1, 7201, 1.0).endswith("  1/s  2:00:00 left")
    assert bar_text("x", 3, None, 2.0, "note") == "x 3  1.5/s  note"
    assert bar_text("x", 0, 10, 1.0) == "x [------------------------] 0/10"


def test_results(capsys):
    results = {"bbox": {"AP": 12.345, "AP-cat": 1.0, "AP50": float("nan")}, "speed": 2.0}
    print_results(results, "val")
    assert capsys.readouterr().out.splitlines() == [
        "val  bbox         AP 12.35 AP50 nan",
        "val  speed 2.00",
    ]
    print_results({}, "test")
    assert capsys.readouterr().out == "test  no metrics: there is no ground truth\n"


def test_operators_are_right():
    outcomes = list(_self_test.run(["cpu"]))
    assert {outcome.operator for outcome in outcomes} == _self_test._TESTS.keys()
    assert [outcome for outcome in outcomes if outcome.problem] == []
    # Each registered operator is called by one of the tests, or is the gradient of one that is.
    tested = {name.removesuffix("*") for name in _self_test._TESTS}
    rest = {name for name in _self_test.operators() if not name.startswith(tuple(tested))}
    assert rest == {"pairwise_ioa"}


@pytest.mark.gpu
def test_operators_are_right_on_the_gpu():
    assert [outcome for outcome in _self_test.run(["cuda"]) if outcome.problem] == []


def test_a_wrong_operator_is_found(run, monkeypatch):
    class Wrong:
        def __getattr__(self, name):
            operator = getattr(torch.ops.detectron2, name)
            if name in ("pairwise_iou", "sigmoid_focal_loss"):
                return lambda *a: operator(*a) * 1.01
            if name == "nms_rotated":
                return lambda *a: operator(*a).flip(0)
            return operator

    monkeypatch.setattr(_self_test, "_ops", Wrong())
    wrong = {outcome.operator for outcome in _self_test.run(["cpu"]) if outcome.problem}
    assert wrong == {"pairwise_iou", "sigmoid_focal_loss", "nms_rotated"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("detectron2.utils.collect_env.collect_env_info", lambda: "environment")
    outcome = run("info")
    assert outcome.status == 1
    assert outcome.out.startswith("environment\n")
    assert outcome.out.endswith("3 wrong\n")
    assert run("info", "--no-test").out == "environment\n"
