"""Random choice of the predictions that a loss is taken over."""

import torch

# Code written for upstream imports this name from here.
from detectron2.layers import nonzero_tuple

__all__ = ["nonzero_tuple", "subsample_labels", "subsample_masks"]


def subsample_labels(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose positives and negatives at random, each equally likely.

    There are at most ``int(num_samples * positive_fraction)`` positives, and as many negatives as
    make up ``num_samples`` in all, or as there are.

    Waits for the device; :func:`subsample_masks` does not.

    Args:
        labels: ``(N,)``, integers: ``bg_label`` for negatives, -1 for what is ignored, and any
            other for positives.
        num_samples: how many to choose.
        positive_fraction: the greatest share of positives.
        bg_label: the label of negatives.

    Returns:
        int64 indices of the positives, and of the negatives, in random order.
    """
    is_negative = labels == bg_label
    positives = nonzero_tuple((labels != -1) & ~is_negative)[0]
    negatives = nonzero_tuple(is_negative)[0]
    num_positives = min(positives.numel(), int(num_samples * positive_fraction))
    num_negatives = min(negatives.numel(), num_samples - num_positives)
    return _choose(positives, num_positives), _choose(negatives, num_negatives)


def _choose(indices: torch.Tensor, count: int) -> torch.Tensor:
    return indices[torch.randperm(indices.numel(), device=indices.device)[:count]]


def subsample_masks(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose as :func:`subsample_labels` does, for each row by itself, and without waiting for the
    device.

    Args:
        labels: ``(..., N)``, as there.
        num_samples: of each row.
        positive_fraction: of each row.
        bg_label: as there.

    Returns:
        Two bool masks ``(..., N)``: the positives, and the negatives, that are chosen.
    """
    is_negative = labels == bg_label
    is_positive = (labels != -1) & ~is_negative
    # Those of the lowest random numbers are chosen, in a batch or in a row the same way.
    priorities = torch.rand(labels.shape, device=labels.device)
    most = min(max(int(num_samples * positive_fraction), 0), labels.shape[-1])
    positives = _first_by_priority(is_positive, priorities, most)
    num_positives = is_positive.sum(dim=-1, keepdim=True).clamp(max=most)
    most = min(max(num_samples, 0), labels.shape[-1])
    negatives = _first_by_priority(is_negative, priorities, most, num_samples - num_positives)
    return positives, negatives


def _first_by_priority(
    mask: torch.Tensor, priorities: torch.Tensor, most: int, count: torch.Tensor | None = None
) -> torch.Tensor:
    """Of each row of a mask, the first ``most``, or ``count`` ``(..., 1)`` if that is less."""
    # All priorities are below 1.
    ranked, indices = torch.where(mask, priorities, 2.0).topk(most, dim=-1, largest=False)
    is_chosen = ranked < 2.0
    if count is not None:
        is_chosen &= torch.arange(most, device=mask.device) < count
    return torch.zeros_like(mask).scatter_(-1, indices, is_chosen)
