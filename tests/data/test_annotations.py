"""Annotations and what becomes of them, against pycocotools and plain formulas."""

import copy
import json
import math

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T  # noqa: N812
from detectron2.data._rle import decode_rle
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, RotatedBoxes

H, W = 40, 50


def run_lengths(mask):
    """Lengths of runs of 0 and 1 in turn down the columns, the slow way."""
    lengths, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def random_mask(rng, height=H, width=W):
    mask = np.zeros((height, width), np.uint8)
    for _ in range(3):
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = 1
    return mask


def compressed(mask):
    return coco_mask.encode(np.asfortranarray(mask))


@pytest.mark.parametrize("seed", range(20))
def test_rle_is_coco_s(seed):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, *rng.integers(1, 300, 2))
    rle = compressed(mask)
    assert np.array_equal(decode_rle(rle), mask)
    assert np.array_equal(decode_rle({**rle, "counts": rle["counts"].decode()}), mask)
    uncompressed = {"size": list(mask.shape), "counts": run_lengths(mask)}
    assert np.array_equal(decode_rle(uncompressed), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [4, 5], "counts": [3, 4]},
        {"size": [4, 5], "counts": [30, -10]},
        {"size": [4, 5], "counts": [10.5, 9.5]},
        {"size": [4, 5], "counts": "zzzz~~"},
        {"size": [4, 5], "counts": "o"},
        {"size": [4, 5], "counts": b"ooooooooooo0"},
        {"size": [4, 5], "counts": ""},
        {"size": [10**9, 10**9], "counts": "1"},
        {"size": [4], "counts": [20]},
        {"size": None, "counts": [20]},
        {"counts": [20]},
        {"size": [4, 5]},
        {"size": [4, 5], "counts": None},
        {"size": [-4, -5], "counts": [20]},
    ],
)
def test_rle_that_is_none(rle):
    with pytest.raises(ValueError, match=r"RLE|encod|run length"):
        decode_rle(rle)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=30) | st.binary(max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_rle_of_any_text_is_a_mask_or_an_error(counts, height, width):
    try:
        mask = decode_rle({"size": [height, width], "counts": counts})
    except ValueError:
        return
    assert mask.shape == (height, width)
    again = decode_rle({"size": [height, width], "counts": run_lengths(mask)})
    assert np.array_equal(again, mask)


def annotation(**fields):
    return {"bbox": [5, 6, 20, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, **fields}


def test_box_is_moved_and_clipped():
    transforms = T.TransformList([T.ResizeTransform(H, W, 80, 100), T.HFlipTransform(100)])
    moved = utils.transform_instance_annotations(annotation(), transforms, (80, 100))
    assert moved["bbox"].tolist() == [50, 12, 90, 32]
    assert moved["bbox_mode"] == BoxMode.XYXY_ABS
    given = annotation(bbox=[-10, -10, 200, 200], bbox_mode=BoxMode.XYXY_ABS)
    moved = utils.transform_instance_annotations(given, [T.HFlipTransform(W)], (H, W))
    assert moved["bbox"].tolist() == [0, 0, W, H]


@pytest.mark.parametrize(
    "box",
    [
        {"bbox": [20, 10, 5, 30], "bbox_mode": BoxMode.XYXY_ABS},
        {"bbox": [20, 10, -15, 20], "bbox_mode": BoxMode.XYWH_ABS},
        {"bbox": [20, 10, 0, 20], "bbox_mode": BoxMode.XYWH_ABS},
    ],
)
def test_boxes_of_negative_size_are_empty(box):
    transforms = T.TransformList([T.HFlipTransform(W)])
    moved = utils.transform_instance_annotations(annotation(**box), transforms, (H, W))
    assert moved["bbox"].tolist() == [W - 20, 10, W - 20, 30]
    instances = utils.annotations_to_instances([moved], (H, W))
    assert len(utils.filter_empty_instances(instances)) == 0


def test_polygons_rle_and_masks_move_alike():
    mask = np.zeros((H, W), np.uint8)
    mask[6:16, 5:25] = 1
    square = [5, 6, 25, 6, 25, 16, 5, 16]
    transforms = T.TransformList([T.HFlipTransform(W), T.VFlipTransform(H)])
    expected = torch.from_numpy(mask[::-1, ::-1].copy()) != 0
    forms = [
        [square],
        compressed(mask),
        {"size": [H, W], "counts": run_lengths(mask)},
        mask,
        mask != 0,
    ]
    moved = [
        utils.transform_instance_annotations(
            annotation(segmentation=copy.deepcopy(form)), transforms, (H, W)
        )
        for form in forms
    ]
    masks = utils.annotations_to_instances(moved, (H, W), "bitmask").gt_masks
    assert isinstance(masks, BitMasks)
    for got in masks:
        assert torch.equal(got, expected)
    assert np.allclose(moved[0]["segmentation"][0][:2], [W - 5, H - 6])
    unmoved = utils.annotations_to_instances(
        [annotation(segmentation=form) for form in forms], (H, W), "bitmask"
    )
    for got in unmoved.gt_masks:
        assert np.array_equal(got, mask != 0)


def test_polygons_of_the_caller_stay():
    square = np.array([5.0, 6, 25, 6, 25, 16])
    given = annotation(segmentation=[square])
    utils.transform_instance_annotations(given, T.ResizeTransform(H, W, 80, 100), (80, 100))
    assert square.tolist() == [5, 6, 25, 6, 25, 16]
    assert given["segmentation"][0].tolist() == [10, 12, 50, 12, 50, 32]


def test_polygons_that_a_crop_leaves_out():
    inside, outside = [5.0, 5, 9, 5, 9, 9], [30.0, 30, 39, 30, 39, 39]
    crop = T.TransformList([T.CropTransform(0, 0, 20, 20)])
    moved = utils.transform_instance_annotations(
        annotation(segmentation=[outside, inside]), crop, (20, 20)
    )
    (polygon,) = moved["segmentation"]
    assert {(x, y) for x, y in polygon.reshape(-1, 2)} == {(5, 5), (9, 5), (9, 9)}


def test_keypoints():
    mirror = T.TransformList([T.HFlipTransform(W)])
    points = [5, 6, 2, 45, 6, 1, 20, 7, 0, 60, 1, 2]
    moved = utils.transform_keypoint_annotations(points, mirror, (H, W), [1, 0, 2, 3])
    assert moved.tolist() == [[5, 6, 1], [45, 6, 2], [0, 0, 0], [0, 0, 0]]
    twice = T.TransformList([T.HFlipTransform(W), T.HFlipTransform(W)])
    moved = utils.transform_keypoint_annotations(points, twice, (H, W))
    assert moved[:2].tolist() == [[5, 6, 2], [45, 6, 1]]
    on_the_border = utils.transform_keypoint_annotations(
        [0, 0, 2, W, H, 2], T.NoOpTransform(), (H, W)
    )
    assert on_the_border[:, 2].tolist() == [2, 2]
    with pytest.raises(ValueError, match="keypoint_hflip_indices"):
        utils.transform_keypoint_annotations(points, mirror, (H, W))
    with pytest.raises(ValueError, match="4 keypoints do not fit 2"):
        utils.transform_keypoint_annotations(points, mirror, (H, W), [1, 0])
    with pytest.raises(ValueError, match="triples"):
        utils.transform_keypoint_annotations([1, 2], mirror, (H, W))


@pytest.mark.parametrize(
    "fields",
    [
        {"bbox": [math.nan, 1, 2, 3]},
        {"bbox": [0, 0, math.inf, 5]},
        {"bbox": [1, 2, 3]},
        {"bbox": ["a", 1, 2, 3]},
        {"bbox": None},
        {"bbox_mode": 17},
        {"bbox_mode": BoxMode.XYWHA_ABS},
        {"segmentation": [[1, 2, math.nan, 4, 5, 6]]},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"segmentation": "polygon"},
        {"segmentation": None},
        {"segmentation": {"size": [H, W], "counts": [1]}},
        {"segmentation": {"size": [3, 3], "counts": [9]}},
        {"segmentation": np.ones((3, 3), np.uint8)},
        {"keypoints": [1, 2, math.nan]},
    ],
)
def test_annotations_that_are_none(fields):
    with pytest.raises((ValueError, TypeError)):
        utils.transform_instance_annotations(
            annotation(**fields), T.TransformList([T.HFlipTransform(W)]), (H, W)
        )


_numbers = st.floats(-1e4, 1e4) | st.sampled_from([math.nan, math.inf, 0.0, -0.0, 1e-30])
_garbage = st.none() | st.text(max_size=5) | _numbers | st.lists(_numbers, max_size=9)
_records = st.fixed_dictionaries(
    {
        "bbox": st.lists(_numbers, min_size=4, max_size=5) | _garbage,
        "bbox_mode": st.sampled_from(list(BoxMode)) | st.integers(-1, 6),
        "category_id": st.integers(0, 5),
    },
    optional={
        "segmentation": st.lists(st.lists(_numbers, min_size=5, max_size=9), max_size=3)
        | _garbage
        | st.fixed_dictionaries(
            {"size": st.just([H, W]), "counts": st.text(max_size=9) | st.lists(st.integers())}
        ),
        "keypoints": st.lists(_numbers, min_size=6, max_size=6) | _garbage,
    },
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_records, st.booleans(), st.sampled_from(["polygon", "bitmask"]))
def test_any_record_becomes_sound_ground_truth_or_an_error(record, flip, mask_format):
    transforms = T.TransformList([T.ResizeTransform(H, W, 20, 30)] + [T.HFlipTransform(30)] * flip)
    given = copy.deepcopy(record)
    try:
        moved = utils.transform_instance_annotations(
            given, transforms, (20, 30), keypoint_hflip_indices=[1, 0]
        )
        instances = utils.annotations_to_instances([moved], (20, 30), mask_format)
    except (ValueError, TypeError, NotImplementedError, AssertionError):
        return
    if record["bbox_mode"] != BoxMode.XYWHA_ABS:
        box = np.array(record["bbox"], dtype=np.float64)
        if record["bbox_mode"] == BoxMode.XYWH_ABS:
            box[2:] += box[:2]
        box[2:] = np.maximum(box[2:], box[:2])
        xs, ys = np.sort(box[0::2] * 0.6), np.sort(box[1::2] * 0.5)
        xs = np.sort(30 - xs) if flip else xs
        expected = [xs.clip(0, 30)[0], ys.clip(0, 20)[0], xs.clip(0, 30)[1], ys.clip(0, 20)[1]]
        assert np.allclose(instances.gt_boxes.tensor[0], expected, atol=1e-2)
    assert instances.gt_boxes.tensor.isfinite().all()
    if instances.has("gt_masks") and mask_format == "polygon":
        for polygon in instances.gt_masks.polygons[0]:
            assert np.isfinite(polygon).all()
    if instances.has("gt_keypoints"):
        assert instances.gt_keypoints.tensor.isfinite().all()


def test_ground_truth_without_annotations():
    instances = utils.annotations_to_instances([], (H, W))
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64
    rotated = utils.annotations_to_instances_rotated([], (H, W))
    assert rotated.gt_boxes.tensor.shape == (0, 5)


def test_fields_that_only_some_have():
    some = [annotation(keypoints=[1, 2, 2]), annotation()]
    with pytest.raises(ValueError, match=r"has keypoints, but numbers \[1\]"):
        utils.annotations_to_instances(some, (H, W))
    assert not utils.annotations_to_instances(some[::-1], (H, W)).has("gt_keypoints")


def test_masks_that_the_format_does_not_take():
    given = annotation(segmentation=np.ones((H, W), np.uint8))
    with pytest.raises(ValueError, match="bitmask"):
        utils.annotations_to_instances([given], (H, W), "polygon")
    with pytest.raises(ValueError, match="'soft'"):
        utils.annotations_to_instances([given], (H, W), "soft")
    with pytest.raises(ValueError, match="image's size"):
        utils.annotations_to_instances([given], (H, W + 1), "bitmask")


def test_boxes_that_are_not_finite():
    with pytest.raises(ValueError, match="nan"):
        utils.annotations_to_instances([annotation(bbox=[1, 2, math.nan, 3])], (H, W))


def test_empty_instances_are_left_out():
    boxes = Boxes(torch.tensor([[0.0, 0, 5, 5], [3, 3, 3, 8], [1, 1, 4, 2]]))
    masks = torch.ones(3, H, W, dtype=torch.bool)
    masks[2] = False
    square = np.array([1.0, 1, 5, 1, 5, 5])
    for gt_masks in (BitMasks(masks), PolygonMasks([[square], [square], []])):
        instances = Instances((H, W), gt_boxes=boxes, gt_masks=gt_masks)
        for options, expected in [
            ({}, [True, False, False]),
            ({"by_mask": False}, [True, False, True]),
            ({"by_box": False}, [True, True, False]),
            ({"box_threshold": 6}, [False, False, False]),
        ]:
            kept, which = utils.filter_empty_instances(instances, return_mask=True, **options)
            assert which.tolist() == expected
            assert torch.equal(kept.gt_boxes.tensor, boxes.tensor[which])
    with pytest.raises(ValueError, match="by_box"):
        utils.filter_empty_instances(instances, by_box=False, by_mask=False)


def test_rotated_boxes_are_clipped_if_upright():
    given = [{"bbox": [20, 20, 60, 10, 0.5], "category_id": 1}]
    given.append({"bbox": [20, 20, 60, 10, 45], "category_id": 2})
    instances = utils.annotations_to_instances_rotated(given, (30, 40))
    assert isinstance(instances.gt_boxes, RotatedBoxes)
    assert instances.gt_boxes.tensor[0, :4].tolist() == [20, 20, 40, 10]
    assert instances.gt_boxes.tensor[1].tolist() == [20, 20, 60, 10, 45]
    assert instances.gt_classes.tolist() == [1, 2]


def proposals(boxes, **fields):
    return {
        "proposal_boxes": np.array(boxes),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
        "proposal_objectness_logits": np.arange(len(boxes))[::-1],
        **fields,
    }


def test_proposals():
    record = proposals([[0, 0, 10, 10], [60, 0, 70, 10], [-5, 5, 20, 99], [1, 1, 3, 3]])
    utils.transform_proposals(record, (H, W), T.TransformList([]), proposal_topk=2)
    assert set(record) == {"proposals"}
    assert record["proposals"].proposal_boxes.tensor.tolist() == [[0, 0, 10, 10], [0, 5, 20, 40]]
    assert record["proposals"].objectness_logits.tolist() == [3, 1]
    empty = proposals(np.zeros((0, 4)))
    utils.transform_proposals(empty, (H, W), T.TransformList([]), proposal_topk=2)
    assert len(empty["proposals"]) == 0
    with pytest.raises(ValueError, match=r"f\.jpg.*1 of the boxes are not finite"):
        utils.transform_proposals(
            proposals([[0, 0, math.nan, 1]], file_name="f.jpg"),
            (H, W),
            T.NoOpTransform(),
            proposal_topk=2,
        )


def test_crop_around_an_instance():
    for _ in range(200):
        x, y, w, h = np.random.randint([0, 0, 0, 0], [W, H, 30, 30])
        box = [x, y, min(x + w, W), min(y + h, H)]
        crop = utils.gen_crop_transform_with_instance(
            (15, 20), (H, W), {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
        )
        assert (crop.h, crop.w) == (15, 20)
        assert 0 <= crop.x0 <= W - 20
        assert 0 <= crop.y0 <= H - 15
        assert crop.x0 - 1 < (box[0] + box[2]) / 2 < crop.x0 + 20 + 1
        assert crop.y0 - 1 < (box[1] + box[3]) / 2 < crop.y0 + 15 + 1
    with pytest.raises(ValueError, match="does not fit"):
        utils.gen_crop_transform_with_instance((99, 20), (H, W), annotation())


@pytest.fixture
def names():
    added = []

    def add(**metadata):
        added.append(f"test_annotations_{len(added)}")
        MetadataCatalog.get(added[-1]).set(**metadata)
        return added[-1]

    yield add
    for name in added:
        MetadataCatalog.remove(name)


def test_flip_indices(names):
    keypoints = {"keypoint_names": ["nose", "l_eye", "r_eye", "tail"]}
    one = names(**keypoints, keypoint_flip_map=[("l_eye", "r_eye")])
    assert utils.create_keypoint_hflip_indices(one) == [0, 2, 1, 3]
    other = names(**keypoints, keypoint_flip_map=[])
    with pytest.raises(ValueError, match=f"{one}.*{other}"):
        utils.create_keypoint_hflip_indices([one, other])


def test_federated_loss_weights(names):
    counts = [{"id": 2, "image_count": 9}, {"id": 1, "image_count": 4}]
    name = names(class_image_count=counts)
    assert utils.get_fed_loss_cls_weights(name).tolist() == [4, 9]
    assert utils.get_fed_loss_cls_weights([name], 0.5).tolist() == [2, 3]


def test_annotations_serialise_as_before():
    """Nothing in the record of the caller is changed but what is documented."""
    given = annotation(segmentation=[[1.0, 2, 3, 4, 5, 6]], extra={"a": [1]})
    text = json.dumps(given["extra"])
    utils.transform_instance_annotations(given, T.NoOpTransform(), (H, W))
    assert json.dumps(given["extra"]) == text
