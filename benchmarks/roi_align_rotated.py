"""Time ROIAlignRotated beside the same pooling put together from grid_sample.

    python benchmarks/roi_align_rotated.py [--device cpu]

Features are (2, channels, 200, 304); RoIs are pooled to 7 x 7 bins, with 2 x 2 samples each or with
as many as pixels (``sampling 0``). Results are compared before they are timed.
"""

import argparse
from collections.abc import Callable

import timing
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from detectron2.layers import ROIAlignRotated

SCALE = 0.25
BINS = 7
HEIGHT, WIDTH = 200, 304


def make_rois(count: int, smallest: float, largest: float) -> Tensor:
    """(count, 6) in the pixels of an image of 800 x 800."""
    generator = torch.Generator().manual_seed(0)
    columns = [
        torch.randint(0, 2, (count, 1), generator=generator).float(),
        torch.rand(count, 2, generator=generator) * 800,
        torch.rand(count, 2, generator=generator) * (largest - smallest) + smallest,
        torch.rand(count, 1, generator=generator) * 360 - 180,
    ]
    return torch.cat(columns, dim=1)


def pool_with_grid_sample(features: Tensor, rois: Tensor, samples: int) -> Tensor:
    """Every sample of an image's RoIs in one call; features count as zero outside the map."""
    height, width = features.shape[2:]
    offsets = (torch.arange(BINS * samples, device=rois.device) + 0.5) / (BINS * samples) - 0.5
    pooled = features.new_empty(len(rois), features.shape[1], BINS, BINS)
    for index in range(len(features)):
        chosen = (rois[:, 0] == index).nonzero().squeeze(1)
        center_x, center_y, side_x, side_y = (rois[chosen, 1:5] * SCALE).unbind(1)
        angle = torch.deg2rad(rois[chosen, 5])[:, None, None]
        right = (side_x[:, None] * offsets)[:, None, :]
        down = (side_y[:, None] * offsets)[:, :, None]
        x = right * angle.cos() + down * angle.sin() + center_x[:, None, None] - 0.5
        y = down * angle.cos() - right * angle.sin() + center_y[:, None, None] - 0.5
        inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
        grid = torch.stack((x * 2 / (width - 1) - 1, y * 2 / (height - 1) - 1), dim=-1)
        sampled = grid_sample(
            features[index : index + 1],
            grid.view(1, -1, BINS * samples, 2).to(features.dtype),
            padding_mode="border",
            align_corners=True,
        )
        sampled = sampled * inside.view(1, 1, -1, BINS * samples)
        bins = avg_pool2d(sampled, samples).view(features.shape[1], -1, BINS, BINS)
        pooled = pooled.index_copy(0, chosen, bins.transpose(0, 1))
    return pooled


def pooling(
    function: Callable[[Tensor], Tensor], features: Tensor, grad: Tensor | None
) -> Callable[[], Tensor]:
    """What is timed: ``function``, and its derivative if there is a gradient to begin with."""

    def run() -> Tensor:
        features.grad = None
        pooled = function(features)
        if grad is not None:
            pooled.backward(grad)
        return pooled.detach()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--rois", type=int, help="256 on the CPU, 1000 on CUDA")
    parser.add_argument("--channels", type=int, help="64 on the CPU, 256 on CUDA")
    args = timing.parse_arguments(parser)

    on_cpu = args.device == "cpu"
    num_rois = args.rois or (256 if on_cpu else 1000)
    channels = args.channels or (64 if on_cpu else 256)
    rois = make_rois(num_rois, *((16, 300) if on_cpu else (5, 105))).to(args.device)
    layouts = {"": torch.contiguous_format}
    cases = [(torch.float32, 2), (torch.float32, 0)]
    if not on_cpu:
        layouts[", channels last"] = torch.channels_last
        cases = [(torch.float32, 2), (torch.float16, 2), (torch.float32, 0)]

    report = timing.Report("roi_align_rotated", args.device)
    for dtype, sampling_ratio in cases:
        for backward in (False, True):
            for layout, memory_format in layouts.items():
                generator = torch.Generator().manual_seed(1)
                features = torch.randn(2, channels, HEIGHT, WIDTH, generator=generator)
                features = features.to(args.device, dtype, memory_format=memory_format)
                features.requires_grad_(backward)
                grad = torch.randn(num_rois, channels, BINS, BINS, generator=generator)
                grad = grad.to(args.device, dtype) if backward else None

                pool = ROIAlignRotated(BINS, SCALE, sampling_ratio)
                functions = {"native": pooling(lambda x, pool=pool: pool(x, rois), features, grad)}
                if sampling_ratio > 0:  # a grid has the same number of samples for all RoIs
                    functions["grid_sample"] = pooling(
                        lambda x, n=sampling_ratio: pool_with_grid_sample(x, rois, n),
                        features,
                        grad,
                    )
                    if dtype == torch.float32:  # grid_sample rounds the grid to half precision
                        results = [function() for function in functions.values()]
                        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
                timings = timing.compare(functions, args.device, repeats=args.repeats)
                passes = "forward and backward" if backward else "forward"
                report.add(
                    f"{str(dtype)[6:]}, sampling {sampling_ratio}{layout}, {passes}",
                    timings,
                    rois=num_rois,
                    channels=channels,
                )
    report.print()


if __name__ == "__main__":
    main()
