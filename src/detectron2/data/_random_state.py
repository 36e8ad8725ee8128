"""Random numbers that depend on which sample they are for, and on nothing else."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_numbers_of_sample(seed: int, position: int, seed_torch: bool = True) -> Iterator[int]:
    """Let the global generators give the numbers that belong to one sample of a training.

    ``random``, NumPy's and PyTorch's CPU generator are seeded inside, and outside go on as if
    nothing had happened.

    Args:
        seed: of the training.
        position: of the sample, counted over all processes.
        seed_torch: False leaves PyTorch's generator alone, for threads beside one that uses it.

    Yields:
        What they were seeded with.
    """
    # A hash that has no two neighbouring positions alike, as sums of seed and position would.
    sample_seed = int(np.random.SeedSequence((seed % 2**64, position)).generate_state(1)[0])
    states = random.getstate(), np.random.get_state()
    random.seed(sample_seed)
    np.random.seed(sample_seed)
    if seed_torch:
        torch_state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(sample_seed)
    try:
        yield sample_seed
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if seed_torch:
            torch.default_generator.set_state(torch_state)
