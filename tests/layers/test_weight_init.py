"""Initial weights, against fvcore's."""

import warnings

import pytest
import torch
from torch import nn

from detectron2.layers import _weight_init

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of scripts, which fvcore compiles
    from fvcore.nn import weight_init as of_fvcore


@pytest.mark.parametrize("name", ["c2_msra_fill", "c2_xavier_fill"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(6, 8, 3, groups=2),
        lambda: nn.Conv2d(6, 8, (1, 3), bias=False),
        lambda: nn.ConvTranspose2d(6, 8, 2),
        lambda: nn.Conv1d(6, 8, 1),
        lambda: nn.Linear(6, 8),
    ],
)
def test_numbers_are_those_of_fvcore(name, make):
    module, other = make(), make()
    torch.manual_seed(3)
    assert getattr(_weight_init, name)(module) is module
    after = torch.rand(1)
    torch.manual_seed(3)
    getattr(of_fvcore, name)(other)
    assert torch.rand(1) == after
    for tensor, wanted in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(tensor, wanted)
