"""Masks of instances: as bitmaps, as polygons, and as soft masks that are relative to boxes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import detectron2._ops  # noqa: F401  (registers torch.ops.detectron2)
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.layers.roi_align import ROIAlign
from detectron2.structures._polygons import (
    PackedPolygons,
    check_polygon,
    polygon_area,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)
from detectron2.structures.boxes import Boxes
from detectron2.utils.memory import retry_if_cuda_oom

__all__ = [
    "BitMasks",
    "PolygonMasks",
    "ROIMasks",
    "polygon_area",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
]


# Pixels of bitmaps that are float32 at a time on the CPU: few enough for its caches, where all of
# an image's would be half a gigabyte.
_CROPPED_AT_ONCE = 1 << 22


def _check_count(boxes: torch.Tensor, masks: Any) -> None:
    if boxes.dim() != 2 or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"{len(masks)} masks need boxes of the shape ({len(masks)}, 4), got {list(boxes.shape)}"
        )


def _first_and_end(is_set: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first index that is set in each row of ``(N, K)``, and one more than the last; (0, 0)
    where none is."""
    indices = torch.arange(is_set.size(1), device=is_set.device) + 1
    end = (is_set * indices).amax(dim=1)
    first = is_set.size(1) - (is_set * indices.flip(0)).amax(dim=1)
    return torch.where(end > 0, first, 0), end


def _bounding_boxes_by_reduction(masks: torch.Tensor) -> torch.Tensor:
    """``torch.ops.detectron2.mask_bounding_boxes`` in PyTorch's own operators, for other devices
    and for traces."""
    if masks.numel() == 0:
        return torch.zeros(masks.size(0), 4, device=masks.device)
    left, right = _first_and_end(masks.any(dim=1))
    top, bottom = _first_and_end(masks.any(dim=2))
    return torch.stack([left, top, right, bottom], dim=1).to(torch.float32)


class BitMasks:
    """N masks of one image as bitmaps.

    Attributes:
        tensor: bool ``(N, H, W)``.
        image_size: (H, W).
    """

    def __init__(self, tensor: torch.Tensor | np.ndarray) -> None:
        """Wrap masks.

        Args:
            tensor: ``(N, H, W)``; what is not 0 is set. What is no tensor goes to the CPU. A bool
                tensor is shared, not copied.
        """
        if isinstance(tensor, torch.Tensor):
            masks = tensor.to(torch.bool)
        else:
            masks = torch.as_tensor(tensor, dtype=torch.bool, device="cpu")
        if masks.dim() != 3:
            raise ValueError(f"masks must have the shape (N, H, W), got {list(masks.shape)}")
        self.image_size = masks.shape[1:]
        self.tensor = masks

    def __len__(self) -> int:
        return self.tensor.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the masks lie."""
        return self.tensor.device

    @torch.jit.unused
    def __getitem__(self, item: Any) -> "BitMasks":
        """Select masks, which share storage if PyTorch's indexing does.

        Args:
            item: an int (which gives one mask), a slice, a bool tensor ``(N,)`` or an integer
                tensor ``(K,)``.
        """
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise IndexError(
                f"an index into {len(self)} masks gave the shape {list(selected.shape)}"
            )
        return BitMasks(selected)

    @torch.jit.unused
    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield each mask, bool ``(H, W)``."""
        yield from self.tensor

    @torch.jit.unused
    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        """Return the masks after ``Tensor.to`` with these arguments."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    @torch.jit.unused
    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def nonempty(self) -> torch.Tensor:
        """Tell which masks have a pixel set; bool ``(N,)``."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        """Rasterise polygons, with the pixels that COCO's API gives them.

        Args:
            polygon_masks: polygons, or for each instance the list of its polygons ``[x0, y0, x1,
                y1, ...]`` in pixels.
            height: of the image.
            width: of the image.
        """
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        return BitMasks(PackedPolygons(polygon_masks).rasterize(height, width))

    @staticmethod
    def from_roi_masks(roi_masks: "ROIMasks", height: int, width: int) -> "BitMasks":
        """Refuse: without boxes it is unknown where the masks are.

        Raises:
            NotImplementedError: always; :meth:`ROIMasks.to_bitmasks` takes the boxes, too.
        """
        raise NotImplementedError(
            f"{roi_masks!r} cannot be pasted without boxes: call "
            "ROIMasks.to_bitmasks(boxes, height, width)"
        )

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Crop each mask to a box and resize it, as targets for a mask head.

        By RoIAlign with as many samples as the box has pixels.

        Args:
            boxes: ``(N, 4)``, one for each mask, rows ``(x0, y0, x1, y1)``.
            mask_size: rows and columns of the result.

        Returns:
            bool ``(N, mask_size, mask_size)``: where the average reaches 0.5.
        """
        _check_count(boxes, self)
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        masks_at_once = max(len(self), 1)
        if self.tensor.is_cpu and not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            height, width = self.image_size
            masks_at_once = max(_CROPPED_AT_ONCE // max(height * width, 1), 1)
        cropped = []
        for masks, boxes_of_masks in zip(
            self.tensor.split(masks_at_once), boxes.split(masks_at_once), strict=True
        ):
            index = torch.arange(masks.size(0), device=masks.device, dtype=boxes.dtype)
            rois = torch.cat([index[:, None], boxes_of_masks], dim=1)
            cropped.append(align(masks[:, None].to(torch.float32), rois).squeeze(1) >= 0.5)
        return torch.cat(cropped)

    def get_bounding_boxes(self) -> Boxes:
        """Boxes around the pixels that are set, float32, on the CPU.

        A box goes from the left and top border of the first column and row with a pixel to the
        right and bottom border of the last; it is zeros for a mask without any.
        """
        masks = self.tensor
        if torch.jit.is_tracing() or not (masks.is_cpu or masks.is_cuda):
            boxes = _bounding_boxes_by_reduction(masks)
        else:
            boxes = torch.ops.detectron2.mask_bounding_boxes(masks)
        return Boxes(boxes.cpu())

    @staticmethod
    def cat(bitmasks_list: "list[BitMasks]") -> "BitMasks":
        """Concatenate the masks of one image; the list may not be empty."""
        if not isinstance(bitmasks_list, (list, tuple)) or not bitmasks_list:
            raise ValueError(f"expected a list of at least one BitMasks, got {bitmasks_list!r}")
        for bitmasks in bitmasks_list:
            if not isinstance(bitmasks, BitMasks):
                raise TypeError(f"expected a list of BitMasks, got one with {bitmasks!r}")
        return type(bitmasks_list[0])(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


def _as_polygon(polygon: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(polygon, torch.Tensor):
        polygon = polygon.detach().cpu().numpy()
    array = np.asarray(polygon, dtype=np.float64)
    check_polygon(array)
    return array


class PolygonMasks:
    """N masks as polygons, on the CPU.

    Attributes:
        polygons: for each instance the list of its polygons, arrays ``[x0, y0, x1, y1, ...]`` of
            float64 in pixels. An instance is the union of its polygons.
    """

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray]]) -> None:
        """Wrap polygons.

        Args:
            polygons: as in :attr:`polygons`; arrays, tensors or lists. Arrays of float64 are
                shared, not copied.

        Raises:
            ValueError: something else than a list of lists, a polygon with an odd number of
                values, or with fewer than three vertices.
        """
        if not isinstance(polygons, list):
            raise ValueError(
                f"polygons must be a list with a list for each instance, got {type(polygons)}"
            )
        for instance in polygons:
            if not isinstance(instance, list):
                raise ValueError(
                    f"the polygons of an instance must be a list of arrays, got {type(instance)}"
                )
        self.polygons: list[list[np.ndarray]] = [
            [_as_polygon(polygon) for polygon in instance] for instance in polygons
        ]

    @classmethod
    def _of_checked(cls, polygons: list[list[np.ndarray]]) -> "PolygonMasks":
        """Wrap polygons of other masks, which need not be looked at again."""
        masks = cls([])
        masks.polygons = polygons
        return masks

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        """Return these very masks: polygons are always on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Boxes around the polygons.

        The right and bottom sides are never negative. An instance without polygons has the box
        (inf, inf, 0, 0).
        """
        packed = PackedPolygons(self.polygons)
        boxes = np.zeros((len(self), 4), np.float32)
        boxes[:, :2] = np.inf
        vertices_of_instance = np.bincount(packed.vertex_instances(), minlength=len(self))
        has_vertices = vertices_of_instance > 0
        if has_vertices.any():
            ends = np.cumsum(vertices_of_instance)
            starts = (ends - vertices_of_instance)[has_vertices]
            boxes[has_vertices, :2] = np.minimum.reduceat(packed.vertices, starts)
            boxes[has_vertices, 2:] = np.maximum.reduceat(packed.vertices, starts).clip(min=0)
        return Boxes(torch.from_numpy(boxes))

    def nonempty(self) -> torch.Tensor:
        """Tell which instances have a polygon; bool ``(N,)``."""
        return torch.tensor([len(instance) > 0 for instance in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: Any) -> "PolygonMasks":
        """Select instances, which share their arrays.

        Args:
            item: an int (which gives one instance), a slice, a list of ints, a bool tensor or
                array ``(N,)``, or an integer one ``(K,)``.
        """
        if isinstance(item, slice):
            return PolygonMasks._of_checked(self.polygons[item])
        if isinstance(item, int):
            return PolygonMasks._of_checked([self.polygons[item]])
        index = item.cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
        is_mask = index.dtype in (np.bool_, np.uint8)  # the latter as for PyTorch
        if index.size == 0 and not is_mask:
            index = index.astype(np.int64)  # of an empty list NumPy makes floats
        if is_mask and index.shape == (len(self),):
            index = np.flatnonzero(index)
        elif is_mask or not np.issubdtype(index.dtype, np.integer) or index.ndim > 1:
            raise IndexError(
                f"{len(self)} polygon masks cannot be indexed by {index.dtype} values of the "
                f"shape {list(index.shape)}"
            )
        return PolygonMasks._of_checked([self.polygons[i] for i in index.reshape(-1).tolist()])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Yield the list of polygons of each instance."""
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def __len__(self) -> int:
        return len(self.polygons)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Rasterise the part of each instance that lies in a box, stretched to a square.

        Args:
            boxes: ``(N, 4)``, one for each instance, rows ``(x0, y0, x1, y1)``; sides below 0.1
                count as 0.1.
            mask_size: rows and columns of the result.

        Returns:
            bool ``(N, mask_size, mask_size)`` on the device of ``boxes``.
        """
        _check_count(boxes, self)
        packed = PackedPolygons(self.polygons)
        packed.fit_boxes(boxes.detach().cpu().numpy(), mask_size)
        return packed.rasterize(mask_size, mask_size).to(boxes.device)

    def area(self) -> torch.Tensor:
        """Areas, float32 ``(N,)``: the sums over the polygons, overlaps counted twice."""
        areas = [
            sum(float(polygon_area(polygon[0::2], polygon[1::2])) for polygon in instance)
            for instance in self.polygons
        ]
        return torch.tensor(areas, dtype=torch.float32)

    @staticmethod
    def cat(polymasks_list: "list[PolygonMasks]") -> "PolygonMasks":
        """Concatenate; the list may not be empty."""
        if not isinstance(polymasks_list, (list, tuple)) or not polymasks_list:
            raise ValueError(
                f"expected a list of at least one PolygonMasks, got {polymasks_list!r}"
            )
        for polymasks in polymasks_list:
            if not isinstance(polymasks, PolygonMasks):
                raise TypeError(f"expected a list of PolygonMasks, got one with {polymasks!r}")
        return type(polymasks_list[0])._of_checked(
            [instance for polymasks in polymasks_list for instance in polymasks.polygons]
        )


class ROIMasks:
    """N soft masks, each relative to a box that is kept elsewhere; a TorchScript class.

    Attributes:
        tensor: ``(N, M, M)``, values in [0, 1].
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        """Wrap masks.

        Args:
            tensor: ``(N, M, M)``; shared, not copied.
        """
        if tensor.dim() != 3:
            raise ValueError(f"masks must have the shape (N, M, M), got {list(tensor.shape)}")
        self.tensor = tensor

    def to(self, device: torch.device) -> "ROIMasks":
        """Return the masks on ``device``; they share storage if they are there already."""
        return ROIMasks(self.tensor.to(device))

    @property
    def device(self) -> torch.device:
        """Where the masks lie."""
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item) -> "ROIMasks":
        """Select masks.

        Args:
            item: a slice, a bool tensor ``(N,)`` or an integer tensor ``(K,)``.
        """
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise ValueError(
                f"an index into {len(self)} masks gave the shape {list(selected.shape)}"
            )
        return ROIMasks(selected)

    @torch.jit.unused
    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    # TorchScript reads the annotations of unused methods, too, and cannot compile BitMasks.
    @torch.jit.unused
    def to_bitmasks(self, boxes: torch.Tensor, height: int, width: int, threshold: float = 0.5):
        """Paste the masks into the image; see
        :func:`detectron2.layers.mask_ops.paste_masks_in_image`.

        Where CUDA runs out of memory, it is done on the CPU, and the result stays there.

        Args:
            boxes: :class:`Boxes` or ``(N, 4)``, one for each mask, in the pixels of the image.
            height: of the image.
            width: of the image.
            threshold: the value from which on a pixel counts as set.

        Returns:
            :class:`BitMasks`.
        """
        paste = paste_masks_in_image
        if not torch.jit.is_tracing():
            paste = retry_if_cuda_oom(paste_masks_in_image)
        return BitMasks(paste(self.tensor, boxes, (height, width), threshold=threshold))
