"""How often a function waits for the device."""

import warnings
from collections.abc import Callable
from typing import Any

import torch


def count_host_syncs(function: Callable[[], Any]) -> int:
    """Call ``function`` twice, and count what PyTorch warns of in the second call.

    The first call may wait for what is done once, such as choosing algorithms. PyTorch does not
    know of the waits of extensions.
    """
    function()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
