"""Defaults of the sections of ``MODEL`` that turn features into predictions."""

PROPOSAL_GENERATOR = {
    # A name of PROPOSAL_GENERATOR_REGISTRY, or "PrecomputedProposals".
    "NAME": "RPN",
    # Proposals with a shorter side, in pixels of the input, are dropped.
    "MIN_SIZE": 0,
}

RPN = {
    # A name of RPN_HEAD_REGISTRY.
    "HEAD_NAME": "StandardRPNHead",
    # The backbone's outputs that it is applied to.
    "IN_FEATURES": ["res4"],
    # Channels of the hidden convolutions; -1: as many as enter.
    "CONV_DIMS": [-1],
    # Anchors that leave the image by more pixels are not trained; -1: all are.
    "BOUNDARY_THRESH": -1,
    # IoUs with the ground truth that part anchors into intervals.
    "IOU_THRESHOLDS": [0.3, 0.7],
    # Of each interval: 0 background, 1 foreground, -1 ignored.
    "IOU_LABELS": [0, -1, 1],
    # Anchors of an image that enter the loss.
    "BATCH_SIZE_PER_IMAGE": 256,
    # The largest share of foreground among them.
    "POSITIVE_FRACTION": 0.5,
    # Scale the deltas (dx, dy, dw, dh; and da of rotated boxes).
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    # "smooth_l1" of deltas; "giou", "diou" or "ciou" of boxes.
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    # Weight of the regression's loss.
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    # Where smooth L1 turns linear; 0: L1.
    "SMOOTH_L1_BETA": 0.0,
    # Weight of both losses.
    "LOSS_WEIGHT": 1.0,
    # Proposals that overlap a better one by a greater IoU are dropped.
    "NMS_THRESH": 0.7,
    # Best-scored proposals of each feature map that enter the NMS while training.
    "PRE_NMS_TOPK_TRAIN": 12000,
    # The same in testing.
    "PRE_NMS_TOPK_TEST": 6000,
    # Best-scored proposals of an image that are left after it while training.
    "POST_NMS_TOPK_TRAIN": 2000,
    # The same in testing.
    "POST_NMS_TOPK_TEST": 1000,
}

ROI_HEADS = {
    # A name of ROI_HEADS_REGISTRY.
    "NAME": "Res5ROIHeads",
    # Without the background.
    "NUM_CLASSES": 80,
    # The backbone's outputs that are pooled.
    "IN_FEATURES": ["res4"],
    # IoUs with the ground truth that part proposals into intervals.
    "IOU_THRESHOLDS": [0.5],
    # Of each interval: 0 background, 1 foreground, -1 ignored.
    "IOU_LABELS": [0, 1],
    # Proposals of an image that enter the loss.
    "BATCH_SIZE_PER_IMAGE": 512,
    # The largest share of foreground among them.
    "POSITIVE_FRACTION": 0.25,
    # The ground truth counts as proposals while training.
    "PROPOSAL_APPEND_GT": True,
    # Detections of a lower score are dropped before the NMS.
    "SCORE_THRESH_TEST": 0.05,
    # Detections that overlap a better one of their class by a greater IoU are dropped.
    "NMS_THRESH_TEST": 0.5,
}

ROI_BOX_HEAD = {
    # A name of ROI_BOX_HEAD_REGISTRY.
    "NAME": "",
    # Convolutions.
    "NUM_CONV": 0,
    # Their channels.
    "CONV_DIM": 256,
    # Fully connected layers after them.
    "NUM_FC": 0,
    # Their width.
    "FC_DIM": 1024,
    # Normalisation of the convolutions; "": none.
    "NORM": "",
    # "ROIAlignV2", "ROIAlign" (off by half a pixel), "ROIPool" or "ROIAlignRotated".
    "POOLER_TYPE": "ROIAlignV2",
    # Bins along each side.
    "POOLER_RESOLUTION": 14,
    # Points along each side of a bin; 0: as many as fit.
    "POOLER_SAMPLING_RATIO": 0,
    # Deltas are the same for every class.
    "CLS_AGNOSTIC_BBOX_REG": False,
    # Scale the deltas (dx, dy, dw, dh; and da of rotated boxes).
    "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    # "smooth_l1" of deltas; "giou", "diou" or "ciou" of boxes.
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    # Weight of the regression's loss.
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    # Where smooth L1 turns linear; 0: L1.
    "SMOOTH_L1_BETA": 0.0,
    # The other heads are trained on this one's predictions rather than on proposals.
    "TRAIN_ON_PRED_BOXES": False,
    # Sigmoid cross-entropy instead of softmax.
    "USE_SIGMOID_CE": False,
    # The federated loss (Zhou et al., 2021); needs USE_SIGMOID_CE.
    "USE_FED_LOSS": False,
    # Classes that enter the federated loss of an iteration.
    "FED_LOSS_NUM_CLASSES": 50,
    # They are drawn by their frequency to this power.
    "FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
}

ROI_BOX_CASCADE_HEAD = {
    # Scale the deltas, of each stage.
    "BBOX_REG_WEIGHTS": (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    ),
    # IoU of each stage from which on a proposal is foreground.
    "IOUS": (0.5, 0.6, 0.7),
}

ROI_MASK_HEAD = {
    # A name of ROI_MASK_HEAD_REGISTRY.
    "NAME": "MaskRCNNConvUpsampleHead",
    # Convolutions before the upsampling.
    "NUM_CONV": 0,
    # Channels of the convolutions and of the upsampling.
    "CONV_DIM": 256,
    # Normalisation of the convolutions; "": none.
    "NORM": "",
    # "ROIAlignV2", "ROIAlign" (off by half a pixel), "ROIPool" or "ROIAlignRotated".
    "POOLER_TYPE": "ROIAlignV2",
    # Bins along each side.
    "POOLER_RESOLUTION": 14,
    # Points along each side of a bin; 0: as many as fit.
    "POOLER_SAMPLING_RATIO": 0,
    # One mask for all classes.
    "CLS_AGNOSTIC_MASK": False,
}

ROI_KEYPOINT_HEAD = {
    # A name of ROI_KEYPOINT_HEAD_REGISTRY.
    "NAME": "KRCNNConvDeconvUpsampleHead",
    # Keypoints of an instance.
    "NUM_KEYPOINTS": 17,
    # Channels of each convolution before the upsampling.
    "CONV_DIMS": (512,) * 8,
    # "ROIAlignV2", "ROIAlign" (off by half a pixel), "ROIPool" or "ROIAlignRotated".
    "POOLER_TYPE": "ROIAlignV2",
    # Bins along each side.
    "POOLER_RESOLUTION": 14,
    # Points along each side of a bin; 0: as many as fit.
    "POOLER_SAMPLING_RATIO": 0,
    # Images with fewer keypoints are left out of training.
    "MIN_KEYPOINTS_PER_IMAGE": 1,
    # Divide the loss by the number of visible keypoints, rather than by a constant.
    "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
    # Weight of the loss.
    "LOSS_WEIGHT": 1.0,
}

SEM_SEG_HEAD = {
    # A name of SEM_SEG_HEADS_REGISTRY.
    "NAME": "SemSegFPNHead",
    # The backbone's outputs that it is applied to.
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],
    # Classes, all of things counted as one in panoptic segmentation.
    "NUM_CLASSES": 54,
    # Label of pixels without ground truth.
    "IGNORE_VALUE": 255,
    # Channels of the convolutions.
    "CONVS_DIM": 128,
    # The stride at which features are added up.
    "COMMON_STRIDE": 4,
    # Normalisation of the convolutions; "": none.
    "NORM": "GN",
    # Weight of the loss.
    "LOSS_WEIGHT": 1.0,
}

PANOPTIC_FPN = {
    # Weight of all losses of instances, beside that of the semantic segmentation.
    "INSTANCE_LOSS_WEIGHT": 1.0,
    "COMBINE": {
        # Combine both into a panoptic segmentation.
        "ENABLED": True,
        # Instances of a lower score are left out.
        "INSTANCES_CONFIDENCE_THRESH": 0.5,
        # An instance is left out if better ones cover a greater part of it.
        "OVERLAP_THRESH": 0.5,
        # Stuff of fewer pixels is left out.
        "STUFF_AREA_LIMIT": 4096,
    },
}

RETINANET = {
    # Without the background.
    "NUM_CLASSES": 80,
    # The backbone's outputs that it is applied to.
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    # Convolutions before each prediction.
    "NUM_CONVS": 4,
    # Normalisation of the convolutions; "": none.
    "NORM": "",
    # Foreground probability that the classifier starts from.
    "PRIOR_PROB": 0.01,
    # IoUs with the ground truth that part anchors into intervals.
    "IOU_THRESHOLDS": [0.4, 0.5],
    # Of each interval: 0 background, 1 foreground, -1 ignored.
    "IOU_LABELS": [0, -1, 1],
    # Weight of the foreground in the focal loss; the background's is 1 - alpha. Negative: both
    # weigh 1.
    "FOCAL_LOSS_ALPHA": 0.25,
    # Exponent of the focal loss.
    "FOCAL_LOSS_GAMMA": 2.0,
    # Scale the deltas (dx, dy, dw, dh).
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    # "smooth_l1" of deltas; "giou", "diou" or "ciou" of boxes.
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    # Where smooth L1 turns linear; 0: L1.
    "SMOOTH_L1_LOSS_BETA": 0.1,
    # Anchors of a lower score are dropped.
    "SCORE_THRESH_TEST": 0.05,
    # Best-scored anchors of each feature map that enter the NMS.
    "TOPK_CANDIDATES_TEST": 1000,
    # Detections that overlap a better one of their class by a greater IoU are dropped.
    "NMS_THRESH_TEST": 0.5,
}
