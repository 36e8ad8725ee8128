"""Defaults of the sections of ``MODEL`` that turn features into predictions.

What several of them have: ``BBOX_REG_WEIGHTS`` scale the deltas (dx, dy, dw, dh, and da of rotated
boxes). ``IOU_THRESHOLDS`` part the IoUs with the ground truth into intervals that ``IOU_LABELS``
name: 0 background, 1 foreground, -1 ignored. ``BBOX_REG_LOSS_TYPE`` is "smooth_l1" (with the point
``BETA`` where it turns linear; 0 is L1), "giou", "diou" or "ciou". ``NORM`` names a normalisation,
"" is none. Poolers give ``POOLER_RESOLUTION`` squared bins from ``POOLER_SAMPLING_RATIO`` squared
points each (0: as many as fit) by "ROIAlignV2", "ROIAlign", "ROIPool" or "ROIAlignRotated".
"""

PROPOSAL_GENERATOR = {
    # A name of PROPOSAL_GENERATOR_REGISTRY, or "PrecomputedProposals".
    "NAME": "RPN",
    # Proposals with a shorter side, in pixels of the input, are dropped.
    "MIN_SIZE": 0,
}

RPN = {
    # A name of RPN_HEAD_REGISTRY.
    "HEAD_NAME": "StandardRPNHead",
    "IN_FEATURES": ["res4"],
    # Channels of the hidden convolutions; -1: as many as enter.
    "CONV_DIMS": [-1],
    # Anchors that leave the image by more pixels are not trained; -1: all are.
    "BOUNDARY_THRESH": -1,
    "IOU_THRESHOLDS": [0.3, 0.7],
    "IOU_LABELS": [0, -1, 1],
    # Anchors of an image that enter the loss, and the largest share of positives among them.
    "BATCH_SIZE_PER_IMAGE": 256,
    "POSITIVE_FRACTION": 0.5,
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    "SMOOTH_L1_BETA": 0.0,
    "LOSS_WEIGHT": 1.0,
    # Best-scored proposals before NMS (of each feature map) and after (of an image).
    "NMS_THRESH": 0.7,
    "PRE_NMS_TOPK_TRAIN": 12000,
    "PRE_NMS_TOPK_TEST": 6000,
    "POST_NMS_TOPK_TRAIN": 2000,
    "POST_NMS_TOPK_TEST": 1000,
}

ROI_HEADS = {
    # A name of ROI_HEADS_REGISTRY.
    "NAME": "Res5ROIHeads",
    # Without the background.
    "NUM_CLASSES": 80,
    "IN_FEATURES": ["res4"],
    "IOU_THRESHOLDS": [0.5],
    "IOU_LABELS": [0, 1],
    # Proposals of an image that enter the loss, and the largest share of foreground among them.
    "BATCH_SIZE_PER_IMAGE": 512,
    "POSITIVE_FRACTION": 0.25,
    # The ground truth counts as proposals while training.
    "PROPOSAL_APPEND_GT": True,
    # Detections with a lower score are dropped before the NMS of each class.
    "SCORE_THRESH_TEST": 0.05,
    "NMS_THRESH_TEST": 0.5,
}

ROI_BOX_HEAD = {
    # A name of ROI_BOX_HEAD_REGISTRY: convolutions, then fully connected layers.
    "NAME": "",
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NUM_FC": 0,
    "FC_DIM": 1024,
    "NORM": "",
    "POOLER_TYPE": "ROIAlignV2",
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    # Deltas are the same for every class.
    "CLS_AGNOSTIC_BBOX_REG": False,
    "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    "BBOX_REG_LOSS_WEIGHT": 1.0,
    "SMOOTH_L1_BETA": 0.0,
    # The other heads are trained on this one's predictions rather than on proposals.
    "TRAIN_ON_PRED_BOXES": False,
    # Sigmoid cross-entropy instead of softmax; with it, the federated loss (Zhou et al., 2021) of
    # so many classes, drawn by their frequency to this power.
    "USE_SIGMOID_CE": False,
    "USE_FED_LOSS": False,
    "FED_LOSS_NUM_CLASSES": 50,
    "FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
}

# A value a stage.
ROI_BOX_CASCADE_HEAD = {
    "BBOX_REG_WEIGHTS": (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    ),
    "IOUS": (0.5, 0.6, 0.7),
}

ROI_MASK_HEAD = {
    # A name of ROI_MASK_HEAD_REGISTRY.
    "NAME": "MaskRCNNConvUpsampleHead",
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NORM": "",
    "POOLER_TYPE": "ROIAlignV2",
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    # One mask for all classes.
    "CLS_AGNOSTIC_MASK": False,
}

ROI_KEYPOINT_HEAD = {
    # A name of ROI_KEYPOINT_HEAD_REGISTRY.
    "NAME": "KRCNNConvDeconvUpsampleHead",
    "NUM_KEYPOINTS": 17,
    "CONV_DIMS": (512,) * 8,
    "POOLER_TYPE": "ROIAlignV2",
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    # Images with fewer keypoints are left out of training.
    "MIN_KEYPOINTS_PER_IMAGE": 1,
    # Divide the loss by the number of visible keypoints, rather than by a constant.
    "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
    "LOSS_WEIGHT": 1.0,
}

SEM_SEG_HEAD = {
    # A name of SEM_SEG_HEADS_REGISTRY.
    "NAME": "SemSegFPNHead",
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "NUM_CLASSES": 54,
    # Label of pixels without ground truth.
    "IGNORE_VALUE": 255,
    # Channels, and the stride at which features are added up.
    "CONVS_DIM": 128,
    "COMMON_STRIDE": 4,
    "NORM": "GN",
    "LOSS_WEIGHT": 1.0,
}

PANOPTIC_FPN = {
    "INSTANCE_LOSS_WEIGHT": 1.0,
    # Instances are pasted by score from INSTANCES_CONFIDENCE_THRESH on, unless more than
    # OVERLAP_THRESH of one is covered; stuff of less than STUFF_AREA_LIMIT pixels is dropped.
    "COMBINE": {
        "ENABLED": True,
        "INSTANCES_CONFIDENCE_THRESH": 0.5,
        "OVERLAP_THRESH": 0.5,
        "STUFF_AREA_LIMIT": 4096,
    },
}

RETINANET = {
    "NUM_CLASSES": 80,
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "NUM_CONVS": 4,
    "NORM": "",
    # Foreground probability that the classifier starts from.
    "PRIOR_PROB": 0.01,
    "IOU_THRESHOLDS": [0.4, 0.5],
    "IOU_LABELS": [0, -1, 1],
    "FOCAL_LOSS_ALPHA": 0.25,
    "FOCAL_LOSS_GAMMA": 2.0,
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "BBOX_REG_LOSS_TYPE": "smooth_l1",
    "SMOOTH_L1_LOSS_BETA": 0.1,
    # The best-scored anchors of each feature map from SCORE_THRESH_TEST on go into the NMS.
    "SCORE_THRESH_TEST": 0.05,
    "TOPK_CANDIDATES_TEST": 1000,
    "NMS_THRESH_TEST": 0.5,
}
