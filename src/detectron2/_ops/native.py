"""Loads the compiled operators of ``torch.ops.detectron2``."""

import importlib
import warnings

import torch

from detectron2 import _C  # noqa: F401  (registers the schemas and CPU kernels)


def load_cuda_kernels() -> None:
    """Register the CUDA kernels, where PyTorch was built with CUDA."""
    if torch.version.cuda is None:
        return
    name = "detectron2._C_cuda"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        # Built for the CPU alone: the dispatcher says so when a CUDA tensor comes.
    except ImportError as error:
        warnings.warn(
            f"The CUDA kernels of detectron2 could not be loaded, so torch.ops.detectron2 is "
            f"limited to the CPU: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


load_cuda_kernels()
