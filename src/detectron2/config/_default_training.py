"""Defaults of the sections ``SOLVER`` and ``TEST``."""

SOLVER = {
    # Iterations in all, and images in an iteration, of all processes together.
    "MAX_ITER": 40000,
    "IMS_PER_BATCH": 16,
    # Processes that the values here are meant for; with another number, the batch size, learning
    # rate and iterations are scaled to it. 0: never.
    "REFERENCE_WORLD_SIZE": 0,
    # Iterations from one checkpoint to the next.
    "CHECKPOINT_PERIOD": 5000,
    # SGD.
    "BASE_LR": 0.001,
    "MOMENTUM": 0.9,
    "NESTEROV": False,
    "WEIGHT_DECAY": 0.0001,
    # Of normalisation layers, and of biases (None: as WEIGHT_DECAY).
    "WEIGHT_DECAY_NORM": 0.0,
    "WEIGHT_DECAY_BIAS": None,
    # The biases' learning rate in units of BASE_LR.
    "BIAS_LR_FACTOR": 1.0,
    # "WarmupMultiStepLR", "WarmupCosineLR" or "WarmupStepWithFixedGammaLR".
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    # Multi-step: the iterations at which the rate is multiplied by GAMMA.
    "STEPS": (30000,),
    "GAMMA": 0.1,
    # Fixed gamma: how many such steps, evenly spread.
    "NUM_DECAYS": 3,
    # Cosine: the learning rate at the end.
    "BASE_LR_END": 0.0,
    # The rate starts as WARMUP_FACTOR times the schedule's, and gets there within WARMUP_ITERS
    # iterations, by a "linear" ramp, or at once after a "constant" one.
    "WARMUP_METHOD": "linear",
    "WARMUP_FACTOR": 1.0 / 1000,
    "WARMUP_ITERS": 1000,
    # Fit the whole schedule into what is left after the warm-up, rather than cut its start.
    "RESCALE_INTERVAL": False,
    # Clipping of each parameter's gradient, to CLIP_VALUE: its elements ("value"), or its norm of
    # order NORM_TYPE ("norm").
    "CLIP_GRADIENTS": {
        "ENABLED": False,
        "CLIP_TYPE": "value",
        "CLIP_VALUE": 1.0,
        "NORM_TYPE": 2.0,
    },
    # Mixed precision; defaults.py has the hidden key DTYPE.
    "AMP": {"ENABLED": False},
}

TEST = {
    # Iterations from one evaluation to the next while training; 0: at the end only.
    "EVAL_PERIOD": 0,
    # Detections kept of an image, over all classes.
    "DETECTIONS_PER_IMAGE": 100,
    # Results that a run must reach: lists [task, metric, value, tolerance].
    "EXPECTED_RESULTS": [],
    # Of the keypoint AP, a value a keypoint; empty: COCO's.
    "KEYPOINT_OKS_SIGMAS": [],
    # Test-time augmentation: every size of the shorter edge, and each flipped, too.
    "AUG": {
        "ENABLED": False,
        "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
        "MAX_SIZE": 4000,
        "FLIP": True,
    },
    # Statistics of the BatchNorm layers from NUM_ITER batches before an evaluation.
    "PRECISE_BN": {"ENABLED": False, "NUM_ITER": 200},
}
