import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator

_train_sizes = (640, 672, 704, 736, 768, 800)

_train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
    mapper=L(DatasetMapper)(
        is_train=True,
        image_format="BGR",
        use_instance_mask=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=_train_sizes, max_size=1333, sample_style="choice"
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
    ),
    num_workers=4,
    total_batch_size=16,
)

_test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        image_format="${...train.mapper.image_format}",
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
    ),
    num_workers=4,
)

dataloader = dict(
    train=_train,
    test=_test,
    evaluator=L(COCOEvaluator)(dataset_name="${..test.dataset.names}"),
)
