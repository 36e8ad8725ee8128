"""What heads that label pixels do around the layers that make logits."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers._dtypes import at_least_float32


def upsampled(x: torch.Tensor, factor: int) -> torch.Tensor:
    """``(N, C, H, W)`` to ``(N, C, factor * H, factor * W)``, bilinearly."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def mean_or_zero(loss: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
    """A mean loss of the pixels that count; 0, on the graph, where none do and it is NaN."""
    return torch.where((targets != ignore_value).any(), loss, 0.0)


class PixelHead(nn.Module):
    """A head whose logits are those of the pixels at a stride.

    Subclasses have the attributes ``common_stride``, ``ignore_value`` (the label of pixels that do
    not count) and ``loss_weight``, and the methods ``layers``, which makes logits ``(N, K, h, w)``
    at the common stride of feature maps by name, and ``_loss``, the mean loss of logits and
    targets in the size of the input.
    """

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Predict, or compute the loss.

        Args:
            features: feature maps ``(N, C_i, H_i, W_i)`` by name.
            targets: int64 ``(N, H, W)``, in training.

        Returns:
            In training None and the losses by name; otherwise logits ``(N, K, H, W)`` in the size
            of the input, and no losses.
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets)
        return upsampled(logits, self.common_stride), {}

    def losses(
        self, predictions: torch.Tensor, targets: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """The loss ``loss_sem_seg``, a mean over the pixels that count; 0 where none do.

        Args:
            predictions: logits ``(N, K, h, w)`` at the common stride.
            targets: int64 ``(N, H, W)``.

        Raises:
            ValueError: there are no targets.
        """
        loss = self._loss(self._logits_of_targets(predictions, targets), targets)
        loss = mean_or_zero(loss, targets, self.ignore_value)
        return {"loss_sem_seg": loss * self.loss_weight}

    def _logits_of_targets(
        self, predictions: torch.Tensor, targets: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits in the size of the targets."""
        if targets is None:
            raise ValueError(f"{type(self).__name__} needs targets in training, got None")
        # In float32 at least: half precision has no bilinear interpolation that is exact enough.
        return upsampled(at_least_float32(predictions), self.common_stride)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _loss")
