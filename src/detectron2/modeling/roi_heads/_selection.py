"""Selection of the proposals that mask and keypoint heads are trained on."""

from typing import Any

import torch

from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.utils._host_values import on_host, remember_on_host, to_device
from detectron2.utils.events import get_event_storage

# Fields of downstream projects may know indices only.
_SLICEABLE = (torch.Tensor, list, Boxes, Keypoints, BitMasks, PolygonMasks)


def is_on_cpu(value: Any) -> bool:
    """Whether a field is on the CPU, as what has no device is."""
    # Not only a torch.device: that of NumPy's arrays is a string.
    return torch.device(getattr(value, "device", None) or "cpu").type == "cpu"


def select_rows(instances: Instances, rows: torch.Tensor, device: torch.device) -> Instances:
    """``instances[rows]``, without waiting for ``device``.

    Args:
        instances: some of whose fields may be on the CPU, such as polygons.
        rows: int64 ``(K,)`` on the CPU, ascending.
        device: of the other fields.
    """
    count = len(rows)
    # Ascending, so these are the first ones: views do.
    are_first = count == 0 or int(rows[-1]) == count - 1
    rows_on_device = None
    result = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if are_first and isinstance(value, _SLICEABLE):
            result.set(name, value[:count])
            continue
        index = rows
        if not is_on_cpu(value):
            if rows_on_device is None:
                rows_on_device = to_device(rows, device)
            index = rows_on_device
        # Through Instances, which index lists, too.
        field = Instances(instances.image_size, **{name: value})
        result.set(name, field[index].get(name))
    return result


def foreground_rows(proposals: list[Instances], bg_label: int) -> list[torch.Tensor]:
    """For each image the indices of the proposals that are neither background nor ignored.

    Returns:
        int64 ``(F_i,)`` on the CPU, ascending.
    """
    classes = on_host([p.gt_classes for p in proposals])
    return [((c != -1) & (c != bg_label)).nonzero().squeeze(1) for c in classes]


def select_foreground_rows(proposals: list[Instances], rows: list[torch.Tensor]) -> list[Instances]:
    """``proposals[rows]`` of each image; the values of boxes stay known on the CPU."""
    selected = []
    for p, chosen in zip(proposals, rows, strict=True):
        foreground = select_rows(p, chosen, p.gt_classes.device)
        if p.has("proposal_boxes"):
            _remember_rows(foreground.proposal_boxes.tensor, p.proposal_boxes.tensor, chosen)
        selected.append(foreground)
    return selected


def _remember_rows(selected: torch.Tensor, source: torch.Tensor, rows: torch.Tensor) -> None:
    if source.device.type != "cpu":
        (values,) = on_host([source])
        remember_on_host(selected, values[rows])


def select_foreground_proposals(
    proposals: list[Instances], bg_label: int
) -> tuple[list[Instances], list[torch.Tensor]]:
    """Select the proposals that are matched with an object.

    Args:
        proposals: for each image, with the field ``gt_classes``.
        bg_label: the class of the background. It is left out, as is -1, which is ignored.

    Returns:
        For each image the selected proposals, and bool ``(R_i,)``, which ones they are.
    """
    if not isinstance(proposals, (list, tuple)):
        raise TypeError(f"expected a list of Instances, got {type(proposals).__name__}")
    if not proposals:
        return [], []
    selected = select_foreground_rows(proposals, foreground_rows(proposals, bg_label))
    classes = torch.cat([p.gt_classes for p in proposals])
    masks = (classes != -1) & (classes != bg_label)
    return selected, list(masks.split([len(p) for p in proposals]))


def select_proposals_with_visible_keypoints(proposals: list[Instances]) -> list[Instances]:
    """Select the proposals with a labelled keypoint in their box, borders included.

    The others would say nothing about keypoints. Puts the event ``keypoint_head/num_fg_samples``,
    an average over the images that have proposals.

    Args:
        proposals: for each image, with the fields ``proposal_boxes`` and ``gt_keypoints``. Images
            without any need no ``gt_keypoints``.
    """
    present = [p for p in proposals if len(p) > 0]
    selected: dict[int, Instances] = {}
    if present:
        keypoints = torch.cat([p.gt_keypoints.tensor for p in present])
        boxes = torch.cat([p.proposal_boxes.tensor for p in present])[:, None]
        points = keypoints[..., :2]
        is_inside = ((points >= boxes[..., :2]) & (points <= boxes[..., 2:])).all(dim=2)
        is_visible = (is_inside & (keypoints[..., 2] >= 1)).any(dim=1)
        chosen = is_visible.cpu().split([len(p) for p in present])
        for p, is_chosen in zip(present, chosen, strict=True):
            selected[id(p)] = select_rows(p, is_chosen.nonzero().squeeze(1), boxes.device)
    average = sum(len(p) for p in selected.values()) / max(len(selected), 1)
    get_event_storage().put_scalar("keypoint_head/num_fg_samples", average)
    return [selected.get(id(p), p) for p in proposals]
