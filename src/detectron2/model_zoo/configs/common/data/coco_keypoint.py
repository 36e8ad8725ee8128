from detectron2.data.detection_utils import create_keypoint_hflip_indices

from .coco import dataloader

dataloader.train.dataset.names = "keypoints_coco_2017_train"
dataloader.train.dataset.min_keypoints = 1
dataloader.test.dataset.names = "keypoints_coco_2017_val"
dataloader.train.mapper.update(
    use_keypoint=True,
    use_instance_mask=False,
    keypoint_hflip_indices=create_keypoint_hflip_indices("keypoints_coco_2017_train"),
)
