"""Training batches from images and polygons: this library's loader against a plain one.

The plain one is what a straightforward mapper and PyTorch's ``DataLoader`` come to: a deep copy of
the record, Pillow for reading and resizing, annotations one by one, a tensor of its own for each
thing that travels from a worker. Images a second, and with ``--memory`` the memory that worker
processes take for many records, beyond what they take for one.
"""

import argparse
import copy
import logging
import operator
import os
import tempfile
import time
from typing import Any

import numpy as np
import timing
import torch
from fvcore.transforms.transform import HFlipTransform, TransformList
from PIL import Image
from torch.utils import data

from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T  # noqa: N812
from detectron2.data._serialized_list import SerializedList
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import Boxes, BoxMode, Instances, PolygonMasks

SIZES = (640, 672, 704, 736, 768, 800)
LONGEST = 1333


def write_images(folder: str, count: int) -> list[dict[str, Any]]:
    """JPEG files of 640 x 480 or 480 x 640, and records with 8 polygons each."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(count):
        width, height = (480, 640) if i % 3 == 0 else (640, 480)
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
        noisy = image.astype(np.int16) + rng.integers(-12, 13, image.shape)
        path = os.path.join(folder, f"{i}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        records.append(
            {
                "file_name": path,
                "width": width,
                "height": height,
                "image_id": i,
                "annotations": [make_annotation(rng, width, height) for _ in range(8)],
            }
        )
    return records


def make_annotation(rng: np.random.Generator, width: int, height: int) -> dict[str, Any]:
    radius = rng.uniform(20, 120)
    centre = rng.uniform(radius, (width - radius, height - radius))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radii = radius * rng.uniform(0.6, 1, 40)
    polygon = centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return {
        "bbox": [*polygon.min(0).tolist(), *polygon.max(0).tolist()],
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": [polygon.reshape(-1).tolist()],
        "category_id": int(rng.integers(80)),
        "iscrowd": 0,
    }


def plain_mapper(record: dict[str, Any]) -> dict[str, Any]:
    """The sample of a record, one thing after the other."""
    record = copy.deepcopy(record)
    with Image.open(record["file_name"]) as file:
        image = np.asarray(file.convert("RGB"))[:, :, ::-1]
    height, width = image.shape[:2]
    shorter = int(np.random.choice(SIZES))
    new_height, new_width = T.ResizeShortestEdge.get_output_shape(height, width, shorter, LONGEST)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((new_width, new_height), 2)
    image = np.asarray(resized)
    parts = [T.ResizeTransform(height, width, new_height, new_width)]
    if np.random.uniform() < 0.5:
        parts.append(HFlipTransform(new_width))
        image = image[:, ::-1]
    transforms = TransformList(parts)
    record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    boxes, polygons, classes = [], [], []
    for annotation in record.pop("annotations"):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        box = transforms.apply_box(np.array([box]))[0].clip(min=0)
        boxes.append(np.minimum(box, [new_width, new_height, new_width, new_height]))
        flat = [np.asarray(p).reshape(-1, 2) for p in annotation["segmentation"]]
        polygons.append([p.reshape(-1) for p in transforms.apply_polygons(flat)])
        classes.append(annotation["category_id"])
    instances = Instances((new_height, new_width))
    instances.gt_boxes = Boxes(np.stack(boxes))
    instances.gt_classes = torch.tensor(classes)
    instances.gt_masks = PolygonMasks(polygons)
    is_full = instances.gt_boxes.nonempty() & instances.gt_masks.nonempty()
    record["instances"] = instances[is_full]
    return record


class _Mapped(data.Dataset):
    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return plain_mapper(self.records[index])


def plain_batches(records: list[dict[str, Any]], batch_size: int, num_workers: int) -> Any:
    """Batches of one aspect ratio from PyTorch's loader."""
    samples = data.DataLoader(
        _Mapped(records),
        sampler=TrainingSampler(len(records), seed=0),
        num_workers=num_workers,
        collate_fn=operator.itemgetter(0),
    )
    return AspectRatioGroupedDataset(samples, batch_size)


def our_mapper() -> DatasetMapper:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = SIZES
    cfg.MODEL.MASK_ON = True
    return DatasetMapper(cfg, is_train=True)


def our_batches(records: list[dict[str, Any]], batch_size: int, num_workers: int) -> Any:
    """Batches of one aspect ratio from this library's loader."""
    return build_detection_train_loader(
        records,
        mapper=our_mapper(),
        sampler=TrainingSampler(len(records), seed=0),
        total_batch_size=batch_size,
        num_workers=num_workers,
    )


def proportional_set_size() -> int:
    """Bytes of this process and its children, those that are shared counted once."""
    own = os.getpid()
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parents[int(pid)] = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    total = 0
    for pid, parent in parents.items():
        if own in (pid, parent):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                line = next(line for line in file if line.startswith("Pss:"))
            total += int(line.split()[1]) * 1024
    return total


def measure_memory(records: list[dict[str, Any]], count: int, num_workers: int) -> None:
    """Print the memory of all processes with ``count`` records, beyond that with one record."""
    one_copy = SerializedList(records).num_bytes / len(records) * count
    in_use = {}
    for number in (1, count):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:  # A process of its own: what the other one freed does not count.
            given = [{**records[i % len(records)], "image_id": i} for i in range(number)]
            given = [copy.deepcopy(record) for record in given]
            batches = iter(
                build_detection_train_loader(
                    given, mapper=_read_only, total_batch_size=8, num_workers=num_workers
                )
            )
            del given
            for _ in range(max(200, count // 8)):
                next(batches)
            os.write(writer, str(proportional_set_size()).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            in_use[number] = int(file.read())
        os.waitpid(pid, 0)
    taken = in_use[count] - in_use[1]
    print(
        f"{count} records, {num_workers} workers: one copy {one_copy / timing.MIB:.0f} MiB, in all "
        f"processes {taken / timing.MIB:.0f} MiB, ratio {taken / one_copy:.2f}"
    )


def _read_only(record: dict[str, Any]) -> dict[str, Any]:
    return {"width": record["width"], "height": record["height"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    timing.add_arguments(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--memory", action="store_true", help="measure 100,000 records, too")
    args = timing.parse_arguments(parser)
    logging.disable(logging.WARNING)
    report = timing.Report("data_loader", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(folder, 48)
        if args.memory:
            measure_memory(records, 100_000, num_workers=4)
        mapper, index = our_mapper(), iter(TrainingSampler(len(records), seed=0))
        timings = timing.compare(
            {
                "mapper": lambda: mapper(records[next(index)]),
                "plain": lambda: plain_mapper(records[next(index)]),
            },
            "cpu",
            repeats=args.repeats,
            calls=8,
        )
        report.add("an image", timings)
        for num_workers in (0, args.workers):
            timings = {}
            for name, make in (("loader", our_batches), ("plain", plain_batches)):
                batches = iter(make(records, args.batch_size, num_workers))
                for _ in range(10):
                    next(batches)
                # One after the other: workers of both would take each other's processors.
                timings[name] = timing.time_call(
                    lambda batches=batches: next(batches), "cpu", repeats=args.repeats, calls=10
                )
                del batches
                time.sleep(0.2)
            report.add(
                f"batches of {args.batch_size}, {num_workers} workers",
                timings,
                workers=num_workers,
                batch_size=args.batch_size,
            )
    report.print()


if __name__ == "__main__":
    main()
