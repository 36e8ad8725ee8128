"""Time the deformable convolutions on CUDA beside torchvision's deform_conv2d.

    python benchmarks/deform_conv.py
    python benchmarks/deform_conv.py --repeats 50 --channels-last

Offsets are normally distributed with a deviation of 2 pixels, as after training, masks are uniform
in [0, 1). Both sides run by turns on the same tensors. Prints a table, then one JSON line a case.
"""

import argparse
from collections.abc import Callable
from typing import Any

import timing
import torch
import torchvision

from detectron2.layers.deform_conv import deform_conv, modulated_deform_conv

# Batch, channels in and out, height and width of a 3 x 3 convolution of ResNet stages 4 and 5.
SHAPES = [(2, 256, 100, 152), (2, 512, 50, 76)]


def functions_of(
    shape: tuple[int, int, int, int], modulated: bool, dtype: torch.dtype, channels_last: bool
) -> dict[str, dict[str, Callable[[], Any]]]:
    """For "forward" and "forward+backward": the function here, and torchvision's."""
    batch, channels, height, width = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, device="cuda")

    input = random(*shape).to(dtype)
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    offset = (random(batch, 18, height, width) * 2).to(dtype)
    mask = torch.rand(batch, 9, height, width, generator=generator, device="cuda").to(dtype)
    weight = (random(channels, channels, 3, 3) / (3 * channels**0.5)).to(dtype)
    leaves = [input, offset, weight, mask] if modulated else [input, offset, weight]
    for leaf in leaves:
        leaf.requires_grad_()
    grad = random(*shape).to(dtype)

    def here() -> torch.Tensor:
        if modulated:
            return modulated_deform_conv(input, offset, mask, weight, None, 1, 1)
        return deform_conv(input, offset, weight, 1, 1)

    def other() -> torch.Tensor:
        return torchvision.ops.deform_conv2d(
            input, offset, weight, padding=1, mask=mask if modulated else None
        )

    def forward(convolve: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                convolve()

        return run

    def both(convolve: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(convolve(), leaves, grad)

        return run

    return {
        "forward": {"native": forward(here), "torchvision": forward(other)},
        "forward+backward": {"native": both(here), "torchvision": both(other)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()

    report = timing.Report("deform_conv", "cuda")
    for shape in SHAPES:
        for modulated in (False, True):
            for dtype in (torch.float32, torch.float16):
                cases = functions_of(shape, modulated, dtype, args.channels_last)
                for name, functions in cases.items():
                    version = "v2" if modulated else "v1"
                    dtype_name = str(dtype).removeprefix("torch.")
                    case = f"{version} {'x'.join(map(str, shape))} {dtype_name} {name}"
                    timings = timing.compare(functions, "cuda", warmup=3, repeats=args.repeats)
                    report.add(case, timings, channels_last=args.channels_last)
    report.print()


if __name__ == "__main__":
    main()
