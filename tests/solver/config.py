"""The part of a configuration that the solver reads, with the defaults."""

from types import SimpleNamespace


def config(clip=None, **solver):
    """``clip`` are keys of SOLVER.CLIP_GRADIENTS, the others of SOLVER."""
    clip_gradients = {
        "ENABLED": clip is not None,
        "CLIP_TYPE": "value",
        "CLIP_VALUE": 1.0,
        "NORM_TYPE": 2.0,
        **(clip or {}),
    }
    defaults = {
        "BASE_LR": 0.001,
        "BASE_LR_END": 0.0,
        "BIAS_LR_FACTOR": 1.0,
        "CLIP_GRADIENTS": SimpleNamespace(**clip_gradients),
        "GAMMA": 0.1,
        "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "MAX_ITER": 40000,
        "MOMENTUM": 0.9,
        "NESTEROV": False,
        "NUM_DECAYS": 3,
        "RESCALE_INTERVAL": False,
        "STEPS": (30000,),
        "WARMUP_FACTOR": 0.001,
        "WARMUP_ITERS": 1000,
        "WARMUP_METHOD": "linear",
        "WEIGHT_DECAY": 0.0001,
        "WEIGHT_DECAY_BIAS": None,
        "WEIGHT_DECAY_NORM": 0.0,
    }
    return SimpleNamespace(SOLVER=SimpleNamespace(**{**defaults, **solver}))
