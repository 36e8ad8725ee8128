"""Initial weights of convolutions and linear layers, as Caffe2 made them.

fvcore has functions of the same names that draw the same numbers; to import them is to compile its
scripted losses, which newer releases of PyTorch warn of.
"""

from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def c2_xavier_fill(module: _Module) -> _Module:
    """Draw the weight uniformly, with the variance 1 / (3 * fan-in), and set the bias to 0.

    Returns:
        The module itself.
    """
    nn.init.kaiming_uniform_(module.weight, a=1)
    return _without_bias(module)


def c2_msra_fill(module: _Module) -> _Module:
    """Draw the weight from a normal distribution of variance 2 / fan-out, and set the bias to 0.

    He et al., "Delving Deep into Rectifiers", ICCV 2015.

    Returns:
        The module itself.
    """
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return _without_bias(module)


def _without_bias(module: _Module) -> _Module:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
