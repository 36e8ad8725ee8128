import pytest

from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version


@pytest.fixture
def merged(tmp_path):
    def merged(text):
        path = tmp_path / "old.yaml"
        path.write_text(text)
        cfg = get_cfg()
        cfg.SEED = 42
        cfg.merge_from_file(str(path))
        assert cfg.VERSION == 2
        assert cfg.SEED == 42
        return cfg

    return merged


@pytest.mark.parametrize("version", [0, 1, 2])
def test_there_and_back(version):
    cfg = get_cfg()
    cfg.MODEL.WEIGHTS = "w"
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    old = downgrade_config(cfg, to_version=version)
    assert version == old.VERSION
    assert upgrade_config(old) == cfg
    assert cfg.VERSION == 2


def test_names_of_version_1():
    old = downgrade_config(get_cfg(), to_version=1)
    assert old.MODEL.WEIGHT == ""
    assert old.MODEL.PANOPTIC_FPN == {
        "SEMANTIC_LOSS_SCALE": 1.0,
        "RPN_LOSS_SCALE": 1.0,
        "INSTANCE_LOSS_SCALE": 1.0,
        "COMBINE_ON": True,
        "COMBINE_OVERLAP_THRESHOLD": 0.5,
        "COMBINE_STUFF_AREA_LIMIT": 4096,
        "COMBINE_INSTANCES_CONFIDENCE_THRESHOLD": 0.5,
    }
    assert tuple(range(400, 1300, 100)) == old.TEST.AUG_MIN_SIZES
    assert "AUG" not in old.TEST
    assert old.MODEL.RPN.ANCHOR_SIZES == old.MODEL.RETINANET.ANCHOR_SIZES
    assert old.MODEL.RETINANET.ANCHOR_STRIDES == []
    assert sorted(old.MODEL.ANCHOR_GENERATOR) == ["ANGLES", "NAME", "OFFSET"]


def test_names_of_version_0():
    old = downgrade_config(get_cfg(), to_version=0)
    assert old.MODEL.RPN_HEAD.NAME == "StandardRPNHead"
    assert "HEAD_NAME" not in old.MODEL.RPN
    assert "RPN_HEAD" not in upgrade_config(old, to_version=1).MODEL


def test_file_without_version_is_told_by_its_keys(merged, caplog):
    cfg = merged(
        "MODEL:\n  WEIGHT: w\n  RPN: {ANCHOR_SIZES: [[10], [20]]}\n  ROI_HEADS: {NMS: 0.2}\n"
        "TEST: {AUG_MIN_SIZES: [1, 2], DETECTIONS_PER_IMG: 7}\n"
    )
    assert cfg.MODEL.WEIGHTS == "w"
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[10], [20]]
    assert cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST == 0.2
    assert cfg.TEST.AUG.MIN_SIZES == (1, 2)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 7
    assert "version 1" in caplog.text


def test_the_meta_architecture_decides_on_the_anchors(merged):
    retinanet = (
        "VERSION: 1\nMODEL:\n  RETINANET: {ANCHOR_SIZES: [[5]]}\n  RPN: {ANCHOR_SIZES: [[6]]}"
    )
    assert merged(retinanet).MODEL.ANCHOR_GENERATOR.SIZES == [[6]]
    retinanet += "\n  META_ARCHITECTURE: RetinaNet"
    assert merged(retinanet).MODEL.ANCHOR_GENERATOR.SIZES == [[5]]


def test_a_file_of_version_0(merged):
    assert merged("VERSION: 0\nMODEL: {RPN_HEAD: {NAME: Mine}}").MODEL.RPN.HEAD_NAME == "Mine"


def test_keys_of_another_version_are_unknown(merged):
    with pytest.raises(KeyError, match=r"MODEL\.WEIGHT"):
        merged("VERSION: 2\nMODEL: {WEIGHT: x}")


def test_guess_version():
    assert guess_version(CfgNode({"TEST": {"AUG_ON": True}}), "a") == 1
    assert guess_version(CfgNode({"MODEL": {"WEIGHT": "x"}}), "a") == 1
    assert guess_version(CfgNode({"MODEL": {"WEIGHTS": "x"}}), "a") == 2
    assert guess_version(CfgNode({"MODEL": 1}), "a") == 2


def test_frozen_configs_convert():
    cfg = get_cfg()
    cfg.freeze()
    assert downgrade_config(cfg, to_version=0).VERSION == 0


def test_bad_versions(merged, tmp_path):
    cfg = get_cfg()
    for version in (3, -1):
        with pytest.raises(ValueError, match=f"from version 2 to {version}"):
            downgrade_config(cfg, to_version=version)
    for version in (1, 3):
        with pytest.raises(ValueError, match=f"from version 2 to {version}"):
            upgrade_config(cfg, to_version=version)
    (tmp_path / "x.yaml").write_text("VERSION: 1")
    with pytest.raises(ValueError, match="not 1"):
        downgrade_config(cfg, to_version=1).merge_from_file(str(tmp_path / "x.yaml"))
