"""Masks as COCO's strings of run lengths, many of them in one array."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask
import torch

from detectron2.evaluation import _coco_ops  # noqa: F401  (registers the ops)


@dataclass(frozen=True)
class CodedMasks:
    """``N`` masks, each the string that ``pycocotools.mask.encode`` gives as ``counts``.

    Mask ``n`` is ``codes[begin[n]:end[n]]``. Selecting masks leaves ``codes`` as it is.
    """

    codes: np.ndarray  # (C,) uint8
    begin: np.ndarray  # (N,) int64
    end: np.ndarray  # (N,) int64
    sizes: np.ndarray  # (N, 2) int64, height and width

    def __len__(self) -> int:
        return len(self.begin)

    def take(self, index: np.ndarray) -> "CodedMasks":
        """The masks at ``index``: int64 positions or a bool ``(N,)``."""
        return CodedMasks(self.codes, self.begin[index], self.end[index], self.sizes[index])

    def counts(self, n: int) -> str:
        """The string of mask ``n``."""
        return self.codes[self.begin[n] : self.end[n]].tobytes().decode("ascii")

    def areas(self) -> np.ndarray:
        """Number of set pixels of each, float64 ``(N,)``.

        Raises:
            RuntimeError: if a string is not that of a mask of its size.
        """
        return torch.ops.detectron2.coco_mask_areas(*self.tensors()).numpy()

    def tensors(self) -> list[torch.Tensor]:
        """``codes``, ``begin``, ``end`` and the number of pixels, as the native core takes them."""
        num_pixels = self.sizes[:, 0] * self.sizes[:, 1]
        return [torch.from_numpy(x) for x in (self.codes, self.begin, self.end, num_pixels)]


def join_codes(codes: np.ndarray, lengths: np.ndarray, sizes: np.ndarray) -> CodedMasks:
    """Masks whose strings, of the given ``lengths``, follow each other in ``codes``."""
    end = np.cumsum(lengths, dtype=np.int64)
    return CodedMasks(codes, end - lengths, end, sizes)


def encode_masks(masks: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Encode masks on all threads.

    Args:
        masks: ``(N, H, W)``; what is not 0 is set.

    Returns:
        The strings one after another, uint8, and their lengths, int64 ``(N,)``.
    """
    codes, lengths = torch.ops.detectron2.coco_encode_masks(masks.bool())
    return codes.numpy(), lengths.numpy()


def encode_segmentations(
    segmentations: Sequence[Any], image_sizes: Sequence[tuple[int, int] | None], kind: str
) -> CodedMasks:
    """Read the annotations' ``segmentation``, each in any of COCO's forms.

    Args:
        segmentations: polygons, ``[[x0, y0, x1, y1, ...], ...]``; or ``{"size": (height, width),
            "counts": ...}`` with run lengths as a list, or coded as str or bytes.
        image_sizes: (height, width) of each one's image, in which polygons are drawn; None where
            it is not known.
        kind: names the annotations in errors.

    Raises:
        ValueError: if a segmentation has none of these forms, or is of polygons in an image of
            unknown size.
    """
    strings, sizes = [], np.empty((len(segmentations), 2), np.int64)
    for n, (segmentation, image_size) in enumerate(zip(segmentations, image_sizes, strict=True)):
        if isinstance(segmentation, list) and image_size is None:
            raise ValueError(
                f"'segmentation' of {kind} number {n} is of polygons, and its image has no "
                f"'height' and 'width'"
            )
        try:
            string, sizes[n] = _encode(segmentation, image_size)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'segmentation' of {kind} number {n} must be polygons or run lengths, got "
                f"{str(segmentation)[:200]!r}"
            ) from error
        strings.append(string)
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    codes = np.frombuffer(bytearray(b"".join(strings)), np.uint8)
    return join_codes(codes, lengths, sizes)


def _encode(segmentation: Any, image_size: tuple[int, int]) -> tuple[bytes, Sequence[int]]:
    if isinstance(segmentation, list):
        if not segmentation:
            blank = np.zeros(image_size, np.uint8, order="F")
            return pycocotools.mask.encode(blank)["counts"], image_size
        parts = pycocotools.mask.frPyObjects(segmentation, *image_size)
        return pycocotools.mask.merge(parts)["counts"], image_size
    counts = segmentation["counts"]
    if isinstance(counts, list):
        counts = pycocotools.mask.frPyObjects(segmentation, *segmentation["size"])["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else counts, segmentation["size"]
