"""Pickles of strangers: arrays and containers arrive as they were, and no code runs."""

import builtins
import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from detectron2.checkpoint._unpickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(data):
    return load_pickle(io.BytesIO(data))


def same(a, b):
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype.newbyteorder("=") and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "permuted": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(10)[::3],
    "big_endian": np.arange(3, dtype=">f4"),
    "half": np.ones(2, np.float16),
    "flags": np.array([True, False]),
    "bytes": np.frombuffer(b"\x00\xff\x80", np.uint8),
    "empty": np.zeros((0, 4), np.float32),
    "number": np.array(3.5),
    "names": np.array(["person", "car"]),
    "scalar": np.float32(1.5),
    "count": np.int64(7),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_arrive(name, protocol):
    got = load(pickle.dumps({"x": ARRAYS[name]}, protocol))["x"]
    assert same(got, ARRAYS[name]) or same(ARRAYS[name], got)
    if got.ndim:
        assert got.flags.writeable
        assert got.dtype.isnative


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_arrive(protocol):
    data = {
        "list": [1, 2.5, None, True, "text", b"raw\x00\xff", bytearray(b"x"), 2**80, 1 + 2j],
        "tuple": ((), (1, ["deep"], {"k": (2,)})),
        "sets": [{1, 2}, frozenset("a")],
        1: "number for a key",
    }
    assert same(load(pickle.dumps(data, protocol)), data)
    ordered = collections.OrderedDict(b=1, a=np.zeros(1))
    assert list(load(pickle.dumps(ordered, protocol))) == ["b", "a"]


def test_what_is_shared_stays_shared_and_cycles_end():
    shared = [np.ones(1)]
    loop = [shared, (shared,)]
    loop.append(loop)
    got = load(pickle.dumps(loop))
    assert got[2] is got
    assert got[0] is got[1][0]
    assert isinstance(got[0][0], np.ndarray)


def test_python_2_pickles_arrive():
    # What Python 2.7 and NumPy 1.13 write for {"w": np.array([1, 2], "f4")}, with protocol 2.
    data = (
        b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs."
    )
    assert same(load(data), {"w": np.array([1, 2], np.float32)})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_arrive(protocol):
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    data = {"a": base[1:, ::2], "p": torch.nn.Parameter(torch.ones(2)), "h": torch.ones(1).half()}
    got = load(pickle.dumps(data, protocol))
    for name, tensor in data.items():
        assert torch.equal(got[name], tensor)
        assert got[name].dtype == tensor.dtype


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Ran(BaseException):
    pass


def run_code(*_):
    raise Ran


def text(module, name):
    return f"c{module}\n{name}\n".encode()


HOSTILE_CALLS = {
    "system": Call(os.system, "exit 3"),
    "eval": Call(builtins.eval, "1/0"),
    "exec": Call(builtins.exec, "raise SystemExit"),
    "getattr": Call(builtins.getattr, os, "system")
    if False
    else Call(builtins.getattr, "", "upper"),
    "import": Call(builtins.__import__, "antigravity"),
    "open": Call(builtins.open, "/etc/passwd"),
    "numpy_load": Call(np.load, "x.npy"),
    "torch_load": Call(torch.load, "x.pth"),
    "nested": {"model": [({"w": Call(os.system, "exit 3")},)], "__author__": "me"},
    "pickle_in_pickle": Call(pickle.loads, pickle.dumps(Call(os.system, "exit 3"))),
    "class": Ran(),
    "object_array": np.array([Call(os.system, "exit 3")], dtype=object),
    "structured": np.zeros(1, [("a", "f4")]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HOSTILE_CALLS)
def test_calls_are_refused_before_they_are_made(name, protocol, monkeypatch):
    data = pickle.dumps(HOSTILE_CALLS[name], protocol)
    for module, function in ((os, "system"), (np, "load"), (torch, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, function, run_code)
    with pytest.raises(pickle.UnpicklingError):
        load(data)


def string(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


DTYPE = text("numpy", "dtype") + string("f4") + b"K\x00K\x01\x87R"
HOSTILE_PROGRAMS = {
    # Dotted names, with which protocol 4 reaches attributes of what is admitted.
    "attribute": b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__class__.mro\x93.",
    "through_module": b"\x80\x04\x8c\x05numpy\x8c\x0adtype.name \x93.",
    # numpy.ndarray as such, with a forged dtype whose bytes would be taken for pointers.
    "pointers": b"\x80\x02"
    + text("numpy.core.multiarray", "_reconstruct")
    + text("numpy", "ndarray")
    + b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85"
    + (text("numpy", "dtype") + string("V8") + b"K\x00K\x01\x87R")
    + b"\x89U\x08AAAAAAAAtb.",
    "object_dtype": b"\x80\x02" + text("numpy", "dtype") + string("O") + b"K\x00K\x01\x87R.",
    "dtype_fields": b"\x80\x02"
    + DTYPE
    + b"(K\x03U\x01<NU\x01a\x85}U\x01a"
    + DTYPE
    + b"K\x00\x86sK\x08K\x01K\x00tb.",
    # BUILD sets attributes of whatever it is given.
    "change_function": b"\x80\x02" + text("_codecs", "encode") + b"N}U\x0c__defaults__)s\x86b.",
    "change_class": b"\x80\x02" + text("numpy", "dtype") + b"N}U\x08__init__Ns\x86b.",
    # INST, OBJ and NEWOBJ make instances without REDUCE.
    "inst": b"(S'exit 3'\nios\nsystem\n.",
    "obj": b"(" + text("os", "system") + b"S'exit 3'\no.",
    "newobj": b"\x80\x02" + text("numpy", "ndarray") + b"K\x03\x85\x81.",
    # A codec is code, too.
    "codec": b"\x80\x02" + text("_codecs", "encode") + string("a") + string("zip") + b"\x86R.",
    "function_as_value": b"\x80\x02" + text("_codecs", "encode") + b".",
    "persistent": b"Pwhatever\n.",
    "extension": b"\x80\x02\x82\x01.",
    "short_data": b"\x80\x02"
    + text("numpy.core.numeric", "_frombuffer")
    + b"(U\x04AAAA"
    + DTYPE
    + b"K\x64\x85U\x01CtR.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "truncated": pickle.dumps(np.ones(100))[:-20],
    "empty": b"",
    "garbage": b"\xff\xfenot a pickle",
}


@pytest.mark.parametrize("name", HOSTILE_PROGRAMS)
def test_programs_are_refused(name, monkeypatch):
    monkeypatch.setattr(os, "system", run_code)
    with pytest.raises(pickle.UnpicklingError):
        load(HOSTILE_PROGRAMS[name])
    # Nothing has changed for files that come after.
    test_python_2_pickles_arrive()
    test_arrays_arrive("matrix", 2)


def test_a_tensor_cannot_hold_more_than_its_storage():
    storage = torch.zeros(2)._typed_storage()
    for offset, size, stride in ((1000, (1,), (1,)), (0, (9,), (1,)), (0, (2,), (2,))):
        call = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})
        with pytest.raises(pickle.UnpicklingError, match="storage"):
            load(pickle.dumps(call))


def test_a_hostile_tensor_inside_of_a_pickle_is_refused(monkeypatch):
    inner = io.BytesIO()
    torch.save(Call(os.system, "exit 3"), inner)
    data = pickle.dumps(Call(torch.storage._load_from_bytes, inner.getvalue()))
    monkeypatch.setattr(os, "system", run_code)
    with pytest.raises(pickle.UnpicklingError):
        load(data)


def test_the_error_names_what_is_refused():
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.eval"):
        load(pickle.dumps(Call(eval, "1")))
