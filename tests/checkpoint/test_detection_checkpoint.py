"""Saving and loading in one process: kinds of files, what is reported, and what fails."""

import collections
import io
import logging
import os
import pickle
import zipfile

import fvcore.common.checkpoint
import numpy as np
import pytest
import torch
import torchvision
from iopath.common.file_io import PathHandler
from torch import nn

from detectron2 import checkpoint
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.file_io import PathManager


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 1)
        self.res2 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(2, 2)
        self.register_buffer("pixel_mean", torch.zeros(3))


@pytest.fixture
def weights():
    """Weights of a backbone."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape, generator=generator).to(value.dtype)
        for name, value in Backbone().state_dict().items()
    }


def is_loaded(model, weights):
    own = model.backbone.state_dict()
    return all(torch.equal(own[name], value) for name, value in weights.items())


def arrays(weights):
    return {name: value.numpy() for name, value in weights.items()}


def in_model(weights):
    return {f"backbone.{name}": value for name, value in weights.items()}


def write(path, data):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(data, 2))
    else:
        torch.save(data, path)
    return str(path)


def test_the_package():
    assert checkpoint.PeriodicCheckpointer is fvcore.common.checkpoint.PeriodicCheckpointer
    assert checkpoint.Checkpointer is fvcore.common.checkpoint.Checkpointer
    assert issubclass(DetectionCheckpointer, checkpoint.Checkpointer)


FILES = {
    "checkpoint.pth": lambda w: {"model": in_model(w), "iteration": 4},
    "state_dict.pth": in_model,
    "ends.pth?matching_heuristics=True": lambda w: w,
    "ends_in_model.pth?matching_heuristics=True": lambda w: {"model": w},
    "of_ddp.pth": lambda w: {"model": {f"module.{k}": v for k, v in in_model(w).items()}},
    "ends_of_ddp.pth?matching_heuristics=True": lambda w: {f"module.{k}": v for k, v in w.items()},
    "pycls.pyth": lambda w: {"model_state": w, "cfg": "text"},
    "zoo.pkl": lambda w: {"model": arrays(in_model(w)), "__author__": "me"},
    "of_tensors.pkl": lambda w: {"model": in_model(w), "__author__": "me"},
    "ends.pkl": lambda w: {"model": arrays(w), "__author__": "me", "matching_heuristics": True},
    "ends_by_query.pkl?matching_heuristics=True": lambda w: {
        "model": arrays(w),
        "__author__": "torchvision",
    },
    "of_numpy.pth": lambda w: {"model": arrays(in_model(w))},
    "no_file_suffix": lambda w: {"model": in_model(w)},
}


@pytest.mark.parametrize("name", FILES)
def test_kinds_of_files(name, weights, tmp_path):
    write(tmp_path / name.partition("?")[0], FILES[name](weights))
    model = Model()
    head = model.head.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / name))
    if name == "pycls.pyth":
        weights.pop("res2.1.num_batches_tracked")
    assert is_loaded(model, weights)
    assert torch.equal(model.head.weight, head)


@pytest.mark.parametrize("blobs", [False, True])
def test_detectron_files(blobs, tmp_path):
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Module()
            self.backbone.stem = nn.Module()
            self.backbone.stem.conv1 = nn.Conv2d(3, 4, 1, bias=False)
            self.backbone.stem.conv1.norm = FrozenBatchNorm2d(4)
            self.predictor = nn.Module()
            self.predictor.cls_score = nn.Linear(2, 3)

    model = Detector()
    data = {
        "conv1_w": np.full((4, 3, 1, 1), 2, np.float32),
        "conv1_w_momentum": np.zeros((4, 3, 1, 1), np.float32),
        "res_conv1_bn_s": np.full(4, 3, np.float32),
        "res_conv1_bn_b": np.full(4, 4, np.float32),
        "cls_score_w": np.arange(6, dtype=np.float32).reshape(3, 2),
        "cls_score_b": np.arange(3, dtype=np.float32),
    }
    path = write(tmp_path / "model_final.pkl", {"blobs": data, "cfg": "x"} if blobs else data)
    rest = DetectionCheckpointer(model).load(path)
    assert rest == {"__author__": "Caffe2", "matching_heuristics": True}
    assert (model.backbone.stem.conv1.weight == 2).all()
    assert (model.backbone.stem.conv1.norm.weight == 3).all()
    assert (model.backbone.stem.conv1.norm.bias == 4).all()
    # Folded into the affine map.
    assert (model.backbone.stem.conv1.norm.running_mean == 0).all()
    assert (model.backbone.stem.conv1.norm.running_var == 1).all()
    assert model.predictor.cls_score.bias.tolist() == [1, 2, 0]


def conv_norm(ins, outs, kernel):
    conv = nn.Conv2d(ins, outs, kernel, bias=False)
    conv.norm = FrozenBatchNorm2d(outs)
    return conv


def bottleneck(ins, inner):
    block = nn.Module()
    block.conv1 = conv_norm(ins, inner, 1)
    block.conv2 = conv_norm(inner, inner, 3)
    block.conv3 = conv_norm(inner, 4 * inner, 1)
    if ins != 4 * inner:
        block.shortcut = conv_norm(ins, 4 * inner, 1)
    return block


def resnet50():
    """The parameters of a ResNet-50 by the names that they have here."""
    net = nn.Module()
    net.stem = nn.Module()
    net.stem.conv1 = conv_norm(3, 64, 7)
    ins = 64
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        inner = 16 << stage
        made = [bottleneck(ins if i == 0 else 4 * inner, inner) for i in range(blocks)]
        net.add_module(f"res{stage}", nn.Sequential(*made))
        ins = 4 * inner
    return net


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_resnets_of_torchvision(prefix, tmp_path, caplog):
    theirs = torchvision.models.resnet50(weights=None).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in module.weight, module.bias, module.running_mean, module.running_var:
                    tensor.uniform_(0.5, 1.5)
    ours = resnet50()
    model = nn.Sequential(collections.OrderedDict(backbone=ours)) if prefix else ours
    # As torchvision publishes them.
    DetectionCheckpointer(model).load(write(tmp_path / "resnet50.pth", theirs.state_dict()))
    own = ours.state_dict()
    assert torch.equal(own["stem.conv1.weight"], theirs.conv1.weight)
    assert torch.equal(own["stem.conv1.norm.running_var"], theirs.bn1.running_var)
    assert torch.equal(own["res2.0.shortcut.weight"], theirs.layer1[0].downsample[0].weight)
    assert torch.equal(own["res2.0.shortcut.norm.bias"], theirs.layer1[0].downsample[1].bias)
    assert torch.equal(own["res5.2.conv3.norm.weight"], theirs.layer4[2].bn3.weight)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "Not used, as the model has nothing for them (2):\n  stem.fc.{bias,weight}"
    ]


def test_a_model_with_torchvisions_names_keeps_them(tmp_path, caplog):
    source, model = (torchvision.models.resnet18(weights=None) for _ in range(2))
    DetectionCheckpointer(model).load(write(tmp_path / "resnet18.pth", source.state_dict()))
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in source.state_dict().items())
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_else_is_in_the_file_is_returned(weights, tmp_path):
    data = {
        "model": in_model(weights),
        "iteration": 7,
        "best": np.float64(0.5),
        "history": [np.arange(3), (np.int64(1),)],
    }
    rest = DetectionCheckpointer(Model()).load(write(tmp_path / "x.pth", data))
    assert list(rest) == ["iteration", "best", "history"]
    assert rest["iteration"] == 7
    assert rest["best"] == 0.5
    assert isinstance(rest["best"], np.float64)
    assert rest["history"][0].tolist() == [0, 1, 2]
    assert rest["history"][1] == (1,)


def test_an_empty_path_loads_nothing():
    assert DetectionCheckpointer(Model()).load("") == {}
    assert DetectionCheckpointer(Model()).load(None) == {}


@pytest.mark.parametrize(
    "query", ["nope=1", "matching_heuristics=1", "a=1&matching_heuristics=True"]
)
def test_other_queries_are_errors(query, weights, tmp_path):
    path = write(tmp_path / "x.pth", weights)
    with pytest.raises(ValueError, match=r"matching_heuristics=True is the only query"):
        DetectionCheckpointer(Model()).load(f"{path}?{query}")


def test_a_load_that_fails_leaves_no_trace(weights, tmp_path):
    checkpointer = DetectionCheckpointer(Model())
    good = write(tmp_path / "good.pth", weights)
    attributes = dict(vars(checkpointer))
    for bad in ("absent.pth?matching_heuristics=True", "good.pth?nope=1"):
        before = {k: v.clone() for k, v in checkpointer.model.state_dict().items()}
        with pytest.raises((OSError, ValueError)):
            checkpointer.load(str(tmp_path / bad))
        assert vars(checkpointer) == attributes
        assert all(torch.equal(v, before[k]) for k, v in checkpointer.model.state_dict().items())
    # Names are matched as a whole again, and so the backbone is not loaded ...
    checkpointer.load(good)
    assert not is_loaded(checkpointer.model, weights)
    # ... until that is asked for.
    checkpointer.load(good + "?matching_heuristics=True")
    assert is_loaded(checkpointer.model, weights)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made_by_hostile_code",)


@pytest.mark.parametrize("name", ["x.pkl", "x.pth", "x.pyth", "x"])
def test_hostile_files_run_no_code(name, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"model": in_model(weights), "model_state": weights, "__author__": "x", "a": Hostile()}
    path = write(tmp_path / name, data)
    model = Model()
    before = model.head.weight.clone()
    with pytest.raises(pickle.UnpicklingError, match=rf"{name} cannot be loaded.*mkdir"):
        DetectionCheckpointer(model).load(path)
    assert os.listdir(tmp_path) == [name]
    assert torch.equal(model.head.weight, before)


def test_hostile_arrays_in_torch_files_are_refused(tmp_path):
    for array in (np.array([Hostile()], dtype=object), np.zeros(1, [("a", "O")])):
        path = write(tmp_path / "x.pth", {"model": {}, "a": array})
        with pytest.raises(pickle.UnpicklingError):
            DetectionCheckpointer(Model()).load(path)


FORGED = {
    # Eight bytes that NumPy would take for a pointer to an object.
    "pointers": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"K\x00\x85X\x01\x00\x00\x00b\x87R(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00V8\x89\x88\x87R"
    b"\x89c_codecs\nencode\nX\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1\x86Rtb.",
    "object_dtype": b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x89\x88\x87R.",
    "no_dtype": b"cnumpy\ndtype\n)\x81.",
    "no_array": b"cnumpy\nndarray\n)\x81.",
    "system": b"cposix\nsystem\nX\x06\x00\x00\x00exit 3\x85R.",
    "file": b"ctorch.storage\n_load_from_bytes\nX\x01\x00\x00\x00x\x85R.",
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_torch_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("code ran"))
    whole = io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        for entry in source.namelist():
            is_pickle = entry.endswith("data.pkl")
            target.writestr(entry, b"\x80\x02" + FORGED[name] if is_pickle else source.read(entry))
    with pytest.raises(pickle.UnpicklingError, match=r"x\.pth cannot be loaded"):
        DetectionCheckpointer(Model()).load(str(tmp_path / "x.pth"))


def test_classes_that_are_admitted_by_the_user_load(tmp_path):
    path = write(tmp_path / "x.pth", {"model": {}, "counts": collections.Counter("aab")})
    assert DetectionCheckpointer(Model()).load(path)["counts"]["a"] == 2
    path = write(tmp_path / "y.pth", {"model": {}, "path": tmp_path})
    with pytest.raises(pickle.UnpicklingError, match="PosixPath"):
        DetectionCheckpointer(Model()).load(path)
    with torch.serialization.safe_globals([type(tmp_path)]):
        assert DetectionCheckpointer(Model()).load(path)["path"] == tmp_path


def test_broken_files_are_named(tmp_path, weights):
    checkpointer = DetectionCheckpointer(Model())
    whole = io.BytesIO()
    torch.save(weights, whole)
    for name, content, error in (
        ("cut.pth", whole.getvalue()[:-300], RuntimeError),
        ("empty.pth", b"", RuntimeError),
        ("text.pth", b"hello world", RuntimeError),
        ("cut.pkl", pickle.dumps(arrays(weights))[:-50], pickle.UnpicklingError),
        ("list.pkl", pickle.dumps([1]), ValueError),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=name):
            checkpointer.load(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"x.pyth has no 'model_state'"):
        checkpointer.load(write(tmp_path / "x.pyth", weights))
    with pytest.raises(ValueError, match=r"list.pth holds a list"):
        checkpointer.load(write(tmp_path / "list.pth", [1]))
    with pytest.raises(ValueError, match=r"list.pth holds a list"):
        checkpointer.load(write(tmp_path / "list.pth", {"model": [1]}))
    with pytest.raises(FileNotFoundError, match=r"absent.pth"):
        checkpointer.load(str(tmp_path / "absent.pth"))


def test_the_report_says_what_is_left_and_why(weights, tmp_path, caplog):
    data = in_model(weights)
    data["backbone.conv1.bias"] = torch.zeros(9)
    data |= {"old.weight": torch.zeros(1), "old.bias": torch.zeros(1)}
    data["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(1)
    DetectionCheckpointer(Model()).load(write(tmp_path / "x.pth", data))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "Not loaded, as the shapes differ (1):\n"
        "  backbone.conv1.bias: (9,) in the checkpoint, (4,) in the model",
        "Not loaded, as the checkpoint has nothing for them (2):\n  head.{bias,weight}",
        "Not used, as the model has nothing for them (2):\n  old.{bias,weight}",
    ]


def test_the_report_of_names_matched_by_their_ends(weights, tmp_path, caplog):
    weights["conv1.bias"] = torch.zeros(9)
    weights["fc.weight"] = torch.zeros(9)
    path = write(tmp_path / "x.pth", weights)
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(Model()).load(path + "?matching_heuristics=True")
    table = next(m for m in caplog.messages if m.startswith("Matched"))
    assert "Matched 8 names" in table
    assert "within 'backbone'" in table
    assert "res2.0.{bias,weight}" in table
    assert [m for m in caplog.messages if m.startswith("Not")] == [
        "Not loaded, as the shapes differ (1):\n"
        "  backbone.conv1.bias: (9,) in the checkpoint, (4,) in the model",
        "Not loaded, as the checkpoint has nothing for them (2):\n  head.{bias,weight}",
        "Not used, as the model has nothing for them (1):\n  fc.weight",
    ]


def test_tensors_that_are_loaded_under_another_name_are_not_reported(tmp_path, caplog):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    data = {k: v for k, v in model.state_dict().items() if k != "1.weight"}
    DetectionCheckpointer(model).load(write(tmp_path / "x.pth", data))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_save_and_resume(tmp_path):
    def made():
        model = Model()
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    model, optimizer = made()
    model.head(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    # The folder need not exist.
    folder = tmp_path / "output"
    checkpointer = DetectionCheckpointer(model, str(folder), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000004", iteration=4)
    assert sorted(os.listdir(folder)) == ["last_checkpoint", "model_0000004.pth"]
    assert (folder / "last_checkpoint").read_text() == "model_0000004.pth"
    saved = torch.load(folder / "model_0000004.pth", weights_only=True)
    assert list(saved) == ["model", "optimizer", "iteration"]

    other, other_optimizer = made()
    resumed = DetectionCheckpointer(other, str(folder), optimizer=other_optimizer)
    assert resumed.get_checkpoint_file() == str(folder / "model_0000004.pth")
    assert resumed.get_all_checkpoint_files() == [str(folder / "model_0000004.pth")]
    assert resumed.resume_or_load("ignored", resume=True) == {"iteration": 4}
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    momenta = [s["momentum_buffer"] for s in other_optimizer.state_dict()["state"].values()]
    assert len(momenta) == 2

    # Without resume, of a checkpoint only the model is loaded.
    fresh, fresh_optimizer = made()
    starting = DetectionCheckpointer(fresh, str(folder), optimizer=fresh_optimizer)
    rest = starting.resume_or_load(str(folder / "model_0000004.pth"), resume=False)
    assert torch.equal(fresh.head.weight, model.head.weight)
    assert not fresh_optimizer.state_dict()["state"]
    assert list(rest) == ["optimizer", "iteration"]


def test_paths_may_be_objects(tmp_path):
    DetectionCheckpointer(Model(), tmp_path).save("x", iteration=1)
    assert DetectionCheckpointer(Model()).load(tmp_path / "x.pth") == {"iteration": 1}
    assert DetectionCheckpointer(Model(), tmp_path).resume_or_load("") == {"iteration": 1}


def test_remote_folders(tmp_path):
    class Store(PathHandler):
        def _get_supported_prefixes(self):
            return ["store-of-the-test://"]

        def _get_local_path(self, path, force=False, **kwargs):
            return str(tmp_path / path.rpartition("/")[2])

        def _open(self, path, mode="r", buffering=-1, **kwargs):
            return open(self._get_local_path(path), mode)

        def _exists(self, path, **kwargs):
            return os.path.exists(self._get_local_path(path))

    PathManager.register_handler(Store(), allow_override=True)
    folder = "store-of-the-test://run"
    DetectionCheckpointer(Model(), folder).save("x", iteration=1)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "x.pth"]
    assert DetectionCheckpointer(Model(), folder).resume_or_load("") == {"iteration": 1}


def test_nothing_is_saved_where_it_should_not(tmp_path):
    DetectionCheckpointer(Model()).save("x")
    DetectionCheckpointer(Model(), str(tmp_path), save_to_disk=False).save("x")
    with pytest.raises(ValueError, match="a/b"):
        DetectionCheckpointer(Model(), str(tmp_path)).save("a/b")
    assert os.listdir(tmp_path) == []


def test_unknown_checkpointables_are_errors(weights, tmp_path):
    path = write(tmp_path / "x.pth", in_model(weights))
    model = Model()
    with pytest.raises(KeyError, match="optimizer"):
        DetectionCheckpointer(model).load(path, checkpointables=["optimizer"])
    assert not is_loaded(model, weights)


def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model = Model()
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model", iteration=1)
    files = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def disk_full(data, file):
        file.write(b"half of a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    for name in ("model", "another"):
        with pytest.raises(OSError, match="No space left"):
            checkpointer.save(name, iteration=2)
        assert {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)} == files


def test_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append(("fsync", os.path.basename(path), os.path.getsize(path) > 0))
        fsync(descriptor)

    def recorded_replace(source, target):
        steps.append(("replace", os.path.basename(source), os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    DetectionCheckpointer(Model(), str(tmp_path)).save("m")
    assert steps == [
        ("fsync", "m.pth.tmp", True),
        ("replace", "m.pth.tmp", "m.pth"),
        ("fsync", tmp_path.name, True),
        ("fsync", "last_checkpoint.tmp", True),
        ("replace", "last_checkpoint.tmp", "last_checkpoint"),
        ("fsync", tmp_path.name, True),
    ]


def test_links_keep_pointing_to_the_file(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "m.pth").symlink_to(store / "real.pth")
    DetectionCheckpointer(Model(), str(tmp_path)).save("m")
    assert (tmp_path / "m.pth").is_symlink()
    assert os.listdir(store) == ["real.pth"]


def test_periodic_checkpointer(tmp_path):
    checkpointer = DetectionCheckpointer(Model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=2, max_iter=7, max_to_keep=2)
    for iteration in range(7):
        periodic.step(iteration)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000003.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]
    assert DetectionCheckpointer(Model(), str(tmp_path)).resume_or_load("") == {"iteration": 6}


def test_subclasses_may_read_other_files(weights, tmp_path):
    class Other(DetectionCheckpointer):
        def _load_file(self, filename):
            if filename.endswith(".other"):
                return {"model": arrays(weights), "matching_heuristics": True}
            return super()._load_file(filename)

    (tmp_path / "x.other").touch()
    model = Model()
    Other(model).load(str(tmp_path / "x.other"))
    assert is_loaded(model, weights)
