"""RoIAlign of rotated boxes."""

import torch
from torch import nn

from detectron2._ops.roi_align_rotated import roi_align_rotated_forward

# Code written for upstream imports this name from here.
from detectron2.layers.wrappers import disable_torch_compiler

__all__ = ["ROIAlignRotated", "disable_torch_compiler", "roi_align_rotated"]


def roi_align_rotated(
    input: torch.Tensor,
    roi: torch.Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> torch.Tensor:
    """Pool the features under each rotated box into a grid of fixed size by bilinear sampling.

    Sample points are placed in the box's own frame, then turned into the image's. Differentiable
    with respect to ``input``.

    Args:
        input: features, ``(N, C, H, W)``.
        roi: ``(K, 6)``, rows ``(index into the batch, cx, cy, w, h, angle)`` in the pixels of the
            image; the angle in degrees, counter-clockwise on screen; sizes not negative.
        output_size: (rows, columns) of the output, or one int for both.
        spatial_scale: what centres and sizes are multiplied by, 1 / stride of the features.
        sampling_ratio: samples a bin along each side; 0 takes ``ceil(box side / bins)``.

    Returns:
        ``(K, C, rows, columns)`` in the dtype of ``input``.
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if torch.jit.is_scripting():
        return torch.ops.detectron2.roi_align_rotated_forward(
            input, roi, spatial_scale, rows, columns, sampling_ratio
        )
    return roi_align_rotated_forward(input, roi, spatial_scale, rows, columns, sampling_ratio)


class ROIAlignRotated(nn.Module):
    """:func:`roi_align_rotated` as a module; it is always "aligned" as in ``ROIAlign``.

    Args:
        output_size: (rows, columns) of the output, or one int for both.
        spatial_scale: what box coordinates are multiplied by, 1 / stride of the features.
        sampling_ratio: samples a bin along each side; 0 takes ``ceil(box side / bins)``.
    """

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """Pool ``rois`` ``(K, 6)`` from ``input`` ``(N, C, H, W)`` as `roi_align_rotated` does."""
        if rois.dim() != 2 or rois.size(1) != 6:
            raise ValueError(f"rois must have the shape (K, 6), got {list(rois.shape)}")
        return roi_align_rotated(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}"
        )
