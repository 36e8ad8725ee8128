"""The compiled operators: importing this makes them ``torch.ops.detectron2.*``, with all kernels.

The extensions are `_C_cpu`, of the schemas and CPU kernels, and `_C_cuda`. They name libtorch's
libraries without their folder, which only PyTorch's own import knows: hence this module in front.
"""

import importlib
import warnings

import torch

from detectron2 import _C_cpu
from detectron2._C_cpu import get_compiler_version, get_cuda_version, has_cuda

__all__ = ["get_compiler_version", "get_cuda_version", "has_cuda"]

# Of a module of this name, a library is expected: to load (torch.ops.load_library), or to inspect.
__file__ = _C_cpu.__file__


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
