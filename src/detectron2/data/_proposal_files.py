"""Files of precomputed proposals."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.checkpoint._unpickle import _Constructor, _Unpickler, without_stand_ins
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager


class _ProposalUnpickler(_Unpickler):
    def find_class(self, module: str, name: str) -> _Constructor:
        if module == "detectron2.structures.boxes" and name == "BoxMode":
            return _Constructor(int)
        return super().find_class(module, name)


def load_proposals_into_dataset(
    dataset_dicts: list[dict[str, Any]], proposal_file: str
) -> list[dict[str, Any]]:
    """Give records the proposals that were precomputed for their images.

    Args:
        dataset_dicts: changed in place: those whose image the file knows get "proposal_boxes",
            "proposal_objectness_logits", by descending logit, and "proposal_bbox_mode".
        proposal_file: path or URL of a pickle of a dict with lists, one entry an image: "ids" (or
            "indexes"), "boxes" and "objectness_logits" (or "scores"); "bbox_mode" tells of all
            boxes what they are, XYXY_ABS by default.

    Returns:
        ``dataset_dicts``.

    Raises:
        ValueError: the file lacks something, or its lists do not fit each other.
        pickle.UnpicklingError: the file holds more than arrays and plain containers.
    """
    with PathManager.open(proposal_file, "rb") as file:
        proposals = without_stand_ins(_ProposalUnpickler(file, encoding="latin1").load())
    ids, boxes, logits = (
        _list_named(proposals, names, proposal_file)
        for names in (("ids", "indexes"), ("boxes",), ("objectness_logits", "scores"))
    )
    if not len(ids) == len(boxes) == len(logits):
        raise ValueError(
            f"{proposal_file!r} has {len(ids)} images, but {len(boxes)} of boxes and {len(logits)} "
            "of logits"
        )
    mode = BoxMode(int(proposals.get("bbox_mode", BoxMode.XYXY_ABS)))
    place_of = {str(image_id): place for place, image_id in enumerate(ids)}
    for record in dataset_dicts:
        place = place_of.get(str(record["image_id"]))
        if place is None:
            continue
        order = np.argsort(-np.asarray(logits[place]), kind="stable")
        record["proposal_boxes"] = np.asarray(boxes[place])[order]
        record["proposal_objectness_logits"] = np.asarray(logits[place])[order]
        record["proposal_bbox_mode"] = mode
    return dataset_dicts


def _list_named(proposals: Any, names: tuple[str, ...], proposal_file: str) -> Any:
    for name in names:
        if isinstance(proposals, dict) and name in proposals:
            return proposals[name]
    raise ValueError(f"{proposal_file!r} is no dict with {' or '.join(map(repr, names))}")
