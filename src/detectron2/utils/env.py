"""Process-wide set-up: seeds, and the settings that are read from environment variables."""

import importlib
import importlib.util
import inspect
import logging
import os
import random
import sys
import time
from collections.abc import Iterable
from types import ModuleType
from typing import Any

__all__ = ["seed_all_rng"]

TORCH_VERSION: tuple[int, ...]
"""(major, minor) of the running PyTorch."""

DOC_BUILDING: bool = os.environ.get("_DOC_BUILDING", "") not in ("", "0")
"""Whether API documentation is being built."""


def __getattr__(name: str) -> Any:
    # PyTorch is not imported before it is needed: `import detectron2` and the help of the command
    # line do without.
    if name != "TORCH_VERSION":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import torch

    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def seed_all_rng(seed: int | None = None) -> None:
    """Seed ``random``, NumPy's global generator and PyTorch's (CPU and every CUDA device).

    ``PYTHONHASHSEED`` is set too, for the processes started from here; the hash seed of the
    running interpreter cannot change any more.

    Args:
        seed: the seed. None takes one from the process id, the clock and the system's entropy.
    """
    import numpy as np
    import torch

    if seed is None:
        seed = os.getpid() + time.time_ns() // 1000 + int.from_bytes(os.urandom(2), "little")
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    # NumPy's legacy generator takes 32 bits only, and so does the interpreter: with more in its
    # environment it does not start.
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed % 2**32)


def _configure_opencv() -> None:
    """Apply ``DETECTRON2_DISABLE_CV2``, or keep OpenCV from using OpenCL.

    OpenCL contexts do not survive the fork of a data loader's workers. OpenCV reads the variable
    at its first OpenCL call, so OpenCV itself need not be imported here.
    """
    if int(os.environ.get("DETECTRON2_DISABLE_CV2", "0")):
        sys.modules["cv2"] = None  # type: ignore[assignment]
        return
    os.environ["OPENCV_OPENCL_RUNTIME"] = "disabled"
    cv2 = sys.modules.get("cv2")
    if cv2 is not None and hasattr(cv2, "ocl"):
        cv2.ocl.setUseOpenCL(False)


def setup_environment() -> None:
    """Apply the settings of the environment, once a process; ``import detectron2`` calls it.

    ``DETECTRON2_ENV_MODULE`` may name a ``.py`` file or an importable module that defines a
    ``setup_environment`` function; see :func:`setup_custom_environment`.
    """
    global _environment_is_set_up
    if _environment_is_set_up:
        return
    _environment_is_set_up = True
    _configure_opencv()
    custom_module = os.environ.get("DETECTRON2_ENV_MODULE")
    if custom_module:
        setup_custom_environment(custom_module)


_environment_is_set_up = False


def _load_file(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("detectron2.utils.env.custom_module", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path!r} as a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def setup_custom_environment(custom_module: str) -> None:
    """Import ``custom_module`` and call its ``setup_environment()``.

    Args:
        custom_module: the path of a ``.py`` file, or the name of an importable module.

    Raises:
        AttributeError: the module has no callable of that name.
    """
    if custom_module.endswith(".py"):
        module = _load_file(custom_module)
    else:
        module = importlib.import_module(custom_module)
    setup = getattr(module, "setup_environment", None)
    if not callable(setup):
        raise AttributeError(
            f"the module {custom_module!r} (DETECTRON2_ENV_MODULE) defines no callable "
            "'setup_environment'"
        )
    setup()


def fixup_module_metadata(
    module_name: str, namespace: dict[str, Any], keys: Iterable[str] | None = None
) -> None:
    """Make public objects name the module that re-exports them as their home.

    Documentation tools then list them there and not under the file that defines them. Does
    nothing unless :data:`DOC_BUILDING`.

    Args:
        module_name: the re-exporting module.
        namespace: its ``globals()``.
        keys: the names to treat; None treats every public name.
    """
    if not DOC_BUILDING:
        return
    package = module_name.partition(".")[0]
    names = [name for name in namespace if not name.startswith("_")] if keys is None else keys
    pending = [namespace[name] for name in names]
    while pending:
        obj = pending.pop()
        home = getattr(obj, "__module__", None)
        if home is None or home == module_name or home.partition(".")[0] != package:
            continue
        if inspect.isclass(obj) or inspect.isfunction(obj):
            obj.__module__ = module_name
            pending.extend(vars(obj).values())
