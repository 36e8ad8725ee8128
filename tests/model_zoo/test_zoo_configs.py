"""Configs say what those of Detectron2 say.

configs.json has, for each config, a digest of each section (of a YAML config, of what differs from
the defaults), some values in clear, the base file, and a digest of what refers to other values.
"""

import importlib.util
import json
import posixpath
from pathlib import Path

import pytest
import yaml

from detectron2 import model_zoo
from detectron2.config import CfgNode, instantiate
from detectron2.model_zoo import _checkpoints

from .values import digests, interpolations, values

FACTS = json.loads(Path(__file__).with_name("configs.json").read_text())
FOLDER = Path(_checkpoints.__file__).parent / "configs"


def test_all_configs_are_known() -> None:
    found = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        # Parts that configs share, and no configs.
        if path.suffix in (".py", ".yaml") and not path.name.startswith("_")
    }
    assert found == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_config(name: str, caplog: pytest.LogCaptureFixture) -> None:
    facts = FACTS[name]
    cfg = model_zoo.get_config(name)
    found = values(cfg)
    assert {key: found.get(key) for key in facts["values"]} == facts["values"]
    wanted = dict(section.split("=") for section in facts["sections"].split())
    differing = {key for key, digest in digests(found).items() if wanted.get(key) != digest}
    assert not differing, "\n".join(
        f"{key} = {value!r}" for key, value in found.items() if key.partition(".")[0] in differing
    )
    assert set(digests(found)) == set(wanted)
    if not isinstance(cfg, CfgNode):
        references = {f"all.{key}": value for key, value in interpolations(cfg).items()}
        assert digests(references).get("all") == facts.get("interpolations"), references
    assert not caplog.text


@pytest.mark.parametrize("name", [name for name in FACTS if name.endswith(".yaml")])
def test_base_of_yaml(name: str) -> None:
    content = yaml.safe_load((FOLDER / name).read_text())
    base = content.get("_BASE_")
    if base is not None:
        base = posixpath.normpath(posixpath.join(posixpath.dirname(name), base))
    assert base == FACTS[name].get("base")
    # So that no version needs to be guessed; other files get it from their base.
    assert content.get("VERSION") == (2 if base is None else None)


def test_configs_share_nothing() -> None:
    name = "new_baselines/mask_rcnn_R_101_FPN_200ep_LSJ.py"
    first, second = model_zoo.get_config(name), model_zoo.get_config(name)
    for key in list(first):
        first[key].clear()
    wanted = dict(section.split("=") for section in FACTS[name]["sections"].split())
    assert digests(values(second)) == wanted
    assert digests(values(model_zoo.get_config(name))) == wanted


def test_overriding_a_value_changes_those_that_refer_to_it() -> None:
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py")
    cfg.model.roi_heads.num_classes = 7
    cfg.model.roi_heads.res5.out_channels = 1024
    cfg.dataloader.train.mapper.image_format = "RGB"
    cfg.dataloader.test.dataset.names = "mine"
    assert cfg.model.roi_heads.box_predictor.num_classes == 7
    assert cfg.model.roi_heads.mask_head.num_classes == 7
    assert cfg.model.roi_heads.mask_head.input_shape.channels == 1024
    assert cfg.dataloader.test.mapper.image_format == "RGB"
    assert cfg.dataloader.evaluator.dataset_name == "mine"


@pytest.mark.skipif(importlib.util.find_spec("mmdet") is not None, reason="mmdet is installed")
def test_model_of_mmdet_needs_mmdet() -> None:
    cfg = model_zoo.get_config("Misc/mmdet_mask_rcnn_R_50_FPN_1x.py")
    with pytest.raises(ImportError, match="mmdet"):
        instantiate(cfg.model)
