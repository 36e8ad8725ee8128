# MMDetection's Mask R-CNN in this library's training loop.

from detectron2.config import LazyCall as L
from detectron2.modeling.mmdet_wrapper import MMDetDetector

from ..common.coco_schedule import lr_multiplier_1x as lr_multiplier
from ..common.data.coco import dataloader
from ..common.data.constants import constants
from ..common.optim import SGD as optimizer
from ..common.train import train


def _box_coder(stds):
    return dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=stds)


def _cross_entropy(**kind):
    return dict(type="CrossEntropyLoss", **kind, loss_weight=1.0)


def _roi_align(output_size):
    return dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=output_size, sampling_ratio=0),
        out_channels=256,
        featmap_strides=[4, 8, 16, 32],
    )


def _assigner(foreground, background, least):
    return dict(
        type="MaxIoUAssigner",
        pos_iou_thr=foreground,
        neg_iou_thr=background,
        min_pos_iou=least,
        match_low_quality=True,
        ignore_iof_thr=-1,
    )


def _sampler(number, foreground, add_ground_truth):
    return dict(
        type="RandomSampler",
        num=number,
        pos_fraction=foreground,
        neg_pos_ub=-1,
        add_gt_as_proposals=add_ground_truth,
    )


def _proposals(before_nms):
    return dict(
        nms_pre=before_nms,
        max_per_img=1000,
        nms=dict(type="nms", iou_threshold=0.7),
        min_bbox_size=0,
    )


_l1 = dict(type="L1Loss", loss_weight=1.0)

_backbone = dict(
    type="ResNet",
    style="pytorch",
    depth=50,
    num_stages=4,
    frozen_stages=1,
    norm_eval=True,
    norm_cfg=dict(type="BN", requires_grad=True),
    out_indices=(0, 1, 2, 3),
)

_rpn_head = dict(
    type="RPNHead",
    in_channels=256,
    feat_channels=256,
    anchor_generator=dict(
        type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
    ),
    bbox_coder=_box_coder([1.0] * 4),
    loss_cls=_cross_entropy(use_sigmoid=True),
    loss_bbox=_l1,
)

_box_head = dict(
    type="Shared2FCBBoxHead",
    in_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    bbox_coder=_box_coder([0.1, 0.1, 0.2, 0.2]),
    reg_class_agnostic=False,
    loss_cls=_cross_entropy(use_sigmoid=False),
    loss_bbox=_l1,
)

_mask_head = dict(
    type="FCNMaskHead",
    num_convs=4,
    in_channels=256,
    conv_out_channels=256,
    num_classes=80,
    loss_mask=_cross_entropy(use_mask=True),
)

model = L(MMDetDetector)(
    detector=dict(
        type="MaskRCNN",
        pretrained="torchvision://resnet50",
        backbone=_backbone,
        neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
        rpn_head=_rpn_head,
        roi_head=dict(
            type="StandardRoIHead",
            bbox_roi_extractor=_roi_align(7),
            bbox_head=_box_head,
            mask_roi_extractor=_roi_align(14),
            mask_head=_mask_head,
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=_assigner(0.7, 0.3, 0.3),
                sampler=_sampler(256, 0.5, add_ground_truth=False),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
            rpn_proposal=_proposals(2000),
            rcnn=dict(
                assigner=_assigner(0.5, 0.5, 0.5),
                sampler=_sampler(512, 0.25, add_ground_truth=True),
                mask_size=28,
                pos_weight=-1,
                debug=False,
            ),
        ),
        test_cfg=dict(
            rpn=_proposals(1000),
            rcnn=dict(
                max_per_img=100,
                score_thr=0.05,
                mask_thr_binary=0.5,
                nms=dict(type="nms", iou_threshold=0.5),
            ),
        ),
    ),
    pixel_std=constants.imagenet_rgb256_std,
    pixel_mean=constants.imagenet_rgb256_mean,
)

dataloader.train.mapper.image_format = "RGB"
train.init_checkpoint = None  # MMDetection loads the backbone's weights
