"""The mapper, against its parts applied one by one."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T  # noqa: N812
from detectron2.structures import BitMasks, BoxMode, PolygonMasks, RotatedBoxes

H, W = 24, 36


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    labels = rng.integers(0, 4, (H, W), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    square = [4.0, 5, 20, 5, 20, 15, 4, 15]
    thing = {
        "bbox": [4, 5, 16, 10],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 2,
        "segmentation": [square],
        "keypoints": [6.0, 7, 2, 10, 9, 1],
    }
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "image_id": 5,
        "pixels": pixels,
        "labels": labels,
        "annotations": [thing, {**thing, "iscrowd": 1, "category_id": 1}],
    }


def mapper(augmentations=(), is_train=True, **options):
    return DatasetMapper(is_train, augmentations=augmentations, image_format="RGB", **options)


def test_training_sample(record):
    before = copy.deepcopy(record)
    sample = mapper([T.HFlipTransform(W)])(record)
    assert np.array_equal(sample["image"].numpy(), record["pixels"][:, ::-1].transpose(2, 0, 1))
    assert sample["image"].is_contiguous()
    assert np.array_equal(sample["sem_seg"].numpy(), record["labels"][:, ::-1])
    assert sample["sem_seg"].dtype == torch.int64
    assert (sample["width"], sample["height"]) == (W, H)
    assert "annotations" not in sample
    assert "sem_seg_file_name" not in sample
    instances = sample["instances"]
    assert sorted(instances.get_fields()) == ["gt_boxes", "gt_classes"]
    assert instances.gt_boxes.tensor.tolist() == [[16, 5, 32, 15]]
    assert instances.gt_classes.tolist() == [2]
    assert {k: v for k, v in record.items() if k not in ("pixels", "labels")} == {
        k: v for k, v in before.items() if k not in ("pixels", "labels")
    }


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_masks_and_keypoints(record, mask_format):
    sample = mapper(
        [T.ResizeTransform(H, W, 2 * H, W), T.HFlipTransform(W)],
        use_instance_mask=True,
        use_keypoint=True,
        instance_mask_format=mask_format,
        keypoint_hflip_indices=np.array([1, 0]),
    )(record)
    instances = sample["instances"]
    kind = PolygonMasks if mask_format == "polygon" else BitMasks
    assert isinstance(instances.gt_masks, kind)
    assert instances.gt_masks.get_bounding_boxes().tensor.tolist() == [[16, 10, 32, 30]]
    assert instances.gt_keypoints.tensor.tolist() == [[[26, 18, 1], [30, 14, 2]]]


def test_inference_sample(record):
    sample = mapper(is_train=False)(record)
    assert "instances" not in sample
    assert "annotations" not in sample
    assert "sem_seg" in sample


def test_boxes_of_a_crop_are_recomputed(record):
    # The lower right triangle of the box: cropped to its lower left part, the box is too large.
    record["annotations"][0]["segmentation"] = [[20.0, 5, 20, 15, 4, 15]]
    crop = [T.CropTransform(0, 0, 12, H)]
    plain = mapper(crop, use_instance_mask=True)(record)["instances"]
    assert plain.gt_boxes.tensor.tolist() == [[4, 5, 12, 15]]
    again = mapper(crop, use_instance_mask=True, recompute_boxes=True)(record)["instances"]
    assert again.gt_boxes.tensor.tolist() == [[4, 10, 12, 15]]
    with pytest.raises(ValueError, match="use_instance_mask"):
        mapper(recompute_boxes=True)


def test_instances_that_a_crop_leaves_out(record):
    sample = mapper([T.CropTransform(25, 0, 10, 10)], use_instance_mask=True)(record)
    assert len(sample["instances"]) == 0
    assert sample["instances"].image_size == (10, 10)


def test_rotated_boxes(record):
    record["annotations"] = [
        {"bbox": [10, 12, 8, 4, 30], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0},
        {"bbox": [4, 5, 16, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1},
    ]
    instances = mapper([T.HFlipTransform(W)], use_rotated_boxes=True)(record)["instances"]
    assert isinstance(instances.gt_boxes, RotatedBoxes)
    assert instances.gt_boxes.tensor.tolist() == [[26, 12, 8, 4, -30], [24, 10, 16, 10, 0]]


def test_proposals_are_moved(record):
    boxes = np.array([[0, 0, 9, 9], [5, 5, 5, 9], [1, 2, 8, 20]])
    record.update(
        proposal_boxes=boxes,
        proposal_bbox_mode=BoxMode.XYXY_ABS,
        proposal_objectness_logits=np.array([3, 2, 1]),
    )
    sample = mapper([T.HFlipTransform(W)], precomputed_proposal_topk=2)(record)
    assert sample["proposals"].proposal_boxes.tensor.tolist() == [[27, 0, 36, 9], [28, 2, 35, 20]]
    assert sample["proposals"].objectness_logits.tolist() == [3, 1]
    assert boxes.tolist() == [[0, 0, 9, 9], [5, 5, 5, 9], [1, 2, 8, 20]]
    assert "proposals" not in mapper()(record)


@pytest.mark.parametrize("shape", [(H, W), (H, W, 1)])
def test_grey_images(record, shape, tmp_path):
    Image.fromarray(record["pixels"][:, :, 0]).save(record["file_name"])
    image_format = None if len(shape) == 2 else "L"
    sample = DatasetMapper(True, augmentations=[T.HFlipTransform(W)], image_format=image_format)(
        record
    )
    assert np.array_equal(sample["image"][0].numpy(), record["pixels"][:, ::-1, 0])
    assert sample["image"].shape == (1, H, W)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bbox": [math.nan, 0, 1, 1]}, r"image\.png.*image_id 5.*annotation 0.*nan"),
        ({"bbox": [0, 0, 1]}, r"image\.png.*image_id 5.*annotation 0.*bbox"),
        ({"bbox_mode": 9}, r"image\.png.*annotation 0.*9"),
        ({"segmentation": [[1, 2, 3]]}, r"image\.png.*annotation 0.*polygon"),
        ({"segmentation": {"size": [H, W], "counts": "#"}}, r"image\.png.*annotation 0"),
        ({"keypoints": [1, 2, math.inf]}, r"image\.png.*annotation 0.*keypoints"),
    ],
)
def test_errors_name_file_and_record(record, fields, message):
    record["annotations"][0].update(fields)
    with pytest.raises(ValueError, match=message):
        mapper(use_instance_mask=True, use_keypoint=True)(record)


def test_errors_of_augmentations_name_the_record(record):
    class Fails(T.Augmentation):
        def get_transform(self, image):
            raise LookupError("of mine")

    with pytest.raises(LookupError, match="of mine") as caught:
        mapper([Fails()])(record)
    assert "image.png" in caught.value.__notes__[0]


def test_fields_that_are_missing(record):
    del record["annotations"][0]["bbox"]
    with pytest.raises(ValueError, match=r"image\.png.*annotation 0.*KeyError.*bbox"):
        mapper()(record)


def test_sizes_that_differ(record):
    with pytest.raises(ValueError, match=r"image\.png.*36 x 24"):
        mapper()({**record, "width": H, "height": W})
    Image.fromarray(record["labels"][:-1]).save(record["sem_seg_file_name"])
    with pytest.raises(ValueError, match=r"semantic segmentation.*image\.png.*\(23, 36\)"):
        mapper()(record)


def test_from_config(record):
    cfg = get_cfg()
    cfg.INPUT.CROP.ENABLED = True
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = cfg.MODEL.LOAD_PROPOSALS = True
    MetadataCatalog.get("test_mapper").set(
        keypoint_names=["a", "b"], keypoint_flip_map=[("a", "b")]
    )
    cfg.DATASETS.TRAIN = ("test_mapper",)
    try:
        training, inference = DatasetMapper(cfg), DatasetMapper(cfg, False)
        names = [type(aug).__name__ for aug in training.augmentations.augs]
        assert names == ["RandomCrop", "ResizeShortestEdge", "RandomFlip"]
        assert [type(aug).__name__ for aug in inference.augmentations.augs] == names[1:2]
        assert training.recompute_boxes
        assert not inference.recompute_boxes
        assert list(training.keypoint_hflip_indices) == [1, 0]
        assert (training.proposal_topk, inference.proposal_topk) == (2000, 1000)
        sample = training(record)
        assert sample["image"].shape[1] == 800 or sample["image"].shape[2] == 1333
        cfg.INPUT.RANDOM_FLIP = "diagonal"
        with pytest.raises(ValueError, match="diagonal"):
            DatasetMapper(cfg)
        cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
        cfg.INPUT.RANDOM_FLIP = "vertical"
        cfg.INPUT.CROP.ENABLED = False
        assert DatasetMapper(cfg).use_rotated_boxes
    finally:
        MetadataCatalog.remove("test_mapper")


def test_a_subclass_may_call_its_own_way(record):
    from detectron2.data import MapDataset

    class Renamed(DatasetMapper):
        def __call__(self, dataset_dict):
            return {"mine": super().__call__(dataset_dict)["image"]}

    custom = Renamed(True, augmentations=[], image_format="RGB")
    assert list(MapDataset([record], custom)[0]) == ["mine"]
    assert "image" in MapDataset([record], mapper())[0]


def test_a_mapper_with_functions_reaches_spawned_workers(record):
    from detectron2.data import MapDataset

    inverting = mapper([T.ColorTransform(lambda image: 255 - image)])
    dataset = pickle.loads(pickle.dumps(MapDataset([record], inverting)))
    assert np.array_equal(dataset[0]["image"].numpy(), 255 - record["pixels"].transpose(2, 0, 1))
