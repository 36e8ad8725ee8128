"""Random choice of the proposals that enter the losses, for all images at once."""

from typing import NamedTuple

import torch

from detectron2.utils._host_values import to_device


class SampledProposals(NamedTuple):
    """The sample of one image: K proposals, the foreground first.

    ``*_on_host`` are on the CPU, the others where the proposals are.
    """

    rows: torch.Tensor
    """Indices of the proposals, int64 ``(K,)``."""
    classes: torch.Tensor
    """Their classes, int64 ``(K,)``."""
    matches: torch.Tensor
    """Indices of the objects that they are matched with, int64 ``(K,)``."""
    classes_on_host: torch.Tensor
    matches_on_host: torch.Tensor
    boxes_on_host: torch.Tensor
    """``(K, box_dim)``."""
    num_foreground: int


def sample_proposals(
    boxes: list[torch.Tensor],
    classes: list[torch.Tensor],
    matches: list[torch.Tensor],
    num_samples: int,
    positive_fraction: float,
    bg_label: int,
) -> list[SampledProposals]:
    """Choose proposals of each image at random, as ``subsample_labels`` does.

    The device is waited for once, for all images and for all that is needed of them on the CPU.

    Args:
        boxes: for each image ``(R_i, box_dim)``.
        classes: for each image int64 ``(R_i,)``; -1 is ignored.
        matches: for each image int64 ``(R_i,)``.
        num_samples: proposals to choose of an image, where there are enough.
        positive_fraction: the largest share of foreground among ``num_samples``.
        bg_label: the class of the background.
    """
    device, num_images = classes[0].device, len(classes)
    counts = torch.tensor([len(c) for c in classes])
    starts = to_device(counts.cumsum(0) - counts, device)
    all_boxes, all_classes = torch.cat(boxes), torch.cat(classes)
    all_matches = torch.cat(matches)
    total = len(all_classes)
    if total == 0:
        return [_sample(all_boxes, all_classes, all_matches, 0) for _ in classes]

    # Sorted by image, within an image foreground, background, ignored, and within these at random.
    images = torch.repeat_interleave(
        torch.arange(num_images, device=device), to_device(counts, device), output_size=total
    )
    is_background = all_classes == bg_label
    group = torch.where(all_classes == -1, 2, is_background.long())
    noise = torch.rand(total, dtype=torch.float64, device=device)
    order = (images * 3 + group + noise).argsort()
    group_sizes = torch.zeros(num_images * 3, dtype=torch.int64, device=device)
    group_sizes.scatter_add_(0, images * 3 + group, torch.ones_like(images))
    num_foreground, num_background, _ = group_sizes.view(num_images, 3).unbind(1)
    num_positive = num_foreground.clamp(max=int(num_samples * positive_fraction))
    num_negative = torch.minimum(num_background, num_samples - num_positive)

    # A table with as many columns as the largest sample can have; what is left over is cut off.
    columns = torch.arange(min(num_samples, int(counts.max())), device=device)
    background_columns = columns + (num_foreground - num_positive)[:, None]
    is_positive = columns < num_positive[:, None]
    places = starts[:, None] + torch.where(is_positive, columns, background_columns)
    chosen = order[places.clamp(max=total - 1)]
    chosen_classes, chosen_matches = all_classes[chosen], all_matches[chosen]

    # In one transfer. float32 has all whole numbers up to 2**24, more than there are of anything.
    table = torch.cat(
        [
            chosen_classes[..., None].float(),
            chosen_matches[..., None].float(),
            all_boxes[chosen].float(),
            num_positive[:, None, None].expand(-1, len(columns), 1).float(),
            num_negative[:, None, None].expand(-1, len(columns), 1).float(),
        ],
        dim=2,
    ).cpu()
    rows = chosen - starts[:, None]
    samples = []
    for i in range(num_images):
        positive, negative = (int(x) for x in table[i, 0, -2:]) if len(columns) else (0, 0)
        size = positive + negative
        samples.append(
            SampledProposals(
                rows=rows[i, :size],
                classes=chosen_classes[i, :size],
                matches=chosen_matches[i, :size],
                classes_on_host=table[i, :size, 0].long(),
                matches_on_host=table[i, :size, 1].long(),
                boxes_on_host=table[i, :size, 2:-2],
                num_foreground=positive,
            )
        )
    return samples


def _sample(
    boxes: torch.Tensor, classes: torch.Tensor, matches: torch.Tensor, num_foreground: int
) -> SampledProposals:
    """The sample that has all of these."""
    rows = torch.arange(len(classes), device=classes.device)
    return SampledProposals(
        rows, classes, matches, classes.cpu(), matches.cpu(), boxes.cpu(), num_foreground
    )
