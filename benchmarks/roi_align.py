"""Time RoIAlign from the levels of a pyramid beside torchvision's, level by level.

    python benchmarks/roi_align.py [--device cpu]

Features are those of an FPN for images of 800 x 1216: 200 x 304 pixels and so on over four levels,
with 256 channels. RoIs are spread over the levels by size, as in training, where many lie on the
same few objects. Bins have as many samples as pixels. Both functions start with features in the
given dtype and the level of each RoI; torchvision's takes those of half precision in float32, as
under autocast. Results are compared before they are timed.
"""

import argparse
from collections.abc import Callable

import timing
import torch
import torchvision
from torch import Tensor

from detectron2._ops.roi_align import roi_align_forward

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
HEIGHT, WIDTH = 800, 1216
CHANNELS = 256


def make_rois(batch: int, per_image: int) -> tuple[Tensor, Tensor]:
    """Half of the boxes around 8 objects of each image, half anywhere; and their levels."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    size = torch.tensor([WIDTH, HEIGHT])
    rois = []
    for image in range(batch):
        centers = uniform(8, 2) * size
        sides = torch.exp(uniform(8, 2) * 3.4 + 3)  # 20 to 600 pixels
        nearest = torch.randint(0, 8, (per_image // 2,), generator=generator)
        jitter = (uniform(per_image // 2, 4) - 0.5) / 3
        near = [centers[nearest] + jitter[:, :2] * sides[nearest], sides[nearest]]
        near[1] = near[1] * torch.exp(jitter[:, 2:])
        rest = per_image - per_image // 2
        far = [uniform(rest, 2) * size, torch.exp(uniform(rest, 2) * 3.4 + 2.7)]
        center, side = (torch.cat(pair) for pair in zip(near, far, strict=True))
        low = (center - side / 2).clamp(min=0).minimum(size - 4.0)
        high = (center + side / 2).minimum(size.float()).maximum(low + 4)
        rois.append(torch.cat([torch.full((per_image, 1), float(image)), low, high], dim=1))
    rois = torch.cat(rois)
    areas = (rois[:, 3:] - rois[:, 1:3]).prod(1)
    levels = torch.floor(4 + torch.log2(areas.sqrt() / 224)).clamp(2, 5) - 2
    return rois, levels.long()


def pool_with_torchvision(
    features: list[Tensor], rois: Tensor, levels: Tensor, bins: int
) -> Tensor:
    pooled = rois.new_zeros(len(rois), CHANNELS, bins, bins)
    for i, level in enumerate(features):
        chosen = (levels == i).nonzero().squeeze(1)
        result = torchvision.ops.roi_align(
            level.float(), rois[chosen], (bins, bins), SCALES[i], 0, True
        )
        pooled = pooled.index_copy(0, chosen, result)
    return pooled.to(features[0].dtype)


def pool(features: list[Tensor], rois: Tensor, levels: Tensor, bins: int) -> Tensor:
    return roi_align_forward(features, rois, levels, SCALES, bins, bins, 0, True)


FUNCTIONS = {"native": pool, "torchvision": pool_with_torchvision}


def passes(
    function: Callable[..., Tensor],
    features: list[Tensor],
    grad: Tensor | None,
    rois: Tensor,
    levels: Tensor,
    bins: int,
) -> Callable[[], list[Tensor]]:
    """What is timed: ``function``, and its derivative if there is a gradient to begin with."""

    def run() -> list[Tensor]:
        pooled = function(features, rois, levels, bins)
        if grad is None:
            return [pooled]
        return [pooled.detach(), *torch.autograd.grad(pooled, features, grad)]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--batch", type=int, help="1 on the CPU, 8 on CUDA")
    args = timing.parse_arguments(parser)
    on_cpu = args.device == "cpu"
    batch = args.batch or (1 if on_cpu else 8)

    report = timing.Report("roi_align", args.device)
    for dtype in [torch.float32] if on_cpu else [torch.float16, torch.float32]:
        for layout in (torch.channels_last, torch.contiguous_format):
            for per_image, bins in ((128, 7), (32, 14)) if on_cpu else ((512, 7), (128, 14)):
                generator = torch.Generator().manual_seed(1)
                features = []
                for scale in SCALES:
                    size = (batch, CHANNELS, int(HEIGHT * scale), int(WIDTH * scale))
                    level = torch.randn(size, generator=generator).to(args.device, dtype)
                    features.append(level.contiguous(memory_format=layout).requires_grad_())
                rois, levels = (x.to(args.device) for x in make_rois(batch, per_image))
                grad = torch.randn((len(rois), CHANNELS, bins, bins), generator=generator)
                grad = grad.to(args.device, dtype)
                for backward in (False, True):
                    inputs = features if backward else [level.detach() for level in features]
                    functions = {
                        name: passes(
                            function, inputs, grad if backward else None, rois, levels, bins
                        )
                        for name, function in FUNCTIONS.items()
                    }
                    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
                    for ours, theirs in zip(*(f() for f in functions.values()), strict=True):
                        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
                    timings = timing.compare(
                        functions, args.device, warmup=1 if on_cpu else 5, repeats=args.repeats
                    )
                    report.add(
                        f"{str(dtype)[6:]}, {str(layout)[6:]}, {len(rois)} x {bins} x {bins}, "
                        + ("forward and backward" if backward else "forward"),
                        timings,
                        batch=batch,
                        rois=len(rois),
                        bins=bins,
                    )
    report.print()


if __name__ == "__main__":
    main()
