"""Cross-entropy that leaves out easy pixels."""

import torch
from torch import nn

__all__ = ["DeepLabCE"]


class DeepLabCE(nn.Module):
    """Cross-entropy of the pixels that are hardest to label.

    Yang et al., "DeeperLab: Single-Shot Image Parser", 2019, section 3.3.

    Args:
        ignore_label: label of pixels whose loss is 0. They do count as pixels.
        top_k_percent_pixels: the fraction in (0, 1] of pixels, over the batch, that the loss is a
            mean over: those of the largest losses.
        weight: ``(K,)``, of each class.

    Raises:
        ValueError: the fraction is outside (0, 1].
    """

    def __init__(
        self,
        ignore_label: int = -1,
        top_k_percent_pixels: float = 1.0,
        weight: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 0 < top_k_percent_pixels <= 1:
            raise ValueError(f"top_k_percent_pixels must be in (0, 1], got {top_k_percent_pixels}")
        self.top_k_percent_pixels = top_k_percent_pixels
        self.ignore_label = ignore_label
        self.criterion = nn.CrossEntropyLoss(
            weight=weight, ignore_index=ignore_label, reduction="none"
        )

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            logits: ``(N, K, H, W)``.
            labels: int64 ``(N, H, W)``.
            weights: ``(N, H, W)``, what each pixel's loss is multiplied by.
        """
        losses = self.criterion(logits, labels)
        if weights is not None:
            losses = losses * weights
        if self.top_k_percent_pixels == 1.0:
            return losses.mean()
        count = max(int(self.top_k_percent_pixels * losses.numel()), 1)
        # Of any order: to sort them would take longer than to find them.
        return losses.flatten().topk(count, sorted=False).values.mean()
