"""Defaults of the sections ``SOLVER`` and ``TEST``."""

SOLVER = {
    # Iterations of the training.
    "MAX_ITER": 40000,
    # Images in an iteration, of all processes together.
    "IMS_PER_BATCH": 16,
    # Processes that the values here are meant for; with another number, the batch size, learning
    # rate and iterations are scaled to it. 0: never.
    "REFERENCE_WORLD_SIZE": 0,
    # Iterations from one checkpoint to the next.
    "CHECKPOINT_PERIOD": 5000,
    # Learning rate after the warm-up; the optimizer is SGD.
    "BASE_LR": 0.001,
    # Of SGD.
    "MOMENTUM": 0.9,
    # Nesterov's momentum.
    "NESTEROV": False,
    # Weight decay.
    "WEIGHT_DECAY": 0.0001,
    # Weight decay of normalisation layers.
    "WEIGHT_DECAY_NORM": 0.0,
    # Weight decay of biases; None: WEIGHT_DECAY.
    "WEIGHT_DECAY_BIAS": None,
    # The biases' learning rate in units of BASE_LR.
    "BIAS_LR_FACTOR": 1.0,
    # "WarmupMultiStepLR", "WarmupCosineLR" or "WarmupStepWithFixedGammaLR".
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    # Multi-step: the iterations at which the rate is multiplied by GAMMA.
    "STEPS": (30000,),
    # Multi-step and fixed gamma: the factor of each step.
    "GAMMA": 0.1,
    # Fixed gamma: how many such steps, evenly spread.
    "NUM_DECAYS": 3,
    # Cosine: the learning rate at the end.
    "BASE_LR_END": 0.0,
    # How the rate gets to the schedule's: "linear", or "constant", at once at the end.
    "WARMUP_METHOD": "linear",
    # The rate at the start, in units of the schedule's.
    "WARMUP_FACTOR": 1.0 / 1000,
    # Iterations until the rate is the schedule's.
    "WARMUP_ITERS": 1000,
    # Fit the whole schedule into what is left after the warm-up, rather than cut its start.
    "RESCALE_INTERVAL": False,
    "CLIP_GRADIENTS": {
        # Clip each parameter's gradient.
        "ENABLED": False,
        # What is clipped: its elements ("value"), or its norm ("norm").
        "CLIP_TYPE": "value",
        # The largest value, or norm.
        "CLIP_VALUE": 1.0,
        # The order of the norm.
        "NORM_TYPE": 2.0,
    },
    # Mixed precision, of the dtype SOLVER.AMP.DTYPE.
    "AMP": {"ENABLED": False},
}

TEST = {
    # Iterations from one evaluation to the next while training; 0: at the end only.
    "EVAL_PERIOD": 0,
    # Detections kept of an image, over all classes.
    "DETECTIONS_PER_IMAGE": 100,
    # Results that a run must reach: lists [task, metric, value, tolerance].
    "EXPECTED_RESULTS": [],
    # Sigmas of the keypoint AP, one for each keypoint; empty: COCO's.
    "KEYPOINT_OKS_SIGMAS": [],
    "AUG": {
        # Test-time augmentation.
        "ENABLED": False,
        # Lengths of the shorter edge, in pixels, of which each is predicted on.
        "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
        # The longer edge gets no longer than this, in pixels.
        "MAX_SIZE": 4000,
        # Predict on each flipped, too.
        "FLIP": True,
    },
    "PRECISE_BN": {
        # Compute the statistics of the BatchNorm layers anew before an evaluation.
        "ENABLED": False,
        # Batches that they are of.
        "NUM_ITER": 200,
    },
}
