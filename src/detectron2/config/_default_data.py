"""Defaults of the sections ``INPUT``, ``DATASETS`` and ``DATALOADER``."""

INPUT = {
    # Channel order that the model expects: any mode of PIL, or "BGR", or "YUV-BT.601".
    "FORMAT": "BGR",
    # Masks of the ground truth: "polygon", or "bitmask" (costs memory, takes RLE, too).
    "MASK_FORMAT": "polygon",
    # Lengths of the shorter edge after resizing while training, in pixels.
    "MIN_SIZE_TRAIN": (800,),
    # "choice" takes one of the lengths, "range" any between the two.
    "MIN_SIZE_TRAIN_SAMPLING": "choice",
    # Length of the shorter edge after resizing in testing, in pixels; 0: no resizing.
    "MIN_SIZE_TEST": 800,
    # The longer edge gets no longer than this while training, in pixels.
    "MAX_SIZE_TRAIN": 1333,
    # The longer edge gets no longer than this in testing, in pixels.
    "MAX_SIZE_TEST": 1333,
    # Augmentation by flipping while training: "horizontal", "vertical" or "none".
    "RANDOM_FLIP": "horizontal",
    "CROP": {
        # Crop while training, before anything else.
        "ENABLED": False,
        # What SIZE means: "relative", the part of the image; "relative_range", the least part;
        # "absolute", pixels; "absolute_range", the least and the most pixels of either side.
        "TYPE": "relative_range",
        # Of the window: (height, width), or (least, most) for "absolute_range".
        "SIZE": [0.9, 0.9],
    },
}

DATASETS = {
    # Registered names; several are concatenated.
    "TRAIN": (),
    # Registered names; they are evaluated one after another.
    "TEST": (),
    # Files of precomputed proposals, one a dataset, read when MODEL.LOAD_PROPOSALS is set.
    "PROPOSAL_FILES_TRAIN": (),
    # The same for testing.
    "PROPOSAL_FILES_TEST": (),
    # Precomputed proposals taken of an image, the best, while training.
    "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
    # The same in testing.
    "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
}

DATALOADER = {
    # Processes that load data, for each process that trains.
    "NUM_WORKERS": 4,
    # "TrainingSampler", "RepeatFactorTrainingSampler", "WeightedTrainingSampler",
    # "WeightedCategoryTrainingSampler" or "RandomSubsetTrainingSampler".
    "SAMPLER_TRAIN": "TrainingSampler",
    # Of "RepeatFactorTrainingSampler" and "WeightedCategoryTrainingSampler": images with categories
    # that are in a smaller fraction of the images than this are repeated.
    "REPEAT_THRESHOLD": 0.0,
    # They are repeated by the square root of threshold / fraction, rather than by the ratio.
    "REPEAT_SQRT": True,
    # A batch has wide images only, or tall ones only: less padding.
    "ASPECT_RATIO_GROUPING": True,
    # Leave images without annotations out of training.
    "FILTER_EMPTY_ANNOTATIONS": True,
}
