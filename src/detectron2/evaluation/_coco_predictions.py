"""What a model said about each image, collected as flat arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detectron2.evaluation._coco_detections import Detections
from detectron2.evaluation._coco_masks import encode_masks, join_codes
from detectron2.structures import Boxes, BoxMode, Instances

# An image without instances (or proposals) in the model's output, other than one with none of them.
_ABSENT = -1

_INSTANCE_COLUMNS = ("boxes", "scores", "classes", "mask_codes", "mask_lengths", "keypoints")
_PROPOSAL_COLUMNS = ("proposal_boxes", "proposal_logits")
COLUMNS = _INSTANCE_COLUMNS + _PROPOSAL_COLUMNS


class PackedPredictions:
    """Predictions for one image after another.

    It reads like a list of dicts, ``{"image_id": ..., "instances": [...], "proposals": ...}``, with
    the instances in the format of COCO's results (``category_id`` is the model's class there) and
    the proposals as Instances; the dicts are made when they are asked for.
    """

    def __init__(self) -> None:
        self._image_ids: list[Any] = []
        # (instances, proposals, height, width) of each image.
        self._shapes: list[tuple[int, int, int, int]] = []
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}

    def add_batch(
        self,
        inputs: Iterable[Mapping[str, Any]],
        outputs: Iterable[Mapping[str, Any]],
        device: torch.device,
    ) -> None:
        """Add a batch.

        Args:
            inputs: dicts with ``image_id``.
            outputs: as many dicts with ``instances``, ``proposals`` or both, see :meth:`add`, on
                any device; images with neither are left out.
            device: the CPU, to which they are moved.
        """
        for input, output in zip(inputs, outputs, strict=True):
            found = {
                name: output[name].to(device)
                for name in ("instances", "proposals")
                if name in output
            }
            if found:
                self.add(input["image_id"], **found)

    def add(
        self, image_id: Any, instances: Instances | None = None, proposals: Instances | None = None
    ) -> None:
        """Add an image.

        Args:
            image_id: the data set's.
            instances: on the CPU, with ``scores``, ``pred_classes``, ``pred_boxes`` (Boxes or
                RotatedBoxes) and, as the model has them, ``pred_masks`` ``(N, H, W)`` and
                ``pred_keypoints`` ``(N, K, 3)``.
            proposals: on the CPU, with ``proposal_boxes`` and ``objectness_logits``.

        Raises:
            ValueError: if the instances have other fields than those of images before.
        """
        columns: dict[str, np.ndarray] = {}
        if instances is not None and len(instances):
            columns |= instance_columns(instances)
        if proposals is not None and len(proposals):
            columns["proposal_boxes"] = _numpy(proposals.proposal_boxes.tensor)
            columns["proposal_logits"] = _numpy(proposals.objectness_logits)
        shown = proposals if instances is None else instances
        size = (0, 0) if shown is None else tuple(map(int, shown.image_size))
        self._add(image_id, _length(instances), _length(proposals), size, columns)

    def _add(
        self,
        image_id: Any,
        num_instances: int,
        num_proposals: int,
        size: tuple[int, int],
        columns: Mapping[str, np.ndarray],
    ) -> None:
        if num_instances > 0 and self._parts["scores"]:
            names = {name for name in _INSTANCE_COLUMNS if self._parts[name]}
            if names != columns.keys() & set(_INSTANCE_COLUMNS):
                raise ValueError(
                    f"the instances of image {image_id!r} have {sorted(columns)}, but those of "
                    f"images before {sorted(names)}"
                )
        for name, values in columns.items():
            before = self._parts[name]
            if before and before[0].shape[1:] != values.shape[1:]:
                raise ValueError(
                    f"{name} of image {image_id!r} must have {before[0].shape[1:]} values each, as "
                    f"those of images before, got {values.shape[1:]}"
                )
            before.append(values)
        self._image_ids.append(image_id)
        self._shapes.append((num_instances, num_proposals, *size))

    @property
    def image_ids(self) -> list[Any]:
        """The image of each prediction."""
        return self._image_ids

    @property
    def shapes(self) -> np.ndarray:
        """Number of instances and proposals (-1 where the model's output had none), height and
        width of each image: int64 ``(I, 4)``."""
        return np.array(self._shapes, np.int64).reshape(-1, 4)

    @property
    def has_instances(self) -> bool:
        """Whether any output had instances, be it none of them."""
        return bool((self.shapes[:, 0] != _ABSENT).any())

    @property
    def has_proposals(self) -> bool:
        """Whether any output had proposals, be it none of them."""
        return bool((self.shapes[:, 1] != _ABSENT).any())

    def column(self, name: str) -> np.ndarray | None:
        """All values of one of :data:`COLUMNS`, one image after another; None if there are none."""
        parts = self._parts[name]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts)]
        return parts[0] if parts else None

    @classmethod
    def from_columns(
        cls, image_ids: Iterable[Any], shapes: np.ndarray, columns: Mapping[str, np.ndarray]
    ) -> "PackedPredictions":
        """The inverse of ``image_ids``, ``shapes`` and :meth:`column`."""
        predictions = cls()
        predictions._image_ids = list(image_ids)
        predictions._shapes = list(map(tuple, shapes.tolist()))
        predictions._parts |= {name: [values] for name, values in columns.items()}
        return predictions

    def detections(self) -> Detections:
        """All instances; their category ids are the model's classes."""
        shapes = self.shapes
        images = np.repeat(np.arange(len(shapes)), np.maximum(shapes[:, 0], 0))
        classes, scores = self.column("classes"), self.column("scores")
        codes, lengths = self.column("mask_codes"), self.column("mask_lengths")
        return Detections(
            image_ids=self._image_ids,
            images=images,
            category_ids=np.zeros(0, np.int64) if classes is None else classes,
            scores=np.zeros(0) if scores is None else scores,
            boxes=self.column("boxes"),
            masks=None if lengths is None else join_codes(codes, lengths, shapes[images, 2:]),
            keypoints=self.column("keypoints"),
        )

    def __len__(self) -> int:
        return len(self._image_ids)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        detections = self.detections()
        boxes, logits = self.column("proposal_boxes"), self.column("proposal_logits")
        instance, proposal = 0, 0
        for image_id, shape in zip(self._image_ids, self._shapes, strict=True):
            num_instances, num_proposals, *size = shape
            prediction = {"image_id": image_id}
            if num_instances != _ABSENT:
                end = instance + num_instances
                prediction["instances"] = list(detections.records(instance, end))
                instance = end
            if num_proposals != _ABSENT:
                part = slice(proposal, proposal + num_proposals)
                proposal = part.stop
                prediction["proposals"] = Instances(
                    tuple(size),
                    proposal_boxes=Boxes(_tensor(boxes, part, (0, 4))),
                    objectness_logits=_tensor(logits, part, (0,)),
                )
            yield prediction

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The dict of one image; slow, as it makes those before it, too."""
        return list(self)[index]


def instance_columns(instances: Instances) -> dict[str, np.ndarray]:
    """The columns of one image's instances, on the CPU, of which there is at least one."""
    columns = {
        "classes": instances.pred_classes.to(torch.int64).numpy(),
        "scores": _numpy(instances.scores),
    }
    if instances.has("pred_boxes"):
        boxes = instances.pred_boxes.tensor
        if boxes.shape[1] == 4:
            boxes = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        columns["boxes"] = _numpy(boxes)
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        columns["mask_codes"], columns["mask_lengths"] = encode_masks(
            masks if isinstance(masks, torch.Tensor) else masks.tensor
        )
    if instances.has("pred_keypoints"):
        # COCO's coordinates are those of pixels, the model's those of their middles.
        keypoints = instances.pred_keypoints.clone()
        keypoints[:, :, :2] -= 0.5
        columns["keypoints"] = _numpy(keypoints.flatten(1))
    return columns


def _length(instances: Sequence[Any] | Instances | None) -> int:
    return _ABSENT if instances is None else len(instances)


def _numpy(values: torch.Tensor) -> np.ndarray:
    """A copy in float64 or float32, whatever the floating dtype."""
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return values.detach().to(wide, copy=True).numpy()


def _tensor(values: np.ndarray | None, part: slice, empty: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(empty) if values is None else torch.from_numpy(values[part])
