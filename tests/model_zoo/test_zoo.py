"""Configs, URLs and models by name."""

import contextlib
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import PanopticFPN, RetinaNet

NAMES = list(json.loads(Path(__file__).with_name("configs.json").read_text()))
URL = "https://dl.fbaipublicfiles.com/detectron2/"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x"
RETINANET_WEIGHTS = f"{RETINANET}/190397773/model_final_bfca0b.pkl"
PANOPTIC = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x"
PANOPTIC_WEIGHTS = f"{PANOPTIC}/139514544/model_final_dbfeb4.pkl"
NO_WEIGHTS = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou.yaml"


def _urls() -> dict[str, str]:
    urls = {}
    for name in NAMES:
        with contextlib.suppress(RuntimeError):
            urls[name] = model_zoo.get_checkpoint_url(name)
    return urls


def test_checkpoint_urls() -> None:
    urls = _urls()
    assert len(urls) == 69
    assert all(url.startswith(URL) for url in urls.values())
    # YAML and Python configs of the same name are of the same model.
    assert urls[f"{RETINANET}.yaml"] == URL + RETINANET_WEIGHTS
    assert urls[f"{RETINANET}.py"] == URL + RETINANET_WEIGHTS
    assert urls["Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv.yaml"] == (
        f"{URL}Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv/18131413/"
        "model_0039999_e76410.pkl"
    )
    text = "\n".join(f"{name} {urls[name].removeprefix(URL)}" for name in sorted(urls))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9f6e3291455e1d77", text


def test_config_files() -> None:
    files = [Path(model_zoo.get_config_file(name)) for name in NAMES]
    assert all(file.is_absolute() and file.is_file() for file in files)
    assert [str(file)[-len(name) :] for file, name in zip(files, NAMES, strict=True)] == NAMES


@pytest.mark.parametrize("function", ["get_config_file", "get_config", "get"])
@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        # Another extension, version or schedule, and a slip.
        (f"{RETINANET}.yml", f"; did you mean '{RETINANET}.yaml'"),
        ("COCO-Detection/retinanet_R_50_FPN_2x.yaml", f"'{RETINANET}.yaml'"),
        ("COCO-Detection/retinanet_r50_FPN_1x.yaml", f"'{RETINANET}.yaml'"),
        ("ImageNet/vgg.yaml", "is not in the model zoo$"),
        ("COCO-Detection", "is not in the model zoo$"),
        ("", "is not in the model zoo$"),
    ],
)
def test_no_such_config(function: str, name: str, suggestion: str) -> None:
    with pytest.raises(RuntimeError, match=f"^'{name}' is not in the model zoo") as raised:
        getattr(model_zoo, function)(name)
    assert raised.match(suggestion)


def test_no_such_weights() -> None:
    with pytest.raises(RuntimeError, match=r"published for 'x/y\.yaml'$"):
        model_zoo.get_checkpoint_url("x/y.yaml")
    for function in (model_zoo.get_config, model_zoo.get):
        with pytest.raises(RuntimeError, match="No weights are published") as raised:
            function(NO_WEIGHTS, trained=True)
        raised.match(r"did you mean .*'COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x\.yaml'")


@pytest.mark.parametrize(("name", "url"), _urls().items())
def test_trained_config(name: str, url: str) -> None:
    trained, initial = model_zoo.get_config(name, trained=True), model_zoo.get_config(name)
    if isinstance(trained, CfgNode):
        weights = trained.MODEL.WEIGHTS
        trained.MODEL.WEIGHTS = initial.MODEL.WEIGHTS
    else:
        weights = trained.train.init_checkpoint
        trained.train.init_checkpoint = initial.train.init_checkpoint
        # Functions of config files are made anew.
        trained, initial = trained.train, initial.train
    assert weights == url
    assert trained == initial


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the files of ``URL``."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    return tmp_path / "detectron2"


def _save(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))


def test_get_trained_model(cache: Path) -> None:
    bias = np.arange(720, dtype=np.float32)
    _save(
        cache / RETINANET_WEIGHTS,
        {"model": {"head.cls_score.bias": bias}, "__author__": "Detectron2 Model Zoo"},
    )
    for extension in (".yaml", ".py"):
        model = model_zoo.get(RETINANET + extension, trained=True, device="cpu")
        assert type(model) is RetinaNet
        assert model.training
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        assert np.array_equal(model.head.cls_score.bias.detach(), bias)


def test_get_model_that_training_starts_from(cache: Path) -> None:
    # As Caffe2 named and stored it.
    weight = np.random.default_rng(0).random((64, 3, 7, 7), dtype=np.float32)
    _save(cache / "ImageNetPretrained/MSRA/R-50.pkl", {"blobs": {"conv1_w": weight}})
    for extension in (".yaml", ".py"):
        model = model_zoo.get(PANOPTIC + extension, device="cpu")
        assert type(model) is PanopticFPN
        assert np.array_equal(model.backbone.bottom_up.stem.conv1.weight, weight)
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 64, 96), "height": 32, "width": 48}])
    assert output["sem_seg"].shape == (54, 32, 48)


def test_without_weights_or_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Its config asks for CUDA, and begins from scratch.
    model = model_zoo.get("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py")
    assert {p.device.type for p in model.parameters()} == {"cpu"}
