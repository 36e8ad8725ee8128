"""RoIAlign of axis-aligned boxes."""

import torch
from torch import nn
from torchvision.ops import roi_align

from detectron2._ops.roi_align import roi_align_forward
from detectron2.utils.tracing import is_exporting, is_fx_tracing

__all__ = ["ROIAlign", "roi_align"]


@torch.jit.unused
def can_pool_natively(features: list[torch.Tensor]) -> bool:
    """Whether `multilevel_roi_align` may be called here.

    Graphs that leave the process (TorchScript, traces, exported programs) have torchvision's
    operator, which programs that read them know.
    """
    return not (torch.jit.is_tracing() or is_exporting() or is_fx_tracing()) and all(
        x.is_floating_point() and x.device.type in ("cpu", "cuda") for x in features
    )


@torch.jit.unused
def multilevel_roi_align(
    features: list[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int,
    aligned: bool = True,
) -> torch.Tensor:
    """`ROIAlign` of each box from its level of a feature pyramid, in one operator.

    Differentiable with respect to the features. It never waits for the device.

    Args:
        features: of each level, ``(N, C, H_i, W_i)``; of up to 8.
        rois: ``(K, 5)``, rows ``(index into the batch, x0, y0, x1, y1)``.
        levels: ``(K,)`` int64 indices into ``features``; may be None for one level.
        output_size: (rows, columns) of the output, or one int for both.
        spatial_scales: of each level.
        sampling_ratio: samples a bin along each side; 0 takes ``ceil(box side / bins)``.
        aligned: False is the legacy form.

    Returns:
        ``(K, C, rows, columns)`` in the dtype of the features.
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    return roi_align_forward(
        features,
        rois if rois.is_floating_point() else rois.float(),
        levels,
        spatial_scales,
        rows,
        columns,
        sampling_ratio,
        aligned,
    )


class ROIAlign(nn.Module):
    """Pool the features under each box into a grid of fixed size by bilinear sampling.

    He et al., "Mask R-CNN", ICCV 2017, section 3. Half-precision features are pooled with boxes and
    sums in float32, so that box coordinates are never rounded to the features' dtype (bfloat16
    would put those above 1,024 pixels on a grid of 8). Autocast leaves the features in their dtype.

    A box with a value that is not finite gives zeros. So does one with a negative side without
    fixed samples, unless ``aligned`` is False. An index out of the batch is an error on the CPU and
    gives zeros on CUDA.

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
            ``(K, C, rows, columns)`` in the dtype of ``input``.
        """
        if rois.dim() != 2 or rois.size(1) != 5:
            raise ValueError(f"rois must have the shape (K, 5), got {list(rois.shape)}")
        if input.is_quantized:
            input = input.dequantize()
        if not torch.jit.is_scripting() and can_pool_natively([input]):
            return multilevel_roi_align(
                [input],
                rois,
                None,
                self.output_size,
                [self.spatial_scale],
                self.sampling_ratio,
                self.aligned,
            )
        return self._pool_with_torchvision(input, rois)

    def _pool_with_torchvision(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        features = input
        if input.dtype == torch.float16 or input.dtype == torch.bfloat16:
            features = input.float()
        # For boxes that are not finite torchvision reads out of bounds on the CPU, and it takes any
        # number of adaptive samples in large ones. Beyond the features all samples are 0.
        is_finite = torch.isfinite(rois).all(dim=1, keepdim=True)
        rois = rois.to(dtype=features.dtype)
        reach = torch.full_like(rois, (input.shape[2] + input.shape[3] + 4096) / self.spatial_scale)
        # Not concatenated: in a script on CUDA, an empty level's RoIs came out of that as int32.
        is_index = torch.arange(5, device=rois.device) == 0
        inside = torch.where(is_index, rois, torch.minimum(torch.maximum(rois, -reach), reach))
        outside = torch.where(is_index, torch.zeros_like(rois), -reach)
        rois = torch.where(is_finite, inside, outside)
        if self.sampling_ratio <= 0 and not rois.is_cuda:
            # A negative side has no adaptive samples on CUDA, and a negative number on the CPU.
            rois = torch.cat([rois[:, :3], torch.maximum(rois[:, 1:3], rois[:, 3:])], dim=1)
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
