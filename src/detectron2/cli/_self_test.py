"""The compiled operators, each tried on a small problem on this machine's devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import detectron2._ops  # noqa: F401
from detectron2.cli import _slow_references as slow
from detectron2.cli._errors import one_line

_ops = torch.ops.detectron2


@dataclass(frozen=True)
class Outcome:
    """What came of an operator's test.

    Attributes:
        problem: None if the result was right; else one line.
    """

    operator: str
    device: str
    seconds: float
    problem: str | None


def operators() -> list[str]:
    """The operators that are registered, by name."""
    prefix = "detectron2::"
    schemas = (schema.name for schema in torch._C._jit_get_all_schemas())
    return sorted({name.removeprefix(prefix) for name in schemas if name.startswith(prefix)})


def run(devices: list[str]) -> Iterator[Outcome]:
    """Run every test on every device that its operator has kernels for."""
    for device in devices:
        for name, test in _TESTS.items():
            if device != "cpu" and name in _CPU_ONLY:
                continue
            start, problem = time.perf_counter(), None
            try:
                test(device)
            except Exception as error:  # Whatever is wrong is to be reported, for each operator.
                problem = one_line(error)[:200]
            yield Outcome(name, device, time.perf_counter() - start, problem)


def _random(*shape: int) -> Tensor:
    return torch.rand(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))
    )


def _boxes(count: int) -> Tensor:
    corners = _random(count, 4) * 20
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] + 1], dim=1)


def _rotated_boxes(count: int) -> Tensor:
    values = _random(count, 5)
    scale = torch.tensor([20, 20, 15, 15, 360], dtype=torch.float64)
    return values * scale + torch.tensor([0, 0, 1, 1, -180], dtype=torch.float64)


def _same(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(
        actual.cpu().double(), expected.double(), rtol=tolerance, atol=tolerance
    )


def _check_gradient(function: Callable[[Tensor], Tensor], value: Tensor) -> None:
    """Against differences, in one random direction. Atomic additions differ in their order."""
    value.requires_grad_()
    torch.autograd.gradcheck(function, value, fast_mode=True, nondet_tol=1e-9)


def _pairwise_iou(device: str) -> None:
    boxes = _boxes(12)
    expected = slow.pairwise(slow.box_iou, boxes, boxes)
    _same(_ops.pairwise_iou(boxes.float().to(device), boxes.float().to(device)), expected)


def _box_iou_rotated(device: str) -> None:
    boxes = _rotated_boxes(12)
    expected = slow.pairwise(slow.rotated_iou, boxes, boxes)
    _same(_ops.box_iou_rotated(boxes.float().to(device), boxes.float().to(device)), expected)


def _nms_rotated(device: str) -> None:
    boxes = _rotated_boxes(30)
    scores = torch.linspace(1, 0.1, 30)
    expected = slow.nms(slow.pairwise(slow.rotated_iou, boxes, boxes), 0.3)
    kept = _ops.nms_rotated(boxes.float().to(device), scores.to(device), 0.3)
    _same(kept, torch.tensor(expected))


def _nms_groups(device: str) -> None:
    boxes = _boxes(30)
    kept = slow.nms(slow.pairwise(slow.box_iou, boxes, boxes), 0.3)
    expected = torch.zeros(1, 30, dtype=torch.bool)
    expected[0, kept] = True
    valid = torch.ones(1, 30, dtype=torch.bool, device=device)
    _same(_ops.nms_groups(boxes.float().to(device)[None], valid, None, 0.3), expected)


def _roi_align(device: str) -> None:
    features, boxes = _random(2, 3, 9, 11), _boxes(4) / 2
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    index, angle = torch.ones(4, 1), torch.zeros(4, 1)
    upright = torch.cat([index, centers, sides, angle], dim=1)
    expected = slow.roi_align_rotated(features, upright, 2, 2)
    rois = torch.cat([index, boxes], dim=1).to(device)

    def pool(input: Tensor) -> Tensor:
        rois_like = rois.to(input.dtype)
        return _ops.roi_align_forward([input], rois_like, None, [1.0], 2, 2, 2, True)

    _same(pool(features.float().to(device)), expected)
    _check_gradient(pool, features.to(device))


def _roi_align_rotated(device: str) -> None:
    from detectron2.layers import roi_align_rotated

    features, rois = _random(2, 3, 9, 11), torch.cat([torch.ones(4, 1), _rotated_boxes(4) / 2], 1)
    expected = slow.roi_align_rotated(features, rois, 2, 2)
    rois = rois.to(device)
    result = roi_align_rotated(features.float().to(device), rois.float(), (2, 2), 1.0, 2)
    _same(result, expected)
    _check_gradient(lambda x: roi_align_rotated(x, rois, (2, 2), 1.0, 2), features.to(device))


def _deform_conv(device: str) -> None:
    input, weight = _random(1, 2, 5, 6), _random(3, 2, 3, 3) - 0.5
    offset, mask = _random(1, 18, 5, 6) * 3 - 1.5, _random(1, 9, 5, 6)
    expected = slow.deform_conv(input, offset, mask, weight)
    arguments = [tensor.to(device) for tensor in (input, offset, mask, weight)]

    def convolve(*tensors: Tensor) -> Tensor:
        return _ops.deform_conv(*tensors, None, [1, 1], [1, 1], [1, 1], 1, 1)

    _same(convolve(*(tensor.float() for tensor in arguments)), expected)
    _check_gradient(lambda x: convolve(x, *arguments[1:]), arguments[0])


def _paste_masks(device: str) -> None:
    masks, boxes = _random(4, 7, 7), _boxes(4)
    values = [slow.pasted_mask(m, b, 24, 30) for m, b in zip(masks, boxes.tolist(), strict=True)]
    values = torch.stack(values)
    pasted = _ops.paste_masks(masks.float().to(device), boxes.float().to(device), 24, 30, 0.5)
    # Rounding may decide otherwise right at the threshold.
    clear = (values - 0.5).abs() > 1e-4
    _same(pasted.cpu()[clear], values[clear] >= 0.5)


def _rasterize_polygons(device: str) -> None:
    from pycocotools import mask as mask_api

    vertices = _random(7, 2) * 20
    runs = mask_api.merge(mask_api.frPyObjects([vertices.flatten().tolist()], 20, 24))
    offsets = torch.tensor([0, 7]), torch.tensor([0, 1])
    mask = _ops.rasterize_polygons(vertices, *offsets, 20, 24)
    _same(mask[0], torch.from_numpy(mask_api.decode(runs)))


def _mask_bounding_boxes(device: str) -> None:
    masks = _random(6, 13, 17) < torch.tensor([0, 0.005, 0.01, 0.02, 0.3, 1])[:, None, None]
    expected = torch.tensor([slow.mask_box(mask) for mask in masks])
    _same(_ops.mask_bounding_boxes(masks.to(device)), expected)


def _heatmaps_to_keypoints(device: str) -> None:
    maps, rois = _random(3, 2, 7, 7), _boxes(3)
    expected = [
        [slow.highest_point(heatmap, roi) for heatmap in of_roi]
        for of_roi, roi in zip(maps, rois.tolist(), strict=True)
    ]
    result = _ops.heatmaps_to_keypoints(maps.float().to(device), rois.float().to(device))
    _same(result[..., :2], torch.tensor(expected), 1e-3)


def _resize_bilinear(device: str) -> None:
    import numpy as np
    from PIL import Image

    image = (_random(9, 13) * 256).to(torch.uint8)
    expected = Image.fromarray(image.numpy()).resize((7, 20), Image.Resampling.BILINEAR)
    resized = _ops.resize_bilinear(image[None], 20, 7)
    _same(resized[0], torch.from_numpy(np.asarray(expected).copy()), 0)


def _sigmoid_focal_loss(device: str) -> None:
    logits, labels = _random(6, 4) * 6 - 3, torch.tensor([0, 3, 4, -1, 2, 4])
    expected = slow.focal_loss(logits, labels, 0.25, 2.0)
    labels = labels.to(device)
    _same(_ops.sigmoid_focal_loss(logits.float().to(device), labels, 0.25, 2.0), expected)
    _check_gradient(
        lambda x: _ops.sigmoid_focal_loss(x, labels, 0.25, 2.0), logits.to(device).contiguous()
    )


def _coco(device: str) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from detectron2.cli._terminal import hidden_output
    from detectron2.evaluation.fast_eval_api import COCOeval_opt

    boxes = _boxes(20)
    boxes[:, 2:] -= boxes[:, :2]
    annotations = [
        {"id": i + 1, "image_id": i % 3 + 1, "category_id": 1, "bbox": box, "iscrowd": 0,
         "area": box[2] * box[3], "score": 1 / (i + 2)}
        for i, box in enumerate(boxes.tolist())
    ]  # fmt: skip
    with hidden_output():
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in (1, 2, 3)],
            "annotations": annotations[:12],
            "categories": [{"id": 1}],
        }
        coco.createIndex()
        found = coco.loadRes([{**a, "bbox": [x + 1 for x in a["bbox"]]} for a in annotations])
        stats = []
        for kind in (COCOeval, COCOeval_opt):
            evaluation = kind(coco, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats.append(torch.from_numpy(evaluation.stats))
    _same(stats[1], stats[0], 1e-9)


_CPU_ONLY = {"rasterize_polygons", "resize_bilinear", "coco_*"}
_TESTS = {
    "pairwise_iou": _pairwise_iou,
    "box_iou_rotated": _box_iou_rotated,
    "nms_rotated": _nms_rotated,
    "nms_groups": _nms_groups,
    "roi_align": _roi_align,
    "roi_align_rotated": _roi_align_rotated,
    "deform_conv": _deform_conv,
    "paste_masks": _paste_masks,
    "rasterize_polygons": _rasterize_polygons,
    "mask_bounding_boxes": _mask_bounding_boxes,
    "heatmaps_to_keypoints": _heatmaps_to_keypoints,
    "resize_bilinear": _resize_bilinear,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
    "coco_*": _coco,
}
