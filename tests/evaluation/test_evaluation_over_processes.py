"""One process and four, over gloo, give the same numbers."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOPanopticEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.evaluation._gather import iterate_over_all
from detectron2.evaluation._panoptic_quality import ids_to_rgb

from . import test_cityscapes_evaluation as cityscapes
from . import test_panoptic_evaluation as panoptic
from . import test_pascal_voc_evaluation as voc

WORLD_SIZE = 4
IMAGES = 7


def voc_task(folder, generator):
    truth = voc.write_voc(folder, generator, images=IMAGES)
    metadata = {
        "dirname": str(folder),
        "split": "val",
        "year": 2012,
        "thing_classes": ["cat", "dog"],
    }
    detections = [d for d in voc.detect(truth, generator) if d[1] != "cow"]
    return PascalVOCDetectionEvaluator, metadata, *voc.as_outputs(truth, detections)


def panoptic_task(folder, generator):
    annotations, inputs, outputs = [], [], []
    for i in range(IMAGES):
        truth, segments, predicted, predicted_segments = panoptic.random_scene(generator)
        Image.fromarray(ids_to_rgb(truth)).save(folder / f"{i}.png")
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
        inputs.append({"image_id": i, "file_name": f"{i}.jpg"})
        seg = torch.from_numpy(predicted), panoptic.contiguous(predicted_segments)
        outputs.append({"panoptic_seg": seg})
    categories = [{"id": i, "isthing": 1} for i in panoptic.THINGS]
    categories += [{"id": i, "isthing": 0} for i in panoptic.STUFF]
    contents = {"annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(contents))
    metadata = {
        "panoptic_json": str(folder / "truth.json"),
        "panoptic_root": str(folder),
        "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(panoptic.THINGS)},
        "stuff_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(panoptic.STUFF)},
    }
    return COCOPanopticEvaluator, metadata, inputs, outputs


def cityscapes_tasks(folder, generator):
    (folder / "gt" / "bonn").mkdir(parents=True)
    inputs, instances, logits = [], [], []
    for i in range(IMAGES):
        ids, labels = cityscapes.random_scene(generator)
        prefix = str(folder / "gt" / "bonn" / f"bonn_00000{i}_000019_gtFine_")
        Image.fromarray(ids.astype(np.uint16)).save(f"{prefix}instanceIds.png")
        Image.fromarray(labels.astype(np.uint8)).save(f"{prefix}labelIds.png")
        inputs.append({"file_name": f"bonn_00000{i}_000019_leftImg8bit.png"})
        instances.append({"instances": cityscapes.random_instances(generator, ids)})
        noise = generator.standard_normal((19, *cityscapes.SHAPE))
        noise += 2 * (labels == np.array(cityscapes.SCORED)[:, None, None])
        logits.append({"sem_seg": torch.from_numpy(noise)})
    metadata = {"gt_dir": str(folder / "gt"), "thing_classes": list(cityscapes.THINGS)}
    yield CityscapesInstanceEvaluator, metadata, inputs, instances
    yield CityscapesSemSegEvaluator, metadata, inputs, logits


def sem_seg_task(folder, generator):
    inputs, outputs = [], []
    for i in range(IMAGES):
        truth = generator.integers(0, 4, (20, 30)).astype(np.uint8)
        Image.fromarray(truth).save(folder / f"{i}.png")
        inputs.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(folder / f"{i}.png")})
        outputs.append({"sem_seg": torch.from_numpy(generator.standard_normal((3, 20, 30)))})
    metadata = {"stuff_classes": ["a", "b", "c"], "ignore_label": 3}
    return SemSegEvaluator, metadata, inputs, outputs


def evaluate(tasks, output_dir, rank=0, world_size=1):
    """Results of each task; the images are dealt out one by one."""
    results = []
    for index, (kind, metadata, inputs, outputs) in enumerate(tasks):
        name = f"over_{world_size}_processes_{index}"
        MetadataCatalog.get(name).set(**metadata)
        DatasetCatalog.register(name, lambda inputs=inputs: inputs)
        try:
            has_files = kind in (COCOPanopticEvaluator, SemSegEvaluator)
            folder = {"output_dir": str(output_dir / str(index))} if has_files else {}
            evaluator = kind(name, **folder)
            evaluator.process(inputs[rank::world_size], outputs[rank::world_size])
            results.append(evaluator.evaluate())
        finally:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    return results


def evaluate_in_process(rank, tasks, folder):
    torch.set_num_threads(1)
    logging.disable()
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE)
    results = {"evaluations": evaluate(tasks, folder, rank, WORLD_SIZE)}
    items = [(rank, i) for i in range(3 * rank)]
    results["items"] = list(iterate_over_all(items, chunk_size=4))
    torch.save(results, folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    generator = np.random.default_rng(0)
    makers = (voc_task, panoptic_task, sem_seg_task)
    tasks = [maker(tmp_path_factory.mktemp("data"), generator) for maker in makers]
    return [*tasks, *cityscapes_tasks(tmp_path_factory.mktemp("data"), generator)]


@pytest.fixture(scope="module")
def folder(tasks, tmp_path_factory):
    """Where four processes have left their results."""
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(evaluate_in_process, (tasks, folder), nprocs=WORLD_SIZE, start_method="fork")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return [torch.load(folder / f"{rank}.pth", weights_only=False) for rank in range(WORLD_SIZE)]


def test_numbers(tasks, results, tmp_path):
    expected = evaluate(tasks, tmp_path)
    got = results[0]["evaluations"]
    for task, one, four in zip(tasks, expected, got, strict=True):
        for name, metrics in one.items():
            # To the last bit.
            np.testing.assert_equal(four[name], metrics, task[0].__name__)
            assert any(0 < value < 100 for value in metrics.values())
    assert [r["evaluations"] for r in results[1:]] == [[None] * len(tasks)] * 3


def to_cuda(value):
    if isinstance(value, dict):
        return {key: to_cuda(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(to_cuda, value))
    return value.to("cuda") if hasattr(value, "to") else value


@pytest.mark.gpu
def test_outputs_on_the_gpu(tasks, tmp_path):
    on_gpu = [(*task[:3], list(map(to_cuda, task[3]))) for task in tasks]
    on_gpu, on_cpu = evaluate(on_gpu, tmp_path), evaluate(tasks, tmp_path)
    np.testing.assert_equal(on_gpu, on_cpu)


def test_files(folder, tasks, results, tmp_path):
    evaluate(tasks, tmp_path)
    for name, key in (
        ("1/predictions.json", "image_id"),
        ("2/sem_seg_predictions.json", "file_name"),
    ):
        one, four = (json.loads((f / name).read_text()) for f in (tmp_path, folder))
        if "1/" in name:
            one, four = one["annotations"], four["annotations"]
        assert sorted(four, key=lambda p: p[key]) == one
    for i in range(IMAGES):
        one, four = ((f / f"1/predictions/{i}.png").read_bytes() for f in (tmp_path, folder))
        assert one == four


def test_items_travel_in_chunks(results):
    expected = [(rank, i) for rank in range(WORLD_SIZE) for i in range(3 * rank)]
    assert [r["items"] for r in results] == [expected, [], [], []]
