import json
import os
import subprocess
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog, check
from detectron2.data._check_annotations import _sum_of_run_lengths
from detectron2.data.check import check_dataset
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from .json_places import places

HEIGHT, WIDTH = 40, 30
TRIANGLE = [1.0, 2.0, 11.0, 2.0, 11.0, 22.0]


def make_annotation(number, image_id=1, **fields):
    annotation = {"id": number, "image_id": image_id, "category_id": 2, "iscrowd": 0}
    return annotation | {"bbox": [1.0, 2, 10, 20], "segmentation": [TRIANGLE], "area": 9.0} | fields


def make_content(*annotations, **parts):
    images = [
        {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH}
        for number in (1, 2)
    ]
    categories = [
        {"id": 2, "name": "two", "keypoints": ["a", "b"]},
        {"id": 5, "name": "five"},
    ]
    others = [make_annotation(100, 2, category_id=5)]
    content = {"images": images, "annotations": [make_annotation(101), *others, *annotations]}
    return content | {"categories": categories} | parts


@pytest.fixture
def run(tmp_path):
    """Checks a file of the given content."""

    def write_and_check(content, **options):
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return check_dataset(path, **options)

    return write_and_check


@pytest.fixture
def images(tmp_path):
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_nothing_found(run, images):
    report = run(make_content(), image_root=str(images))
    assert report.ok
    assert report.warnings.counts == {}
    assert (report.num_images, report.num_annotations) == (2, 2)
    assert report.histogram == {"two": 1, "five": 1}
    assert "nothing found" in str(report)


nan = float("nan")
ANNOTATION_ERRORS = {
    "ids that are not declared": [{"category_id": 3}, {"category_id": [1]}, {"category_id": None}],
    "not 4 or 5 numbers": [{"bbox": []}, {"bbox": "1234"}, {"bbox": [1, 2, 3]}, {"bbox": 3}],
    "boxes with what is no finite number": [
        {"bbox": [1, 2, nan, 4]},
        {"bbox": [1, 2, float("inf"), 4]},
        {"bbox": [1, 2, "3", 4]},
        {"bbox": [1, 2, None, 4]},
    ],
    "inverted boxes": [{"bbox": [5, 5, -1, 2]}, {"bbox": [5, 5, 2, -1]}],
    "wholly outside": [{"bbox": [30, 2, 5, 5]}, {"bbox": [1, -9, 5, 5]}, {"bbox": [1, 50, 5, 5]}],
    "polygons with what is no finite": [{"segmentation": [[*TRIANGLE[:5], nan]]}],
    "no list of polygons": [{"segmentation": TRIANGLE}],
    "no polygons and no run lengths": [{"segmentation": "x"}],
    "sum up": [{"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH - 1]}}],
    "masks of another size": [
        {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}}
    ],
    "cannot be read": [
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\x20"}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o"}},
        {"segmentation": {"size": [HEIGHT, WIDTH]}},
        {"segmentation": {"counts": [1200]}},
    ],
    "keypoints of a wrong length": [{"keypoints": [1, 2, 2]}, {"keypoints": [1, 2]}],
    "keypoints with what is no finite": [{"keypoints": [1, nan, 2, 0, 0, 0]}],
    "keypoints with a visibility": [{"keypoints": [1, 1, 3, 0, 0, 0]}],
    "areas": [{"area": nan}, {"area": -1}, {"area": "x"}],
    "without a box and a mask": [{"bbox": None, "segmentation": []}],
    "to be ignored": [{"ignore": 1}],
}


@pytest.mark.parametrize("kind", ANNOTATION_ERRORS)
def test_errors_of_annotations(run, kind):
    wrong = [make_annotation(i, **f) for i, f in enumerate(ANNOTATION_ERRORS[kind], start=1)]
    report = run(make_content(*wrong), max_examples=9)
    ((found, count),) = report.errors.counts.items()
    assert kind in found
    assert count == len(wrong)
    for number, example in enumerate(report.errors.examples[found], start=1):
        assert f"annotation {number} of image 1 (1.png)" in example


ANNOTATION_WARNINGS = {
    "boxes without area": [{"bbox": [1, 2, 0, 5]}, {"bbox": [1, 2, 5, 0]}],
    "boxes that reach out": [{"bbox": [-1.5, 2, 5, 5]}, {"bbox": [27, 2, 5, 5]}],
    "polygons without three points": [{"segmentation": [[1, 2, 3, 4], TRIANGLE]}],
    "polygons that reach out": [
        {"segmentation": [[1, 2, 3, 4, 5, 42]]},
        {"segmentation": [[1, 2, -3, 4, 5, 40]]},
    ],
    "iscrowd": [{"iscrowd": 2}],
}


@pytest.mark.parametrize("kind", ANNOTATION_WARNINGS)
def test_warnings_of_annotations(run, kind):
    odd = [make_annotation(i, **f) for i, f in enumerate(ANNOTATION_WARNINGS[kind], start=1)]
    report = run(make_content(*odd))
    assert report.ok
    ((found, count),) = report.warnings.counts.items()
    assert kind in found
    assert count == len(odd)


def test_the_border_has_a_tolerance(run):
    polygon = [-1, 2, 31, 2, 5, 41]
    report = run(make_content(make_annotation(1, bbox=[-1, -1, 32, 42], segmentation=[polygon])))
    assert report.warnings.counts == {}


def test_ids(run):
    content = make_content(
        make_annotation(7), make_annotation(7), make_annotation(0), make_annotation(8, 99)
    )
    content["images"].append(dict(content["images"][0], file_name="3.png"))
    content["categories"].append({"id": 5, "name": "two"})
    del content["annotations"][1]["id"]
    report = run(content)
    assert report.errors.counts == {
        "annotations without an id": 1,
        "repeated ids of annotations": 1,
        "categories that repeat id": 1,
        "repeated ids of images": 1,
    }
    assert [count for kind, count in report.warnings.counts.items() if "id 0" in kind] == [1]
    assert [count for kind, count in report.warnings.counts.items() if "not listed" in kind] == [1]
    assert report.warnings.counts["categories that repeat name"] == 1


def test_images_and_classes_without_annotations(run):
    report = run(make_content(annotations=[make_annotation(1)]))
    assert report.warnings.counts == {
        "images without annotations": 1,
        "classes without annotations": 1,
    }
    assert report.warnings.examples["classes without annotations"] == ["five"]
    assert report.histogram == {"two": 1, "five": 0}


def test_test_sets_have_no_annotations(run):
    assert run(make_content(annotations=[])).warnings.counts == {}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"images": 3}'])
def test_files_of_another_format(run, content):
    report = run(content)
    assert not report.ok
    assert "error: " in str(report)


def test_records_that_are_no_objects(run):
    report = run(make_content(images=[3, {"id": 1}], annotations=[None, {}]))
    assert report.errors.counts["images that are no objects"] == 1
    assert report.errors.counts["images without file_name"] == 1


def test_whatever_is_in_a_file_is_reported(run, images):
    run_lengths = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    content = make_content(
        make_annotation(1, segmentation=run_lengths, keypoints=[1, 2, 2, 0, 0, 0])
    )
    for container, key in list(places(content)):
        kept = container[key]
        is_image = isinstance(container, dict) and "file_name" in container
        for value in (None, "x", [], {}, [[]], -1, True, float("inf")):
            container[key] = value
            assert str(run(content, image_root=str(images) if is_image else None))
        container[key] = kept
    assert run(content, image_root=str(images)).ok


def test_image_files(run, images):
    content = make_content()
    content["images"] += [
        {"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for n, name in ((3, "none.png"), (4, "wrong.png"), (5, "text.png"), (6, "turned.jpg"))
    ]
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(images / "wrong.png")
    (images / "text.png").write_text("text")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / "turned.jpg", exif=exif)
    calls = []
    report = run(content, image_root=str(images), progress=lambda *numbers: calls.append(numbers))
    assert report.errors.counts == {
        "missing files": 1,
        "images of another size than declared": 2,
        "unreadable files": 1,
    }
    assert report.errors.examples["images of another size than declared"] == [
        f"{images}/wrong.png: 31 x 40, declared 30 x 40",
        f"{images}/turned.jpg: 40 x 30 after its EXIF orientation, 6, declared 30 x 40",
    ]
    assert calls[-1] == (6, 6)


def test_only_decoding_finds_files_that_are_cut_off(run, images):
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "1.png")
    data = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(data[: len(data) // 2])
    assert run(make_content(), image_root=str(images)).ok
    report = run(make_content(), image_root=str(images), decode=True)
    assert report.errors.counts == {"unreadable files": 1}


def test_images_are_not_looked_for_without_a_folder(run):
    report = run(make_content())
    assert report.ok
    assert report.notes == ["the images were not checked, as no folder of images was given"]


def test_many_images_are_reported_in_order(run, images):
    content = make_content(annotations=[])
    content["images"] = [dict(content["images"][0], id=i, file_name=f"{i}.no") for i in range(200)]
    report = run(content, image_root=str(images), max_examples=200)
    assert report.errors.examples["missing files"] == [f"{images}/{i}.no" for i in range(200)]


def test_records(images):
    """Records of any data set, with classes from 0, boxes of any mode and masks of any kind."""
    Image.new("L", (WIDTH, HEIGHT - 1)).save(images / "semantic.png")
    record = {
        "file_name": str(images / "1.png"),
        "image_id": "a",
        "sem_seg_file_name": str(images / "semantic.png"),
        "annotations": [
            {"bbox": [1, 2, 9, 50], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0},
            {"bbox": [9, 2, 1, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1},
            {
                "bbox": np.array([1, 2, 3, 4]),
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 2,
                "segmentation": np.zeros((HEIGHT, WIDTH + 1), bool),
            },
            {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYXY_REL, "category_id": 0},
            {"bbox": [9, 9, 5, 5, 45], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0},
        ],
    }
    report = check_dataset([record], metadata=Metadata(thing_classes=["x", "y"]))
    assert report.errors.counts == {
        "masks of another size than the image": 2,
        "inverted boxes, of negative width or height": 1,
        "category ids that are not declared": 1,
        "boxes of a mode that cannot be used": 1,
    }
    # The record does not say how large the image is: its file does.
    assert report.warnings.counts == {"boxes that reach out of the image by more than a pixel": 1}
    assert report.histogram == {"x": 3, "y": 1}


def test_registered_names(run, images):
    run(make_content(make_annotation(0)))
    name, own = "test_of_check", "test_of_check_own"
    try:
        register_coco_instances(name, {}, str(images / "file.json"), str(images))
        report = check_dataset(name)
        # Of what the loader would not show.
        assert any("id 0" in kind for kind in report.warnings.counts)
        (images / "2.png").unlink()
        assert check_dataset(name).errors.counts == {"missing files": 1}

        DatasetCatalog.register(own, lambda: 1 / 0)
        report = check_dataset(own)
        assert report.errors.examples == {
            "failures to load the data set": ["ZeroDivisionError: division by zero"]
        }
    finally:
        for each in (name, own):
            DatasetCatalog.pop(each, None)
            MetadataCatalog.pop(each, None)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"'coco_2017_vall' is neither .* mean coco_2017_val"):
        check_dataset("coco_2017_vall")
    with pytest.raises(ValueError, match="num_workers must be positive, got 0"):
        check_dataset([], num_workers=0)
    assert "data sets without an image" in check_dataset([]).errors.counts


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_sums_of_run_lengths(density):
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 300), (1000, 700)):
        mask = np.asfortranarray(rng.uniform(size=shape) < density, dtype=np.uint8)
        counts = mask_util.encode(mask)["counts"]
        assert _sum_of_run_lengths(counts) == _sum_of_run_lengths(counts.decode()) == mask.size


def test_exit_status(run, images, capsys):
    path = str(images / "file.json")
    run(make_content(make_annotation(0)))
    assert check.main([path, "--image-root", str(images)]) == 0
    assert "warning: annotations with the id 0" in capsys.readouterr().out
    (images / "2.png").unlink()
    assert check.main([path, "--image-root", str(images)]) == 1
    assert f"error: missing files (1)\n    {images}/2.png" in capsys.readouterr().out
    assert check.main([path, "--no-images"]) == 0
    for arguments in ([], ["nothing.json"], [path, "--workers", "0"], [path, "--examples", "0"]):
        with pytest.raises(SystemExit) as info:
            check.main(arguments)
        assert info.value.code == 2


def test_command_line_with_a_module_that_registers(tmp_path):
    (tmp_path / "own_data.py").write_text(
        "from detectron2.data import DatasetCatalog\n"
        "DatasetCatalog.register('own', lambda: [{'file_name': 'no.jpg', 'image_id': 1}])\n"
    )
    command = [sys.executable, "-m", "detectron2.data.check", "own", "--import", "own_data"]
    paths = [str(tmp_path), *(os.path.abspath(path) for path in sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "own: 1 images, 0 annotations, 0 classes" in result.stdout
    assert "missing files" in result.stdout
    assert result.stderr == ""
