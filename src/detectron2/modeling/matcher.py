"""Which ground truth each prediction belongs to, by a matrix of qualities such as IoUs."""

import torch

# Code written for upstream imports this name from here.
from detectron2.layers import nonzero_tuple

__all__ = ["Matcher", "nonzero_tuple"]


class Matcher:
    """Assigns to each prediction (an anchor, a proposal) its best ground truth, and a label.

    The label tells how good the match is: thresholds part the qualities into intervals, each with
    a label of its own. With the thresholds 0.3 and 0.7 and the labels 0, -1 and 1, predictions
    are background (0) below an IoU of 0.3, foreground (1) from 0.7 on, and ignored (-1) between.
    """

    def __init__(
        self, thresholds: list[float], labels: list[int], allow_low_quality_matches: bool = False
    ) -> None:
        """Args:
        thresholds: ascending, above 0; an interval includes its lower end.
        labels: one more than thresholds, each of -1, 0 and 1.
        allow_low_quality_matches: label 1 the predictions, too, that are the best ones of any
            ground truth, whatever their quality. What they are matched with stays the same.
        """
        thresholds = list(thresholds)
        labels = list(labels)
        assert all(threshold > 0 for threshold in thresholds), (
            f"thresholds must be above 0, got {thresholds}"
        )
        assert thresholds == sorted(thresholds), f"thresholds must ascend, got {thresholds}"
        assert all(label in (-1, 0, 1) for label in labels), (
            f"labels must be of -1, 0 and 1, got {labels}"
        )
        assert len(labels) == len(thresholds) + 1, (
            f"{len(thresholds)} thresholds need {len(thresholds) + 1} labels, got {labels}"
        )
        self.thresholds: list[float] = [float("-inf"), *thresholds, float("inf")]
        self.labels: list[int] = labels
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Match.

        Args:
            match_quality_matrix: ``(M, N)``, of M ground truths with N predictions; not negative,
                which is checked on the CPU only.

        Returns:
            ``(N,)`` int64, the ground truth of the highest quality, of equal ones the first; and
            ``(N,)`` int8, the labels. Without ground truth, 0 and the lowest interval's label.
        """
        assert match_quality_matrix.dim() == 2, (
            f"match qualities must be a matrix, got the shape {list(match_quality_matrix.shape)}"
        )
        if match_quality_matrix.size(0) == 0:
            matches = match_quality_matrix.new_zeros(
                (match_quality_matrix.size(1),), dtype=torch.int64
            )
            labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
            return matches, labels
        if match_quality_matrix.device.type == "cpu":
            assert bool((match_quality_matrix >= 0).all()), (
                f"match qualities must not be negative, got {match_quality_matrix.min().item()}"
            )
        qualities, matches = match_quality_matrix.max(dim=0)
        labels = self._labels_of(qualities)
        if self.allow_low_quality_matches:
            self.set_low_quality_matches_(labels, match_quality_matrix)
        return matches, labels

    def match_padded(
        self, qualities: torch.Tensor, is_gt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Match the predictions of several images at once, without waiting for the device.

        Args:
            qualities: ``(B, M, N)``, for each image as in a call, with rows of 0 for the ground
                truths that it has fewer than M.
            is_gt: ``(B, M)``, bool; False for those rows. M may be 0.

        Returns:
            ``(B, N)`` int64 and ``(B, N)`` int8, as from a call for each image.
        """
        if qualities.size(1) == 0:
            matches = torch.zeros(
                (qualities.size(0), qualities.size(2)), dtype=torch.int64, device=qualities.device
            )
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        best, matches = qualities.max(dim=1)
        labels = self._labels_of(best)
        if self.allow_low_quality_matches and qualities.size(2) > 0:
            # No quality equals NaN.
            best_of_gt = torch.where(is_gt, qualities.amax(dim=2), torch.nan)
            is_best = (qualities == best_of_gt[:, :, None]).any(dim=1)
            labels = torch.where(is_best, 1, labels).to(torch.int8)
        return matches, labels

    def _labels_of(self, qualities: torch.Tensor) -> torch.Tensor:
        """The labels of the intervals that qualities lie in, int8."""
        labels = torch.full_like(qualities, self.labels[0], dtype=torch.int8)
        for i in range(1, len(self.labels)):
            labels.masked_fill_(qualities >= self.thresholds[i], self.labels[i])
        return labels

    def set_low_quality_matches_(
        self, match_labels: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Set the labels of the best predictions of each ground truth to 1, in place.

        Equally good ones are all best, also where their quality is 0: Ren et al., "Faster R-CNN",
        NeurIPS 2015, section 3.1.2, case (i).

        Args:
            match_labels: ``(N,)``.
            match_quality_matrix: ``(M, N)``.
        """
        if match_quality_matrix.numel() == 0:
            return
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        match_labels.masked_fill_((match_quality_matrix == best).any(dim=0), 1)
