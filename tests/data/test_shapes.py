"""The data set of drawn shapes: what is annotated is what was drawn, and always the same."""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data._shapes_geometry import SHAPE_CLASSES as GEOMETRY
from detectron2.data._shapes_geometry import Placement
from detectron2.data._shapes_outlines import trace_outlines
from detectron2.data._shapes_scene import draw_scene
from detectron2.data.shapes import (
    KEYPOINT_NAMES,
    SHAPE_CLASSES,
    STUFF_CLASSES,
    load_rotated_shapes,
    register_shapes,
    write_shapes,
)
from detectron2.evaluation import SemSegEvaluator
from detectron2.structures import BoxMode, RotatedBoxes

SIZE = (96, 128)
NUM_IMAGES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "train"
    write_shapes(folder, NUM_IMAGES, SIZE, seed=3)
    return folder


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(3, index, SIZE, SHAPE_CLASSES, 8) for index in range(NUM_IMAGES)]


@pytest.fixture
def names(folder):
    """Registers the folder; what registering adds is gone afterwards."""
    before = set(DatasetCatalog.list())
    register_shapes("tests_shapes", folder)
    yield "tests_shapes"
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)


def contents(folder, name):
    return json.loads((folder / name).read_text())


def annotations_of_images(folder):
    result = [[] for _ in range(NUM_IMAGES)]
    for annotation in contents(folder, "instances.json")["annotations"]:
        result[annotation["image_id"] - 1].append(annotation)
    return result


def decode(polygons, size=SIZE):
    polygons = [list(map(float, polygon)) for polygon in polygons]
    return pycocotools.mask.decode(
        pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, *size))
    ).astype(bool)


def test_polygons_areas_and_boxes_are_those_of_the_drawn_pixels(folder, scenes):
    for scene, annotations in zip(scenes, annotations_of_images(folder), strict=True):
        assert len(annotations) == len(scene.shapes) >= 1
        for owner, annotation in enumerate(annotations, start=1):
            mask = scene.owners == owner
            np.testing.assert_array_equal(decode(annotation["segmentation"]), mask)
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert [x, y] == [columns.min(), rows.min()]
            assert [x + width, y + height] == [columns.max() + 1, rows.max() + 1]


def test_half_of_each_shape_is_visible(scenes):
    hidden = 0
    for scene in scenes:
        for owner, shape in enumerate(scene.shapes, start=1):
            visible = (scene.owners == owner).sum()
            assert 0.5 * shape.num_pixels <= visible <= shape.num_pixels
            hidden += visible < shape.num_pixels
    assert hidden > 0


def test_rotated_boxes_hold_the_shapes_tightly(folder, scenes):
    """In the frame of its box, a shape lies in the box, and nearly touches its sides."""
    seen = 0
    for scene, annotations in zip(scenes, annotations_of_images(folder), strict=True):
        for owner, annotation in enumerate(annotations, start=1):
            shape = scene.shapes[owner - 1]
            x0, y0, x1, y1 = shape.window
            is_whole = (scene.owners == owner).sum() == shape.num_pixels
            if not is_whole or min(x0, y0) == 0 or x1 == SIZE[1] or y1 == SIZE[0]:
                continue
            center_x, center_y, width, height, angle = annotation["rotated_bbox"]
            rows, columns = np.nonzero(scene.owners == owner)
            dx, dy = columns + 0.5 - center_x, rows + 0.5 - center_y
            turn = math.radians(angle)
            # Counter-clockwise as seen, y downwards.
            along = dx * math.cos(turn) - dy * math.sin(turn)
            across = dx * math.sin(turn) + dy * math.cos(turn)
            # A vertex is moved to the nearest pixel, and pixels of a corner may be missing.
            for values, side in ((along, width), (across, height)):
                assert -side / 2 - 1.5 < values.min() < -side / 2 + 3.5
                assert side / 2 - 3.5 < values.max() < side / 2 + 1.5
            seen += 1
    assert seen > 10


def test_placement_is_that_of_rotated_boxes():
    """The corners of the unit box go where the library has a rotated box's corners."""
    placement = Placement(50.0, 40.0, 30.0, 10.0, 25.0)
    corners = placement.apply(np.array([[x, y] for x in (-0.5, 0.5) for y in (-0.5, 0.5)]))
    shapely = pytest.importorskip("shapely")
    affinity = pytest.importorskip("shapely.affinity")
    upright = shapely.box(35, 35, 65, 45)
    # Shapely's y axis points up, so that its clockwise is our counter-clockwise.
    expected = affinity.rotate(upright, -25.0, origin=(50, 40))
    actual = shapely.MultiPoint(corners).convex_hull
    assert expected.symmetric_difference(actual).area < 1e-6


@pytest.mark.parametrize("name", SHAPE_CLASSES)
def test_shapes_fill_the_unit_box(name):
    vertices = GEOMETRY[name].vertices
    np.testing.assert_allclose(vertices.min(axis=0), -0.5)
    np.testing.assert_allclose(vertices.max(axis=0), 0.5)


@pytest.mark.parametrize("name", SHAPE_CLASSES)
def test_a_shape_looks_the_same_after_its_period(name):
    shapely = pytest.importorskip("shapely")
    shape = GEOMETRY[name]
    aspect = shape.aspect_ratios[0]

    def placed(points, angle):
        return shapely.Polygon(Placement(0, 0, aspect, 1, angle).apply(points))

    one, other = placed(shape.vertices, 10), placed(shape.vertices, 10 + shape.period)
    # The middle of a star's box is not what it turns around.
    dx, dy = one.centroid.x - other.centroid.x, one.centroid.y - other.centroid.y
    other = pytest.importorskip("shapely.affinity").translate(other, dx, dy)
    assert one.symmetric_difference(other).area < 1e-6 * one.area


def test_keypoints_lie_on_the_shapes(folder, scenes):
    seen = dict.fromkeys((0, 1, 2), 0)
    for scene, annotations in zip(scenes, annotations_of_images(folder), strict=True):
        for owner, annotation in enumerate(annotations, start=1):
            keypoints = np.reshape(annotation["keypoints"], (len(KEYPOINT_NAMES), 3))
            name = SHAPE_CLASSES[annotation["category_id"] - 1]
            assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            if name not in ("triangle", "arrow"):
                assert not keypoints.any()
                continue
            rows, columns = np.nonzero(scene.owners == owner)
            for x, y, visibility in keypoints:
                seen[int(visibility)] += 1
                if visibility == 2:
                    assert np.hypot(columns - x, rows - y).min() < 8
    assert seen[2] > 10


def test_left_and_right_are_seen_from_the_tail_to_the_tip(scenes):
    for name in ("triangle", "arrow"):
        tip, left, right, tail = GEOMETRY[name].keypoints
        forward, sideways = tip - tail, right - left
        # With y downwards, right of forward is where the cross product is positive.
        assert forward[0] * sideways[1] - forward[1] * sideways[0] > 0


def test_panoptic_and_semantic_masks_agree_with_instances(folder, scenes):
    panoptic = contents(folder, "panoptic.json")
    is_thing = {c["id"]: c["isthing"] for c in panoptic["categories"]}
    for scene, annotation in zip(scenes, panoptic["annotations"], strict=True):
        colours = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"])).astype(int)
        ids = colours @ [1, 256, 65536]
        semantic = np.asarray(Image.open(folder / "sem_seg" / annotation["file_name"]))
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(ids).tolist())
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            assert segment["area"] == mask.sum()
            if is_thing[segment["category_id"]]:
                assert (semantic[mask] == 0).all()
                assert (scene.owners[mask] == scene.owners[mask][0]).all()
                name = scene.shapes[scene.owners[mask][0] - 1].name
                assert name == SHAPE_CLASSES[segment["category_id"] - 1]
            else:
                index = segment["category_id"] - len(SHAPE_CLASSES)
                assert (semantic[mask] == index).all()
                assert not scene.owners[mask].any()


def test_all_variants_load(names, folder):
    records = DatasetCatalog.get(names)
    assert len(records) == NUM_IMAGES
    metadata = MetadataCatalog.get(names)
    assert metadata.thing_classes == list(SHAPE_CLASSES)
    assert metadata.keypoint_names == KEYPOINT_NAMES

    separated = DatasetCatalog.get(names + "_panoptic_separated")
    assert [r["file_name"] for r in separated] == [r["file_name"] for r in records]
    assert all(r["annotations"] and r["sem_seg_file_name"] for r in separated)
    metadata = MetadataCatalog.get(names + "_panoptic_separated")
    assert metadata.stuff_classes == ["things", *STUFF_CLASSES]
    assert len(DatasetCatalog.get(names + "_panoptic_stuffonly")) == NUM_IMAGES

    rotated = DatasetCatalog.get(names + "_rotated")
    assert rotated == load_rotated_shapes(folder)
    for record, upright in zip(rotated, records, strict=True):
        for annotation, other in zip(record["annotations"], upright["annotations"], strict=True):
            assert annotation["bbox_mode"] == BoxMode.XYWHA_ABS
            assert annotation["category_id"] == other["category_id"]
            assert RotatedBoxes(torch.tensor([annotation["bbox"]])).area() > 0
    register_shapes(names, folder)  # once more is no error


def test_semantic_predictions_can_be_written(names, tmp_path):
    """The class of all things, too, has an id in the file of predictions."""
    records = DatasetCatalog.get(names + "_panoptic_separated")
    evaluator = SemSegEvaluator(names + "_panoptic_separated", output_dir=str(tmp_path))
    evaluator.reset()
    for record in records:
        truth = torch.from_numpy(np.array(Image.open(record["sem_seg_file_name"]), dtype=int))
        scores = torch.nn.functional.one_hot(truth.clamp(max=len(STUFF_CLASSES)))
        evaluator.process([record], [{"sem_seg": scores.permute(2, 0, 1)}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100
    written = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    segments = contents(Path(records[0]["file_name"]).parents[1], "panoptic.json")["categories"]
    stuff_ids = {segment["id"] for segment in segments if not segment["isthing"]}
    assert {prediction["category_id"] for prediction in written} <= stuff_ids | {0}
    assert 0 in {prediction["category_id"] for prediction in written}


def test_a_seed_gives_the_same_everywhere():
    """Pixels and outlines, whatever the machine and the versions of Python, NumPy and Pillow."""
    digest = hashlib.sha256()
    for index in range(4):
        scene = draw_scene(7, index, (64, 96), SHAPE_CLASSES, 6)
        for array in (scene.image, scene.stuff, scene.owners):
            digest.update(array.tobytes())
        digest.update(json.dumps([shape.polygons for shape in scene.shapes]).encode())
    assert digest.hexdigest() == "5d89c4a5f6b1117203967b6ec0a38e1ca2a8e713fdfbc7c06c7603301dfe6cce"


def test_images_do_not_depend_on_their_number_nor_on_workers(folder, tmp_path):
    write_shapes(tmp_path / "few", 3, SIZE, seed=3, num_workers=1)
    for kind in ("images", "panoptic", "sem_seg"):
        for path in sorted((tmp_path / "few" / kind).iterdir()):
            assert path.read_bytes() == (folder / kind / path.name).read_bytes()
    few = contents(tmp_path / "few", "instances.json")["annotations"]
    many = contents(folder, "instances.json")["annotations"]
    assert few == many[: len(few)]


def test_another_seed_gives_other_images():
    one, other = (draw_scene(seed, 0, SIZE, SHAPE_CLASSES, 8) for seed in (3, 4))
    assert (one.image != other.image).mean() > 0.5


def test_classes_are_numbered_in_the_order_given(tmp_path):
    write_shapes(tmp_path, 4, (64, 64), classes=("star", "arrow"), max_shapes=3)
    of_instances = contents(tmp_path, "instances.json")
    assert [(c["id"], c["name"]) for c in of_instances["categories"]] == [(1, "star"), (2, "arrow")]
    assert {a["category_id"] for a in of_instances["annotations"]} == {1, 2}
    has_keypoints = {a["category_id"]: any(a["keypoints"]) for a in of_instances["annotations"]}
    assert has_keypoints == {1: False, 2: True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "num_images .* 0"),
        ({"size": (16, 64)}, r"size .*\(16, 64\)"),
        ({"seed": -1}, "seed .* -1"),
        ({"classes": ("star", "heart")}, "classes .*heart"),
        ({"classes": ("star", "star")}, "classes .*star"),
        ({"classes": ()}, r"classes .*\(\)"),
        ({"max_shapes": 256}, "max_shapes .* 256"),
        ({"num_workers": -1}, "num_workers .* -1"),
    ],
)
def test_bad_arguments_are_told(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path, **{"num_images": 1, **arguments})
    assert not list(tmp_path.iterdir())


def test_folders_are_neither_overwritten_nor_taken_incomplete(folder, tmp_path):
    before = (folder / "instances.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"instances\.json"):
        write_shapes(folder, 1)
    assert (folder / "instances.json").read_bytes() == before
    with pytest.raises(FileNotFoundError, match="write_shapes"):
        register_shapes("tests_no_shapes", tmp_path)
    assert "tests_no_shapes" not in DatasetCatalog


def test_command_line(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "detectron2.data.shapes", tmp_path / "out"]
    options = ["--train", "2", "--val", "1", "--size", "32", "48", "--classes", "star", "cross"]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    images = {
        split: contents(tmp_path / "out" / split, "instances.json")["images"]
        for split in ("train", "val")
    }
    assert {split: len(of_split) for split, of_split in images.items()} == {"train": 2, "val": 1}
    assert (images["val"][0]["height"], images["val"][0]["width"]) == (32, 48)


@pytest.mark.parametrize("seed", range(20))
def test_outlines_cover_just_their_pixels(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 12)) < rng.uniform(0.2, 0.9)
    polygons, has_hole = trace_outlines(mask)
    ndimage = pytest.importorskip("scipy.ndimage")
    filled = ndimage.binary_fill_holes(mask, structure=np.ones((3, 3)))
    _, num_regions = ndimage.label(mask)
    assert has_hole == (filled != mask).any()
    # Regions inside of holes are covered by the region around them.
    assert len(polygons) == num_regions
    covered = decode(polygons, mask.shape) if polygons else np.zeros_like(mask)
    np.testing.assert_array_equal(covered, filled)
