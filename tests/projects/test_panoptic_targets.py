"""Targets of Panoptic-DeepLab, against loops over pixels, and the mapper that makes them."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T  # noqa: N812
from detectron2.projects.panoptic_deeplab import (
    PanopticDeeplabDatasetMapper,
    add_panoptic_deeplab_config,
)
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator

from .project_models import make_config

SIGMA = 2


def panoptic_of_rectangles(size, rectangles):
    """Rectangles of (id, top, left, bottom, right), later ones above earlier ones."""
    panoptic = np.zeros(size, dtype=np.int32)
    for label, top, left, bottom, right in rectangles:
        panoptic[top:bottom, left:right] = label
    return panoptic


PANOPTIC = panoptic_of_rectangles(
    (24, 30),
    [
        (70000, 0, 0, 10, 30),
        (3, 10, 0, 18, 30),
        (12, 1, 1, 8, 9),
        (5, 2, 7, 6, 12),
        (9, 20, 25, 24, 30),
        (11, 12, 12, 20, 20),
        (8, 23, 0, 24, 2),
    ],
)
SEGMENTS = [
    {"id": 12, "category_id": 1, "iscrowd": 0},
    {"id": 5, "category_id": 2, "iscrowd": 0},
    {"id": 70000, "category_id": 7, "iscrowd": 0},
    {"id": 9, "category_id": 1, "iscrowd": 0},
    {"id": 11, "category_id": 2, "iscrowd": 1},
    {"id": 3, "category_id": 6, "iscrowd": 0},
    # Not in the image, for example after a crop.
    {"id": 77, "category_id": 1, "iscrowd": 0},
]


def slow_targets(panoptic, segments, things, ignore_stuff, small_area, small_weight, ignore_crowd):
    height, width = panoptic.shape
    sem_seg = np.full((height, width), 255)
    sem_seg_weights = np.ones((height, width))
    center = np.zeros((height, width))
    center_weights, offset_weights = np.zeros((2, height, width))
    offset = np.zeros((2, height, width))
    points = []
    for segment in segments:
        pixels = [(y, x) for y, x in np.ndindex(height, width) if panoptic[y, x] == segment["id"]]
        if not pixels:
            continue
        is_thing = segment["category_id"] in things
        middle = np.mean(pixels, axis=0)
        for y, x in pixels:
            if not (segment["iscrowd"] and ignore_crowd):
                sem_seg[y, x] = segment["category_id"]
            if is_thing and len(pixels) < small_area:
                sem_seg_weights[y, x] = small_weight
            if not segment["iscrowd"]:
                center_weights[y, x] = 1
                offset_weights[y, x] = is_thing or not ignore_stuff
                if is_thing:
                    offset[:, y, x] = middle - (y, x)
        if is_thing and not segment["iscrowd"]:
            points.append(middle.tolist())
            cy, cx = round(middle[0]), round(middle[1])
            for y, x in np.ndindex(height, width):
                if max(abs(y - cy), abs(x - cx)) <= 3 * SIGMA + 1:
                    heat = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * SIGMA**2))
                    center[y, x] = max(center[y, x], heat)
    return {
        "sem_seg": sem_seg,
        "center": center,
        "center_points": points,
        "offset": offset,
        "sem_seg_weights": sem_seg_weights,
        "center_weights": center_weights[None],
        "offset_weights": offset_weights[None],
    }


@pytest.mark.parametrize("ignore_stuff", [False, True])
@pytest.mark.parametrize("ignore_crowd", [False, True])
def test_targets(ignore_stuff, ignore_crowd):
    generator = PanopticDeepLabTargetGenerator(
        255, [1, 2], SIGMA, ignore_stuff, 30, 3, ignore_crowd
    )
    targets = generator(PANOPTIC, SEGMENTS)
    expected = slow_targets(PANOPTIC, SEGMENTS, [1, 2], ignore_stuff, 30, 3, ignore_crowd)
    assert set(targets) == set(expected)
    np.testing.assert_allclose(targets.pop("center_points"), expected.pop("center_points"))
    for name, value in expected.items():
        assert targets[name].shape == value.shape, name
        assert targets[name].dtype == (torch.int64 if name == "sem_seg" else torch.float32)
        np.testing.assert_allclose(targets[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


def test_gaussian():
    generator = PanopticDeepLabTargetGenerator(255, [1], sigma=10)
    assert generator.g.shape == (63, 63)
    assert generator.g[31, 31] == 1
    assert generator.g[31, 41] == pytest.approx(np.exp(-0.5))


def test_a_crowd_has_no_centre():
    """Else the Gaussian would reach pixels of others, where it counts."""
    panoptic = panoptic_of_rectangles((12, 12), [(1, 0, 0, 12, 12), (2, 5, 5, 7, 7)])
    segments = [
        {"id": 1, "category_id": 4, "iscrowd": 0},
        {"id": 2, "category_id": 0, "iscrowd": 1},
    ]
    targets = PanopticDeepLabTargetGenerator(255, [0], sigma=2)(panoptic, segments)
    assert targets["center_points"] == []
    assert targets["center"].max() == 0
    assert targets["center_weights"].sum() == 144 - 4


def test_no_segments():
    targets = PanopticDeepLabTargetGenerator(255, [1])(np.zeros((4, 5), dtype=np.int32), [])
    assert (targets["sem_seg"] == 255).all()
    assert targets["center_points"] == []
    assert targets["offset"].shape == (2, 4, 5)
    assert targets["center_weights"].sum() == 0


def test_bad_targets():
    generator = PanopticDeepLabTargetGenerator(255, [1])
    with pytest.raises(ValueError, match="different ids"):
        generator(PANOPTIC, [SEGMENTS[0], SEGMENTS[0]])
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        generator(np.zeros((4, 5, 3), dtype=np.int32), [])
    with pytest.raises(ValueError, match="sigma"):
        PanopticDeepLabTargetGenerator(255, [1], sigma=0)


@pytest.fixture
def record(tmp_path):
    image = np.random.randint(0, 256, (24, 30, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    colors = np.stack([PANOPTIC % 256, PANOPTIC // 256 % 256, PANOPTIC // 256**2], axis=2)
    Image.fromarray(colors.astype(np.uint8)).save(tmp_path / "panoptic.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "height": 24,
        "width": 30,
        "segments_info": SEGMENTS,
    }


def test_mapper(record):
    generator = PanopticDeepLabTargetGenerator(255, [1, 2], SIGMA)
    mapper = PanopticDeeplabDatasetMapper(
        augmentations=[T.RandomFlip(1.0), T.CropTransform(2, 3, 20, 16)],
        image_format="RGB",
        panoptic_target_generator=generator,
    )
    before = dict(record)
    sample = mapper(record)
    assert record == before
    assert "pan_seg_file_name" not in sample
    image = np.asarray(Image.open(record["file_name"]))[3:19, ::-1][:, 2:22]
    np.testing.assert_array_equal(sample["image"], image.transpose(2, 0, 1))
    expected = generator(PANOPTIC[3:19, ::-1][:, 2:22], SEGMENTS)
    for name in ("sem_seg", "center", "offset", "offset_weights"):
        torch.testing.assert_close(sample[name], expected[name])


def test_mapper_from_config(record):
    metadata = MetadataCatalog.get("panoptic_of_test_mapper")
    metadata.set(ignore_label=255, thing_dataset_id_to_contiguous_id={10: 1, 20: 2})
    cfg = make_config(
        add_panoptic_deeplab_config,
        {
            "DATASETS.TRAIN": ("panoptic_of_test_mapper",),
            "INPUT.MIN_SIZE_TRAIN": (48,),
            "INPUT.CROP.ENABLED": True,
            "INPUT.CROP.TYPE": "absolute",
            "INPUT.CROP.SIZE": [32, 40],
            "INPUT.GAUSSIAN_SIGMA": 4,
        },
    )
    mapper = PanopticDeeplabDatasetMapper(cfg)
    generator = mapper.panoptic_target_generator
    assert generator.sigma == 4
    assert generator.thing_ids == {1, 2}
    assert generator.small_instance_area == 4096
    assert generator.small_instance_weight == 3
    assert generator.ignore_stuff_in_offset
    sample = mapper(record)
    assert sample["image"].shape == (3, 32, 40)
    assert sample["offset"].shape == (2, 32, 40)
    assert set(sample["sem_seg"].unique().tolist()) <= {1, 2, 6, 7, 255}
    MetadataCatalog.pop("panoptic_of_test_mapper")
