import ast
import copy
import pickle

import pytest
import yaml

from detectron2.config import CfgNode, get_cfg, global_cfg, set_global_cfg


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_get_cfg_copies_the_defaults():
    cfg = get_cfg()
    cfg.MODEL.RPN.IN_FEATURES.append("p7")
    cfg.MODEL.MASK_ON = True
    assert get_cfg().MODEL.RPN.IN_FEATURES == ["res4"]
    assert get_cfg().MODEL.MASK_ON is False
    assert get_cfg().VERSION == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOLVER.STEPS", (30000,)),
        ("SOLVER.WARMUP_FACTOR", 0.001),
        ("SOLVER.WEIGHT_DECAY_BIAS", None),
        ("INPUT.CROP.SIZE", [0.9, 0.9]),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6, 0.7)),
        ("MODEL.RPN.IOU_LABELS", [0, -1, 1]),
        ("MODEL.ANCHOR_GENERATOR.ANGLES", [[-90, 0, 90]]),
        ("TEST.PRECISE_BN.NUM_ITER", 200),
    ],
)
def test_defaults_have_their_types(name, value):
    found = dict(leaves(get_cfg()))[name]
    assert found == value
    assert type(found) is type(value)


def test_dump_and_reload_keep_every_value_and_type(write):
    # The reference turns the tuple of tuples into one of lists.
    cfg = get_cfg()
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64, 128]]
    cfg.DATASETS.TRAIN = ("a", "b")
    cfg.OUTPUT_DIR = "2026"
    reloaded = get_cfg()
    reloaded.merge_from_file(write("dump.yaml", cfg.dump()))
    assert {k: repr(v) for k, v in leaves(reloaded)} == {k: repr(v) for k, v in leaves(cfg)}


def test_dump_is_plain_yaml():
    loaded = yaml.safe_load(get_cfg().dump())
    assert loaded["SOLVER"]["STEPS"] == [30000]
    assert list(loaded) == sorted(loaded)
    assert "_BASE_" not in loaded


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([[1.0, 2.0]], ((1.0, 2.0),)),
        ("[[1.0, 2.0], [3.0]]", ((1.0, 2.0), (3.0,))),
        ([], ()),
        ("((1.0,),)", ((1.0,),)),
    ],
)
def test_nested_sequences_become_what_the_default_has(given, kept):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", given])
    assert kept == cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
    cfg.merge_from_list(["MODEL.ANCHOR_GENERATOR.SIZES", ((1, 2), (3,))])
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[1, 2], [3]]


def test_mixed_sequences_are_matched_item_by_item():
    cfg = CfgNode({"A": [1, (2, 3), [4]], "B": [1, (2,)]})
    cfg.merge_from_other_cfg(CfgNode({"A": (5, [6], (7,)), "B": [[8], [9], 1]}))
    assert cfg.A == [5, (6,), [7]]
    assert cfg.B == [[8], [9], 1]


def test_strings_stay_strings():
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "5", "MODEL.WEIGHTS", "(a, b)", "MODEL.DEVICE", "'cpu'"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE) == ("5", "(a, b)", "cpu")
    cfg.merge_from_list(["OUTPUT_DIR", "None"])
    assert cfg.OUTPUT_DIR is None


def test_merge_from_list_reads_literals():
    cfg = get_cfg()
    opts = ["SOLVER.BASE_LR", "1e-2", "SEED", 7, "DATASETS.TEST", "('x',)", "MODEL.MASK_ON", "True"]
    cfg.merge_from_list(opts)
    assert ast.literal_eval("1e-2") == cfg.SOLVER.BASE_LR
    assert (cfg.SEED, cfg.DATASETS.TEST, cfg.MODEL.MASK_ON) == (7, ("x",), True)
    assert opts[1] == "1e-2"


@pytest.mark.parametrize(
    ("opts", "error"),
    [
        (["SEED"], AssertionError),
        (["NOPE.X", 1], AssertionError),
        (["SEED.X", 1], (AssertionError, TypeError)),
        (["SOLVER.BASE_LR", "1"], ValueError),
        (["SOLVER.BASE_LR", "abc"], ValueError),
        (["MODEL.MASK_ON", 1], ValueError),
        (["_BASE_", "x"], AssertionError),
    ],
)
def test_merge_from_list_refuses(opts, error):
    with pytest.raises(error):
        get_cfg().merge_from_list(opts)


def test_bases(write):
    write("base.yaml", "MODEL:\n  MASK_ON: True\n  DEVICE: cpu\nSOLVER:\n  STEPS: (3, 4)\n")
    write("other.yaml", "SEED: 1\nMODEL:\n  DEVICE: mps\n")
    middle = write("sub/middle.yaml", "_BASE_: '../base.yaml'\nMODEL:\n  MASK_ON: False\nSEED: 3\n")
    several = write("several.yaml", "_BASE_: ['sub/middle.yaml', 'other.yaml']\nVERSION: 2\n")
    absolute = write("deep/er/absolute.yaml", f"_BASE_: {middle}\n")
    assert CfgNode.load_yaml_with_base(absolute) == {
        "MODEL": {"MASK_ON": False, "DEVICE": "cpu"},
        "SOLVER": {"STEPS": "(3, 4)"},
        "SEED": 3,
    }
    cfg = get_cfg()
    cfg.merge_from_file(several)
    assert (cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON, cfg.SEED) == ("mps", False, 1)
    assert cfg.SOLVER.STEPS == (3, 4)


def test_base_below_the_home_folder(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("home/base.yaml", "SEED: 11\n")
    cfg = get_cfg()
    cfg.merge_from_file(write("x/child.yaml", "_BASE_: ~/base.yaml\nVERSION: 2\n"))
    assert cfg.SEED == 11


def test_base_behind_a_handler_of_the_path_manager(write, register_prefix):
    register_prefix("zootest://")
    write("zoo/base.yaml", "_BASE_: root.yaml\nSEED: 5\n")
    write("zoo/root.yaml", "SEED: 6\nOUTPUT_DIR: z\n")
    cfg = get_cfg()
    cfg.merge_from_file(write("child.yaml", "_BASE_: zootest://zoo/base.yaml\nVERSION: 2\n"))
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (5, "z")


def test_files_that_cannot_be_read(write, tmp_path):
    write("a.yaml", "_BASE_: b.yaml\n")
    with pytest.raises(ValueError, match=r"circle.*b\.yaml.*a\.yaml.*b\.yaml"):
        get_cfg().merge_from_file(write("b.yaml", "_BASE_: a.yaml\n"))
    with pytest.raises(ValueError, match="mapping, not a list"):
        get_cfg().merge_from_file(write("list.yaml", "[1]"))
    write("leaf.yaml", "MODEL: 3\n")
    with pytest.raises(ValueError, match="MODEL is a section"):
        get_cfg().merge_from_file(write("section.yaml", "_BASE_: leaf.yaml\nMODEL: {X: 1}\n"))
    with pytest.raises(FileNotFoundError):
        get_cfg().merge_from_file(str(tmp_path / "absent.yaml"))
    with pytest.raises(KeyError, match="NO_SUCH"):
        get_cfg().merge_from_file(write("unknown.yaml", "NO_SUCH: 1\n"))
    with pytest.raises(ValueError, match="version 99"):
        get_cfg().merge_from_file(write("later.yaml", "VERSION: 99\n"))


def test_empty_file_changes_nothing(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("empty.yaml", "# nothing\n"))
    assert cfg == get_cfg()


def test_unsafe_tags_are_taken_on_request_only(write, caplog):
    path = write("unsafe.yaml", "VERSION: 2\nSEED: !!python/object/apply:len ['abc']\n")
    with pytest.raises(yaml.constructor.ConstructorError):
        get_cfg().merge_from_file(path, allow_unsafe=False)
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert cfg.SEED == 3
    assert "trust its source" in caplog.text


def test_a_node_without_version_merges_files_as_they_are(write):
    cfg = CfgNode({"A": {"B": 1}})
    cfg.merge_from_file(write("own.yaml", "A: {B: 2}"))
    assert cfg.A.B == 2


def test_frozen_and_computed():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SEED = 3
    with pytest.raises(AttributeError, match="'SEDE'"):
        _ = cfg.SEDE
    cfg.defrost()
    cfg.COMPUTED_X = 1
    cfg.COMPUTED_X = 1
    with pytest.raises(KeyError):
        cfg.COMPUTED_X = 2


def test_merging_leaves_its_source_alone():
    source = CfgNode({"MODEL": {"ROI_BOX_CASCADE_HEAD": {"BBOX_REG_WEIGHTS": [[1.0, 2.0]]}}})
    before = copy.deepcopy(source)
    get_cfg().merge_from_other_cfg(source)
    assert source == before
    node = source.MODEL.ROI_BOX_CASCADE_HEAD
    assert type(node.BBOX_REG_WEIGHTS[0]) is list


def test_optional_key_is_hidden_until_it_is_set(write):
    cfg = get_cfg()
    assert cfg.SOLVER.AMP.DTYPE == "float16"
    assert "DTYPE" not in cfg.SOLVER.AMP
    cfg.merge_from_list(["SOLVER.AMP.DTYPE", "bfloat16"])
    reloaded = get_cfg()
    reloaded.merge_from_file(write("dump.yaml", cfg.dump()))
    assert reloaded.SOLVER.AMP == {"ENABLED": False, "DTYPE": "bfloat16"}
    assert pickle.loads(pickle.dumps(get_cfg())).clone().SOLVER.AMP.DTYPE == "float16"
    assert get_cfg().SOLVER.AMP == {"ENABLED": False}
    with pytest.raises(ValueError, match="DTYPE"):
        get_cfg().merge_from_other_cfg(CfgNode({"SOLVER": {"AMP": {"DTYPE": 16}}}))


def test_samplers_keys_can_be_merged():
    # In the reference they are unknown.
    cfg = get_cfg()
    cfg.merge_from_list(
        ["DATALOADER.RANDOM_SUBSET_RATIO", "0.5", "DATASETS.TRAIN_REPEAT_FACTOR", "[('a', 2.0)]"]
    )
    assert cfg.DATALOADER.RANDOM_SUBSET_RATIO == 0.5
    assert cfg.DATASETS.TRAIN_REPEAT_FACTOR == [("a", 2.0)]


def test_global_cfg_shares_the_sections():
    cfg = get_cfg()
    set_global_cfg(cfg)
    try:
        cfg.SOLVER.BASE_LR = 0.5
        assert global_cfg.SOLVER.BASE_LR == 0.5
        set_global_cfg(CfgNode({"A": 1}))
        assert global_cfg == {"A": 1}
    finally:
        set_global_cfg(CfgNode())
