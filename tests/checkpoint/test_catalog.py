"""Names of published models, and the paths that they stand for."""

import pytest

from detectron2.checkpoint import catalog
from detectron2.utils.file_io import PathManager


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Paths that were asked for; each gets a file that says it."""
    asked_for = []

    def download(self, path, force=False, **kwargs):
        asked_for.append((path, force))
        local = tmp_path / "downloaded"
        local.write_text(path)
        return str(local)

    monkeypatch.setattr("detectron2.utils._download.URLHandler._get_local_path", download)
    return asked_for


S3 = "https://dl.fbaipublicfiles.com/detectron"
COCO = "coco_2014_train%3Acoco_2014_valminusminival"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ImageNetPretrained/MSRA/R-50", f"{S3}/ImageNetPretrained/MSRA/R-50.pkl"),
        (
            "ImageNetPretrained/FAIR/X-101-32x8d",
            f"{S3}/ImageNetPretrained/20171220/X-101-32x8d.pkl",
        ),
        (
            "Caffe2Detectron/COCO/35857345/e2e_faster_rcnn_R-50-FPN_1x",
            f"{S3}/35857345/12_2017_baselines/e2e_faster_rcnn_R-50-FPN_1x.yaml.01_36_30.cUF7QR7I"
            f"/output/train/{COCO}/generalized_rcnn/model_final.pkl",
        ),
        (
            "Caffe2Detectron/COCO/37697547/e2e_keypoint_rcnn_R-50-FPN_1x",
            f"{S3}/37697547/12_2017_baselines/e2e_keypoint_rcnn_R-50-FPN_1x.yaml.08_42_54.kdzV35ao"
            "/output/train/keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival"
            "/generalized_rcnn/model_final.pkl",
        ),
        (
            "Caffe2Detectron/COCO/35998355/rpn_R-50-C4_1x",
            f"{S3}/35998355/12_2017_baselines/rpn_R-50-C4_1x.yaml.08_00_43.njH5oD9L"
            f"/output/train/{COCO}/rpn/model_final.pkl",
        ),
        (
            "Caffe2Detectron/COCO/35998814/rpn_R-50-FPN_1x",
            f"{S3}/35998814/12_2017_baselines/rpn_R-50-FPN_1x.yaml.08_06_03.Axg0r179"
            f"/output/train/{COCO}/generalized_rcnn/model_final.pkl",
        ),
    ],
)
def test_names_stand_for_urls(name, url, downloads):
    assert catalog.ModelCatalog.get(name) == url
    local = PathManager.get_local_path(f"catalog://{name}")
    assert downloads == [(url, False)]
    with open(local) as file:
        assert file.read() == url
    with PathManager.open(f"catalog://{name}") as file:
        assert file.read() == url


def test_all_models_have_urls():
    assert len(catalog.ModelCatalog.C2_IMAGENET_MODELS) == 7
    assert len(catalog.ModelCatalog.C2_DETECTRON_MODELS) == 13
    names = [f"ImageNetPretrained/{key}" for key in catalog.ModelCatalog.C2_IMAGENET_MODELS]
    names += [f"Caffe2Detectron/COCO/{key}" for key in catalog.ModelCatalog.C2_DETECTRON_MODELS]
    assert len({catalog.ModelCatalog.get(name) for name in names}) == 20


def test_models_of_the_zoo_have_urls(downloads):
    PathManager.get_local_path("detectron2://COCO-Detection/x/model_final.pkl")
    url = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/x/model_final.pkl"
    assert downloads == [(url, False)]


def test_unknown_names_are_errors():
    with pytest.raises(KeyError, match=r"ImageNetPretrained/R-18.*MSRA/R-50"):
        catalog.ModelCatalog.get("ImageNetPretrained/R-18")
    with pytest.raises(KeyError, match="Caffe2Detectron/COCO/1/x"):
        catalog.ModelCatalog.get("Caffe2Detectron/COCO/1/x")
    with pytest.raises(RuntimeError, match="Detectron/R-50"):
        PathManager.get_local_path("catalog://Detectron/R-50")
