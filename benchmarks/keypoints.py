"""Time heatmaps_to_keypoints beside its formulation of PyTorch operators.

    python benchmarks/keypoints.py [--device cpu]

Heatmaps of 17 keypoints, 56 x 56, with a peak each, and RoIs of 30 to 330 pixels; then the same
with RoIs four times as large, and of nothing but noise, which has no peak.
"""

import argparse

import timing
import torch

from detectron2.structures.keypoints import _heatmaps_to_keypoints_by_roi, heatmaps_to_keypoints

KEYPOINTS, SIZE = 17, 56


def make_rois(count: int, scale: float, device: str) -> torch.Tensor:
    low = torch.rand(count, 2, device=device) * 300
    return torch.cat([low, low + 30 + torch.rand(count, 2, device=device) * 300], dim=1) * scale


def make_peaks(count: int, device: str) -> torch.Tensor:
    position = torch.rand(count, KEYPOINTS, 2, 1, 1, device=device) * SIZE
    y, x = position.unbind(2)
    rows = torch.arange(SIZE, device=device)[:, None]
    distance = (rows - y) ** 2 + (rows.T - x) ** 2
    return 10 * torch.exp(-distance / 20) + 0.2 * torch.randn_like(distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    args = timing.parse_arguments(parser)
    device = args.device
    torch.manual_seed(0)

    report = timing.Report("keypoints", device)
    for case, count, scale, peaks in (
        ("10 RoIs", 10, 1, True),
        ("100 RoIs", 100, 1, True),
        ("100 large RoIs", 100, 4, True),
        ("100 RoIs of noise", 100, 1, False),
    ):
        rois = make_rois(count, scale, device)
        noise = torch.randn(count, KEYPOINTS, SIZE, SIZE, device=device)
        maps = make_peaks(count, device) if peaks else noise
        functions = {
            "native": lambda maps=maps, rois=rois: heatmaps_to_keypoints(maps, rois),
            "pytorch": lambda maps=maps, rois=rois: _heatmaps_to_keypoints_by_roi(maps, rois),
        }
        timings = timing.compare(functions, device, warmup=2, repeats=min(args.repeats, 10))
        report.add(case, timings, rois=count, keypoints=KEYPOINTS, size=SIZE, scale=scale)
    report.print()


if __name__ == "__main__":
    main()
