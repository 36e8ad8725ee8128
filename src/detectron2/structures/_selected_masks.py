"""Bitmaps that stand for others of the same image."""

from typing import Any

import torch

from detectron2.layers.roi_align import ROIAlign
from detectron2.structures.masks import BitMasks, _check_count


class SelectedBitMasks(BitMasks):
    """N of the G masks of an image, some of them several times, which are not copied.

    The proposals of an image are hundreds, and its objects a dozen. The masks themselves are
    :attr:`tensor`, which is made when it is asked for.
    """

    def __init__(self, tensor: torch.Tensor, index: torch.Tensor | None = None) -> None:
        """
        Args:
            tensor: bool ``(G, H, W)``; shared, not copied.
            index: int64 ``(N,)``, on the same device; None: all.
        """
        self._masks, self._is_own = tensor.to(torch.bool), False
        self.image_size = tensor.shape[1:]
        if index is None:
            index = torch.arange(len(tensor), device=tensor.device)
        self._index = index

    @property
    def tensor(self) -> torch.Tensor:
        """bool ``(N, H, W)``, which from then on is where the masks are: it may be edited."""
        if not self._is_own:
            self.tensor = self._masks[self._index]
        return self._masks

    @tensor.setter
    def tensor(self, masks: torch.Tensor) -> None:
        self._masks, self._is_own = masks, True
        self._index = torch.arange(len(masks), device=masks.device)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def device(self) -> torch.device:
        """Where the masks lie."""
        return self._masks.device

    def __getitem__(self, item: Any) -> BitMasks:
        """Select masks, as of :class:`BitMasks`."""
        if self._is_own:
            return BitMasks(self._masks)[item]
        if isinstance(item, int):
            return SelectedBitMasks(self._masks, self._index[item].reshape(1))
        selected = self._index[item]
        if selected.dim() != 1:
            raise IndexError(
                f"an index into {len(self)} masks gave the shape {list(selected.shape)}"
            )
        return SelectedBitMasks(self._masks, selected)

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """Return the masks after ``Tensor.to`` with these arguments."""
        if self._is_own:
            return BitMasks(self._masks.to(*args, **kwargs))
        masks = self._masks.to(*args, **kwargs)
        return SelectedBitMasks(masks, self._index.to(masks.device))

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """See :meth:`BitMasks.crop_and_resize`."""
        if self._masks.is_cpu:
            # There it goes in portions, and copies of masks are small beside what RoIAlign does.
            return BitMasks(self._masks[self._index]).crop_and_resize(boxes, mask_size)
        _check_count(boxes, self)
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        rois = torch.cat([self._index[:, None].to(boxes.dtype), boxes], dim=1)
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        return align(self._masks[:, None].to(torch.float32), rois).squeeze(1) >= 0.5
