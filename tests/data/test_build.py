"""What is taken of registered datasets, and what a config makes of them."""

import logging
import pickle

import numpy as np
import pytest
from torch.utils import data

from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
)
from detectron2.structures import BoxMode


def thing(category=0, **fields):
    return {"category_id": category, "bbox": [0, 0, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, **fields}


def image(image_id, *annotations):
    return {
        "image_id": image_id,
        "file_name": f"{image_id}.jpg",
        "width": 8,
        "height": 6,
        "annotations": list(annotations),
    }


@pytest.fixture
def register():
    names = []

    def add(records, **metadata):
        names.append(f"test_build_{len(names)}")
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def ids(records):
    return [record["image_id"] for record in records]


CROWD, KEYPOINTS = thing(iscrowd=1), thing(keypoints=[1, 1, 2, 0, 0, 0, 5, 5, 1])


def test_filters():
    records = [image(0, CROWD), image(1), image(2, CROWD, thing()), image(3, KEYPOINTS, KEYPOINTS)]
    assert ids(filter_images_with_only_crowd_annotations(records)) == [2, 3]
    assert ids(filter_images_with_few_keypoints(records, 4)) == [3]
    assert ids(filter_images_with_few_keypoints(records, 5)) == []


def test_what_is_left_out_is_counted(register, caplog):
    one = register([image(0, CROWD), image(1), image(2, thing())])
    other = register([image(3, KEYPOINTS)])
    with caplog.at_level(logging.WARNING, "detectron2"):
        assert ids(get_detection_dataset_dicts([one, other], min_keypoints=1)) == [3]
    (message,) = [r.getMessage() for r in caplog.records]
    assert "3 of 4 images" in message
    assert "2 without an annotation" in message
    assert "1 with fewer than 1 visible keypoints" in message
    assert ids(get_detection_dataset_dicts(one, filter_empty=False)) == [0, 1, 2]


def test_the_training_loader_warns_once_of_annotations(caplog):
    empty = thing(bbox=[3, 3, 3, 9], bbox_mode=BoxMode.XYXY_ABS)
    records = [image(0, CROWD, thing()), image(1, thing(bbox=[1, 1, 0, 4]), empty)]
    with caplog.at_level(logging.WARNING, "detectron2"):
        build_detection_train_loader(records, mapper=lambda r: r, total_batch_size=1)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "3 of 4 annotations: 1 of crowds, 2 with a box without area" in message


def test_datasets_that_have_nothing(register):
    with pytest.raises(ValueError, match="no dataset"):
        get_detection_dataset_dicts([])
    empty = register([])
    with pytest.raises(ValueError, match=empty):
        get_detection_dataset_dicts([empty])
    with pytest.raises(ValueError, match="nothing is left"):
        get_detection_dataset_dicts(register([image(0, CROWD)]))
    with pytest.raises(KeyError, match="no_such_dataset"):
        get_detection_dataset_dicts("no_such_dataset")
    with pytest.raises(ValueError, match="empty"):
        build_detection_train_loader([], mapper=lambda r: r, total_batch_size=1)
    with pytest.raises(ValueError, match="empty"):
        build_detection_test_loader([], mapper=lambda r: r)


def test_datasets_of_pytorch_are_concatenated(register):
    class Numbers(data.Dataset):
        def __init__(self, numbers):
            self.numbers = numbers

        def __len__(self):
            return len(self.numbers)

        def __getitem__(self, index):
            return self.numbers[index]

    one, other = Numbers([1, 2]), Numbers([3])
    names = register(one), register(other)
    assert get_detection_dataset_dicts(names[0]) is one
    assert list(get_detection_dataset_dicts(list(names))) == [1, 2, 3]


def test_classes_must_be_the_same(register):
    one = register([image(0, thing())], thing_classes=["a"])
    other = register([image(1, thing())], thing_classes=["b"])
    with pytest.raises(ValueError, match=f"thing_classes.*{one}.*{other}"):
        get_detection_dataset_dicts([one, other])
    assert ids(get_detection_dataset_dicts([one, other], check_consistency=False)) == [0, 1]


def test_histogram(caplog):
    records = [image(0, thing(0), thing(2), CROWD), image(1, *[thing(2)] * 1234)]
    with caplog.at_level(logging.INFO, "detectron2"):
        print_instances_class_histogram(records, ["cat", "dog", "cow"])
    cells = caplog.records[-1].getMessage().split()
    found = {name: cells[cells.index(name) + 1] for name in ("cat", "dog", "cow", "total")}
    assert found == {"cat": "1", "dog": "0", "cow": "1,235", "total": "1,236"}
    with pytest.raises(ValueError, match=r"7\.jpg.*category_id 3"):
        print_instances_class_histogram([image(7, thing(3))], ["cat", "dog", "cow"])


@pytest.mark.parametrize("names", [("ids", "objectness_logits"), ("indexes", "scores")])
def test_proposal_files(tmp_path, names):
    path = tmp_path / "proposals.pkl"
    boxes = [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((1, 4))]
    content = {
        names[0]: ["5", "7"],
        "boxes": boxes,
        names[1]: [np.array([0.1, 0.9, 0.5]), np.array([1.0])],
        "bbox_mode": BoxMode.XYWH_ABS,
    }
    path.write_bytes(pickle.dumps(content))
    first, other = load_proposals_into_dataset([image(5), image(6)], str(path))
    assert first["proposal_boxes"].tolist() == boxes[0][[1, 2, 0]].tolist()
    assert first["proposal_objectness_logits"].tolist() == [0.9, 0.5, 0.1]
    assert first["proposal_bbox_mode"] == BoxMode.XYWH_ABS
    assert "proposal_boxes" not in other
    del content["bbox_mode"]
    path.write_bytes(pickle.dumps(content))
    (first,) = load_proposals_into_dataset([image(5)], str(path))
    assert first["proposal_bbox_mode"] == BoxMode.XYXY_ABS
    path.write_bytes(pickle.dumps({names[0]: ["5"], "boxes": boxes}))
    with pytest.raises(ValueError, match=r"proposals\.pkl.*objectness_logits"):
        load_proposals_into_dataset([image(5)], str(path))
    path.write_bytes(pickle.dumps({"ids": test_filters}))
    with pytest.raises(pickle.UnpicklingError, match="test_filters"):
        load_proposals_into_dataset([image(5)], str(path))


def config(*names, **data_loader):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = names
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    for key, value in data_loader.items():
        setattr(cfg.DATALOADER, key, value)
    return cfg


def order(cfg, count=40):
    loader = build_detection_train_loader(cfg, mapper=lambda record: record["image_id"])
    return [batch[0] for _, batch in zip(range(count), loader, strict=False)]


def test_a_negative_seed_is_none(register):
    cfg = config(register([image(i, thing()) for i in range(100)]))
    assert cfg.SEED < 0
    assert order(cfg) != order(cfg)
    cfg.SEED = 3
    assert order(cfg) == order(cfg)


def test_samplers_by_weight(register):
    rare = register([image(i, thing(i % 2)) for i in range(10)])
    common = register([image(100 + i, thing(0)) for i in range(10)])
    cfg = config(rare, common, SAMPLER_TRAIN="WeightedTrainingSampler")
    cfg.SEED = 1
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [(rare, 3.0)]
    epoch = order(cfg, 40)
    assert sum(i < 100 for i in epoch) == 30
    assert sorted(set(epoch)) == [*range(10), *range(100, 110)]
    cfg.DATALOADER.SAMPLER_TRAIN = "WeightedCategoryTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 1.0
    cfg.DATALOADER.REPEAT_SQRT = False
    # In the first dataset both categories are in half of the images: 3 x 2 times.
    epoch = order(cfg, 70)
    assert sum(i < 100 for i in epoch) == 60
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [("other", 3.0)]
    with pytest.raises(ValueError, match="other"):
        order(cfg)


def test_sampler_of_a_subset(register):
    cfg = config(
        register([image(i, thing()) for i in range(20)]),
        SAMPLER_TRAIN="RandomSubsetTrainingSampler",
    )
    cfg.SEED = 1
    assert len(set(order(cfg, 60))) == 20
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.25
    assert len(set(order(cfg, 60))) == 5
    cfg.DATALOADER.SAMPLER_TRAIN = "NoSampler"
    with pytest.raises(ValueError, match="NoSampler"):
        order(cfg)


def test_test_loader_from_a_config(register):
    name = register([image(i, CROWD) for i in range(5)])
    cfg = config()
    loader = build_detection_test_loader(cfg, name, mapper=lambda record: record["image_id"])
    assert isinstance(loader, data.DataLoader)
    assert len(loader) == 5
    assert list(loader) == [[0], [1], [2], [3], [4]]
    by_two = build_detection_test_loader(
        DatasetCatalog.get(name), mapper=lambda record: record["image_id"], batch_size=2
    )
    assert list(by_two) == [[0, 1], [2, 3], [4]]
