"""Reading pickles that strangers made, without running what they ask for.

A pickle is a program that may call anything importable. Here it gets stand-ins for the few names
that arrays and plain containers need, and an error for all others. NumPy's own functions are not
among what it gets: a dtype restored from a forged state lets the raw bytes of an array pass for
pointers to objects.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np

_NUMERIC_KINDS = "biufcSU"


class _Constructor:
    """A function that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function")


class _Dtype:
    """Stands for a dtype while the pickle is being read."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str):
            raise pickle.UnpicklingError(f"not a plain numeric dtype: {name!r}")
        dtype = np.dtype(name)
        if dtype.kind not in _NUMERIC_KINDS:
            raise pickle.UnpicklingError(f"not a plain numeric dtype: {name!r}")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags, ...)
        _, order, subarray, names, fields = state[:5]
        if subarray is not None or names is not None or fields is not None:
            raise pickle.UnpicklingError("dtypes with fields or subarrays are not admitted")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for an array, a NumPy scalar or a tensor while the pickle is being read."""

    # What it stays without a state, and where no __init__ is called.
    value: Any = None

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        # Of what _reconstruct made: (version, shape, dtype, Fortran order, bytes)
        _, shape, dtype, fortran, data = state
        self.value = _array_from(data, dtype, shape, "F" if fortran else "C")


def _array_from(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError(f"an array with {dtype!r} for its dtype")
    if isinstance(data, str):
        # Python 2's strings, which are bytes.
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError(f"an array with a {type(data).__name__} for its data")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    # Writable, and in the machine's byte order, as PyTorch needs it.
    return array.astype(array.dtype.newbyteorder("="), order="K")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if order == "K" and axes is not None:
        return _Array(_array_from(data, dtype, shape, "C").transpose(axes))
    return _Array(_array_from(data, dtype, shape, order))


def _scalar(dtype: Any, data: Any) -> _Array:
    return _Array(_array_from(data, dtype, (1,), "C")[0])


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    # How bytes are written by pickle's protocol 2; other codecs are code of others.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _dict(*items: Any) -> dict[Any, Any]:
    return dict(*items)


def _storage_from_bytes(data: Any) -> _Array:
    import io

    import torch

    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError(f"a tensor with a {type(data).__name__} for its data")
    return _Array(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Array:
    import torch

    source = storage.value if isinstance(storage, _Array) else None
    if not isinstance(source, torch.storage.TypedStorage):
        raise pickle.UnpicklingError(f"a tensor with a {type(source).__name__} for its storage")
    flat = torch.empty(0, dtype=source.dtype).set_(source)
    # It checks that the storage has what is asked for; set_ would make it longer.
    return _Array(flat.as_strided(size, stride, offset))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _reconstruct,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "dict"): _dict,
    ("builtins", "list"): lambda *items: list(*items),
    ("builtins", "tuple"): lambda *items: tuple(*items),
    ("builtins", "set"): lambda *items: set(*items),
    ("builtins", "frozenset"): lambda *items: frozenset(*items),
    # How protocols 0 to 2 write bytes that are empty.
    ("builtins", "bytes"): lambda: b"",
    ("builtins", "bytearray"): lambda *items: bytearray(*items),
    ("builtins", "complex"): lambda *parts: complex(*parts),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Constructor:
        # Protocols 0 to 2 have Python 2's name of it.
        module = "builtins" if module == "__builtin__" else module
        try:
            return _Constructor(_ADMITTED[module, name])
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only arrays, tensors and plain containers are "
                "admitted, since anything else may run code"
            ) from None


def without_stand_ins(value: Any, done: dict[int, Any] | None = None) -> Any:
    """``value`` with arrays in the place of what stood for them.

    Args:
        value: what an unpickler returned, or a part of it; its dicts and lists are changed in
            place.
        done: results by identity, so that what is shared stays shared, and cycles end.
    """
    done = {} if done is None else done
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without data")
        return value.value
    if isinstance(value, _Constructor | _Dtype):
        raise pickle.UnpicklingError("a function or dtype in the place of data")
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = value
        items = [(without_stand_ins(k, done), without_stand_ins(v, done)) for k, v in value.items()]
        is_same = all(
            k is old_k and v is old_v
            for (k, v), (old_k, old_v) in zip(items, value.items(), strict=True)
        )
        if not is_same:
            value.clear()
            for key, item in items:
                value[key] = item
    elif isinstance(value, list):
        done[id(value)] = value
        value[:] = [without_stand_ins(item, done) for item in value]
    elif type(value) in (tuple, set, frozenset):
        done[id(value)] = type(value)(without_stand_ins(item, done) for item in value)
    else:
        return value
    return done[id(value)]


# What torch.load(weights_only=True) has to admit for NumPy's arrays and scalars, by the names that
# files know them by: the same stand-ins.
TORCH_GLOBALS: list[tuple[Callable[..., Any], str]] = [
    (_Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
    *(
        (function, f"{module}.{name}")
        for (module, name), function in _ADMITTED.items()
        if name in ("_reconstruct", "scalar", "_frombuffer")
    ),
]


def load_pickle(file: IO[bytes]) -> Any:
    """Read a pickle of NumPy arrays, NumPy scalars, tensors and plain containers.

    Pickles of Python 2 are read, too, with their strings decoded as Latin-1. Ordered dicts become
    dicts.

    Args:
        file: opened for reading bytes. It may come from anywhere: it runs no code.

    Returns:
        What was pickled.

    Raises:
        pickle.UnpicklingError: the file holds something else, which is named, or is damaged.
    """
    try:
        return without_stand_ins(_Unpickler(file, encoding="latin1").load())
    except pickle.UnpicklingError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        # A damaged file can fail anywhere.
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
