"""Time whole models of the zoo: inference, and iterations of training.

    python benchmarks/models.py                                     # on a GPU
    python benchmarks/models.py mask_rcnn --mode infer --images 1
    python benchmarks/models.py retinanet --device cpu --size 320 480 --repeats 3

Weights are random, images are noise of one size, and training has 12 rectangles an image as ground
truth, with masks. An iteration of training includes SGD's step. A time lasts from Python's first
line until the device is idle; images are on the CPU before.

The script uses the public API only, so that it times upstream, too, where that is what
``import detectron2`` finds: a ratio of the two needs one run of each on the same machine.
"""

import argparse
import contextlib
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

MODELS = {
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "keypoint_rcnn": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "panoptic_fpn": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
}
TRAINABLE = ("mask_rcnn", "cascade", "retinanet")  # with rectangles
OBJECTS = 12
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_model(name: str, device: str, training: bool) -> nn.Module:
    cfg: CfgNode = model_zoo.get_config(MODELS[name])
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = device
    torch.manual_seed(0)
    return build_model(cfg).train(training)


def rectangles(height: int, width: int, generator: torch.Generator) -> Instances:
    """Ground truth of an image."""
    scale = min(height, width)
    corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([width, height]) * 0.6
    size = torch.rand(OBJECTS, 2, generator=generator) * scale * 0.3 + scale * 0.03
    boxes = torch.cat([corner, corner + size], dim=1)
    outlines = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.randint(0, 80, (OBJECTS,), generator=generator)
    instances.gt_masks = PolygonMasks([[outline] for outline in outlines])
    return instances


def make_inputs(images: int, height: int, width: int, training: bool) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(images):
        image: Tensor = torch.randint(
            0, 256, (3, height, width), dtype=torch.uint8, generator=generator
        )
        record: dict[str, Any] = {"image": image, "height": height, "width": width}
        if training:
            record["instances"] = rectangles(height, width, generator)
        inputs.append(record)
    return inputs


def measure(name: str, mode: str, images: int, precision: str, args: argparse.Namespace) -> dict:
    training = mode == "train"
    model = make_model(name, args.device, training)
    inputs = make_inputs(images, *args.size, training)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    dtype = PRECISIONS[precision]
    kind = torch.device(args.device).type

    def run() -> None:
        autocast = torch.autocast(kind, dtype) if dtype else contextlib.nullcontext()
        if training:
            with autocast:
                loss = sum(model(inputs).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        else:
            with torch.no_grad(), autocast:
                model(inputs)

    def wait() -> None:
        if kind == "cuda":
            torch.cuda.synchronize()

    times = []
    with EventStorage():
        for _ in range(args.warmup):
            run()
        wait()
        if kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(args.repeats):
            start = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    result = {
        "benchmark": "models",
        "model": name,
        "mode": mode,
        "images": images,
        "precision": precision,
        "milliseconds": round(median * 1e3, 2),
        "images_per_second": round(images / median, 2),
    }
    if kind == "cuda":
        result["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {list(MODELS)}")
    parser.add_argument("--mode", choices=("train", "infer"), help="default: both")
    parser.add_argument("--images", type=int, help="a batch; default: 8, and 1 for inference, too")
    parser.add_argument("--precision", choices=list(PRECISIONS), help="default: fp32 and fp16")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    unknown = sorted(set(args.models) - set(MODELS))
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {list(MODELS)}")
    # As in the published timings of upstream.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for name in args.models or MODELS:
        modes = [args.mode] if args.mode else ["infer", "train"]
        for mode in modes:
            if mode == "train" and name not in TRAINABLE:
                continue
            counts = [args.images] if args.images else [8] if mode == "train" else [1, 8]
            for images in counts:
                for precision in [args.precision] if args.precision else ["fp32", "fp16"]:
                    print(json.dumps(measure(name, mode, images, precision, args)), flush=True)


if __name__ == "__main__":
    main()
