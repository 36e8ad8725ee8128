"""RoIAlign of axis-aligned boxes."""

import torch
from torch import nn
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "roi_align"]


class ROIAlign(nn.Module):
    """Pool the features under each box into a grid of fixed size by bilinear sampling.

    He et al., "Mask R-CNN", ICCV 2017, section 3. Half-precision features are pooled in float32
    and the result is cast back, so that box coordinates are never rounded to the features' dtype
    (bfloat16 would put those above 1,024 pixels on a grid of 8).

    Args:
        output_size: (rows, columns) of the output, or one int for both.
        spatial_scale: what box coordinates are multiplied by, 1 / stride of the features.
        sampling_ratio: samples a bin along each side; 0 takes ``ceil(box side / bins)``.
        aligned: True subtracts half a feature pixel from the scaled coordinates, so that sample
            points and pixel centres agree. False is the legacy form, which does not and which
            treats boxes smaller than a feature pixel as one pixel large.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """Pool.

        Args:
            input: features, ``(N, C, H, W)``.
            rois: ``(K, 5)``, rows ``(index into the batch, x0, y0, x1, y1)`` in the pixels of the
                image, not of the features.

        Returns:
            ``(K, C, rows, columns)`` in the dtype of ``input``; zeros for a row of ``rois`` with
            a value that is not finite.
        """
        if rois.dim() != 2 or rois.size(1) != 5:
            raise ValueError(f"rois must have the shape (K, 5), got {list(rois.shape)}")
        if input.is_quantized:
            input = input.dequantize()
        features = input
        if input.dtype == torch.float16 or input.dtype == torch.bfloat16:
            features = input.float()
        rois = rois.to(dtype=features.dtype)
        # For values that are not finite torchvision reads outside the features, or never ends. A
        # box far outside of them is pooled as zeros.
        undefined = ~rois.isfinite().all(dim=1, keepdim=True)
        rois = torch.cat(
            (rois[:, :1].masked_fill(undefined, 0), rois[:, 1:].masked_fill(undefined, -1e30)),
            dim=1,
        )
        pooled = roi_align(
            features,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )
        return pooled.to(dtype=input.dtype)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
