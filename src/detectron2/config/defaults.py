"""Every key that a config can have, with its default; :func:`~detectron2.config.get_cfg` copies it.

A default's type is the key's type: see :class:`~detectron2.config.CfgNode`. The sections stand in
the ``_default_*`` modules beside this one.
"""

from detectron2.config import _default_backbone as _backbone
from detectron2.config import _default_data as _data
from detectron2.config import _default_heads as _heads
from detectron2.config import _default_training as _training
from detectron2.config.config import CfgNode as CN  # noqa: N817 (the name that projects import)

_MODEL = {
    # A name of META_ARCH_REGISTRY.
    "META_ARCHITECTURE": "GeneralizedRCNN",
    # Where the model is built: "cuda", "cuda:1", "cpu", ...
    "DEVICE": "cuda",
    # Path or URL of the checkpoint to start from; "": none.
    "WEIGHTS": "",
    # Predict masks of instances.
    "MASK_ON": False,
    # Predict keypoints of instances.
    "KEYPOINT_ON": False,
    # Read proposals from DATASETS.PROPOSAL_FILES_*.
    "LOAD_PROPOSALS": False,
    # Subtracted from each channel, in the order of INPUT.FORMAT.
    "PIXEL_MEAN": [103.530, 116.280, 123.675],
    # Divides each channel then; 1 because the backbones of Caffe take theirs into the first layer's
    # weights.
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": _backbone.BACKBONE,
    "RESNETS": _backbone.RESNETS,
    "FPN": _backbone.FPN,
    "ANCHOR_GENERATOR": _backbone.ANCHOR_GENERATOR,
    "PROPOSAL_GENERATOR": _heads.PROPOSAL_GENERATOR,
    "RPN": _heads.RPN,
    "ROI_HEADS": _heads.ROI_HEADS,
    "ROI_BOX_HEAD": _heads.ROI_BOX_HEAD,
    "ROI_BOX_CASCADE_HEAD": _heads.ROI_BOX_CASCADE_HEAD,
    "ROI_MASK_HEAD": _heads.ROI_MASK_HEAD,
    "ROI_KEYPOINT_HEAD": _heads.ROI_KEYPOINT_HEAD,
    "SEM_SEG_HEAD": _heads.SEM_SEG_HEAD,
    "PANOPTIC_FPN": _heads.PANOPTIC_FPN,
    "RETINANET": _heads.RETINANET,
}

_C = CN(
    {
        # Version of the keys' names; older files are upgraded by detectron2.config.upgrade_config.
        "VERSION": 2,
        "MODEL": _MODEL,
        "INPUT": _data.INPUT,
        "DATASETS": _data.DATASETS,
        "DATALOADER": _data.DATALOADER,
        "SOLVER": _training.SOLVER,
        "TEST": _training.TEST,
        # Where checkpoints, metrics and logs go.
        "OUTPUT_DIR": "./output",
        # Of every random number generator; negative: another one each time.
        "SEED": -1,
        # Let cuDNN time its algorithms: pays where shapes repeat.
        "CUDNN_BENCHMARK": False,
        # See torch.set_float32_matmul_precision; "": leave it.
        "FLOAT32_PRECISION": "",
        # Iterations from one picture of the training data to the next; 0: none.
        "VIS_PERIOD": 0,
        # For experiments that have no key of their own.
        "GLOBAL": {"HACK": 1.0},
    }
)

# Keys that upstream does not have, or has no default for: hidden until they are set.
for _name, _default in {
    # Of mixed precision: "float16" (with a loss scaler) or "bfloat16" (without).
    "SOLVER.AMP.DTYPE": "float16",
    # Of the exponential moving average of the weights, which is then evaluated; 0: none.
    "SOLVER.EMA_DECAY": 0.0,
    # Metric, such as "bbox/AP", whose best checkpoint is kept as model_best; "": none.
    "TEST.BEST_METRIC": "",
    # Which value of it is the best: "max" or "min".
    "TEST.BEST_METRIC_MODE": "max",
    # Evaluations without a better value of TEST.BEST_METRIC after which training ends; 0: never.
    "TEST.EARLY_STOPPING_PATIENCE": 0,
    # Of "RandomSubsetTrainingSampler": which part of the images it takes.
    "DATALOADER.RANDOM_SUBSET_RATIO": 1.0,
    # Of "WeightedTrainingSampler" and "WeightedCategoryTrainingSampler": pairs of a dataset's name
    # and how many times it is repeated.
    "DATASETS.TRAIN_REPEAT_FACTOR": [],
}.items():
    _C.register_optional_key(_name, _default)
