"""Defaults of the sections ``INPUT``, ``DATASETS`` and ``DATALOADER``."""

INPUT = {
    # Channel order that the model expects: any mode of PIL, or "BGR", or "YUV-BT.601".
    "FORMAT": "BGR",
    # Masks of the ground truth: "polygon", or "bitmask" (costs memory, takes RLE, too).
    "MASK_FORMAT": "polygon",
    # Length of the shorter edge after resizing, in pixels. While training one of the values is
    # taken with "choice", any between the two with "range"; 0 switches resizing off in testing.
    "MIN_SIZE_TRAIN": (800,),
    "MIN_SIZE_TRAIN_SAMPLING": "choice",
    "MIN_SIZE_TEST": 800,
    # The longer edge gets no longer than this, in pixels.
    "MAX_SIZE_TRAIN": 1333,
    "MAX_SIZE_TEST": 1333,
    # Augmentation by flipping while training: "horizontal", "vertical" or "none".
    "RANDOM_FLIP": "horizontal",
    # Cropping while training, before anything else. TYPE says what SIZE (height, width) means:
    # "relative" and "relative_range" fractions of the image, the latter the least; "absolute" and
    # "absolute_range" pixels, the latter the least and the most of either side.
    "CROP": {"ENABLED": False, "TYPE": "relative_range", "SIZE": [0.9, 0.9]},
}

DATASETS = {
    # Registered names; several are concatenated for training, and tested one after another.
    "TRAIN": (),
    "TEST": (),
    # Files of precomputed proposals, one a dataset, read when MODEL.LOAD_PROPOSALS is set,
    # and how many of an image's best are taken.
    "PROPOSAL_FILES_TRAIN": (),
    "PROPOSAL_FILES_TEST": (),
    "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
    "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
}

DATALOADER = {
    # Processes that load data, for each process that trains.
    "NUM_WORKERS": 4,
    # "TrainingSampler", "RepeatFactorTrainingSampler" or "RandomSubsetTrainingSampler".
    "SAMPLER_TRAIN": "TrainingSampler",
    # Of the repeating sampler: categories in a smaller fraction of the images than this are
    # repeated, by the square root of the ratio unless REPEAT_SQRT is off.
    "REPEAT_THRESHOLD": 0.0,
    "REPEAT_SQRT": True,
    # A batch has wide images only, or tall ones only: less padding.
    "ASPECT_RATIO_GROUPING": True,
    # Leave images without annotations out of training.
    "FILTER_EMPTY_ANNOTATIONS": True,
}
