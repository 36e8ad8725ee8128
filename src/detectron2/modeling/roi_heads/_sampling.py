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


def classes_of_matches(
    matches: torch.Tensor, labels: torch.Tensor, gt_classes: torch.Tensor, bg_label: int
) -> torch.Tensor:
    """The class of each proposal: its object's, that of the background, or -1 (ignored).

    Args:
        matches: int64 ``(R,)``, the object that a proposal is matched with; of background it may
            be out of range.
        labels: ``(R,)``, 1, 0 (background) or -1 (ignored).
        gt_classes: ``(G,)``, of the objects; without any all is background.
        bg_label: the class of the background.

    Returns:
        int64 ``(R,)``.
    """
    if len(gt_classes) == 0:
        return torch.full_like(matches, bg_label)
    classes = gt_classes[matches.clamp(max=len(gt_classes) - 1)].to(torch.int64)
    return classes.masked_fill(labels == 0, bg_label).masked_fill_(labels == -1, -1)


def sample_proposals(
    boxes: list[torch.Tensor],
    matches: list[torch.Tensor],
    labels: list[torch.Tensor],
    gt_classes: list[torch.Tensor],
    num_samples: int,
    positive_fraction: float,
    bg_label: int,
) -> list[SampledProposals]:
    """Choose proposals of each image at random, as ``subsample_labels`` does.

    The device is waited for once, for all images and for all that is needed of them on the CPU.

    Args:
        boxes: for each image ``(R_i, box_dim)``.
        matches: for each image int64 ``(R_i,)``, the object that a proposal is matched with.
        labels: for each image ``(R_i,)``, 1, 0 (background) or -1 (ignored). In an image without
            objects all are background.
        gt_classes: for each image ``(G_i,)``, of the objects.
        num_samples: proposals to choose of an image, where there are enough.
        positive_fraction: the largest share of foreground among ``num_samples``.
        bg_label: the class of the background.
    """
    device, num_images = boxes[0].device, len(boxes)
    sizes = torch.tensor([[len(b) for b in boxes], [len(c) for c in gt_classes]])
    all_boxes, all_matches = torch.cat(boxes), torch.cat(matches)
    total, longest = len(all_boxes), int(sizes[0].max())
    # In one transfer: numbers of proposals, and where proposals and objects of an image begin.
    counts, starts, gt_starts = to_device(
        torch.stack([sizes[0], *(sizes.cumsum(1) - sizes)]), device
    ).unbind()
    images = torch.repeat_interleave(
        torch.arange(num_images, device=device), counts, output_size=total
    )
    labels = [
        label if len(c) > 0 else torch.zeros_like(label)
        for label, c in zip(labels, gt_classes, strict=True)
    ]
    all_classes = classes_of_matches(
        all_matches + gt_starts[images], torch.cat(labels), torch.cat(gt_classes), bg_label
    )

    # Sorted by image, within an image foreground, background, ignored, and within these at random.
    is_background = all_classes == bg_label
    group = is_background.long().masked_fill_(all_classes == -1, 2)
    groups = images * 3 + group
    noise = torch.rand(total, dtype=torch.float64, device=device)
    order = (groups + noise).argsort()
    group_sizes = torch.zeros(num_images * 3, dtype=torch.int64, device=device)
    group_sizes.scatter_add_(0, groups, torch.ones_like(groups))
    num_foreground, num_background, _ = group_sizes.view(num_images, 3).unbind(1)
    num_positive = num_foreground.clamp(max=int(num_samples * positive_fraction))
    num_negative = torch.minimum(num_background, num_samples - num_positive)

    # A table with as many columns as the largest sample can have; what is left over is cut off.
    columns = torch.arange(min(num_samples, longest), device=device)
    background_columns = columns + (num_foreground - num_positive)[:, None]
    is_positive = columns < num_positive[:, None]
    places = starts[:, None] + torch.where(is_positive, columns, background_columns)
    chosen = order[places.clamp(max=max(total - 1, 0))] if total else places
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
