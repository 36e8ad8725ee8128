"""The kinds of files that hold weights, each brought to the form of a checkpoint of this library.

That is a dict with ``"model"``, the weights by name. ``"matching_heuristics": True`` says that
names agree with the model's at their ends only, and ``"__author__": "Caffe2"`` that they are
Caffe2's.
"""

import pickle
from typing import Any

import numpy as np
import torch

from detectron2.checkpoint._unpickle import TORCH_GLOBALS, load_pickle, without_stand_ins


def read_pickle(filename: str) -> dict[str, Any]:
    """A ``.pkl`` of the model zoo, of a conversion script or of Detectron.

    Raises:
        pickle.UnpicklingError: it holds more than arrays, tensors and plain containers.
        ValueError: it holds no dict.
    """
    with open(filename, "rb") as file:
        try:
            data = load_pickle(file)
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(f"{filename} cannot be loaded: {error}") from error
    _check_dict(data, filename)
    if "model" in data and "__author__" in data:
        _check_dict(data["model"], filename)
        return data
    weights = data.get("blobs", data)
    _check_dict(weights, filename)
    return {
        # What the optimizer of Caffe2 keeps is of no use.
        "model": {k: v for k, v in weights.items() if not k.endswith("_momentum")},
        "__author__": "Caffe2",
        "matching_heuristics": True,
    }


def read_torch(filename: str) -> Any:
    """A file of ``torch.save``, with tensors on the CPU.

    What ``torch.serialization.add_safe_globals`` was given is admitted as well as tensors, NumPy
    arrays and plain containers.

    Raises:
        pickle.UnpicklingError: it holds more than that.
        RuntimeError: it is damaged, or another kind of file.
    """
    try:
        with torch.serialization.safe_globals(TORCH_GLOBALS):
            data = torch.load(filename, map_location="cpu", weights_only=True)
        return without_stand_ins(data)
    except pickle.UnpicklingError as error:
        # PyTorch puts before it how to load the file and run its code.
        reason = error.__context__ or error
        raise pickle.UnpicklingError(f"{filename} cannot be loaded: {reason}") from reason
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # What is no pickle can fail anywhere.
        raise RuntimeError(
            f"{filename} is damaged, or no PyTorch file: {type(error).__name__}: {error}"
        ) from error


def from_pycls(data: Any, filename: str) -> dict[str, Any]:
    """What a ``.pyth`` of pycls or SlowFast holds.

    Raises:
        ValueError: it has no ``"model_state"``.
    """
    _check_dict(data, filename)
    if "model_state" not in data:
        raise ValueError(f"{filename} has no 'model_state', which .pyth files have: {list(data)}")
    weights = data["model_state"]
    _check_dict(weights, filename)
    return {
        "model": {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")},
        "__author__": "pycls",
        "matching_heuristics": True,
    }


def from_torch(data: Any, filename: str) -> dict[str, Any]:
    """What a ``.pth`` holds: a checkpoint, or the weights alone.

    Raises:
        ValueError: it holds no dict, or one without weights.
    """
    _check_dict(data, filename)
    if "model" not in data:
        if data and not any(isinstance(x, (torch.Tensor, np.ndarray)) for x in data.values()):
            raise ValueError(f"{filename} has no 'model' and is no dict of weights: {list(data)}")
        return {"model": data}
    _check_dict(data["model"], filename)
    return data


def _check_dict(data: Any, filename: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{filename} holds a {type(data).__name__}, not a dict of weights")
