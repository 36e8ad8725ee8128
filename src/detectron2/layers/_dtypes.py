"""Dtypes that losses and scores are computed in."""

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x``, in float32 if it is in half precision; float64 stays."""
    return x.float() if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x
