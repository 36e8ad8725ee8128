"""The optimizer's parameter groups: which options each parameter of a model gets."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import nn

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of a model, in groups of equal options.

    ``torch.optim`` takes them as its parameters. An option that is left out here is the
    optimizer's own.

    Args:
        model: each of its parameters that requires a gradient is in one group; where modules share
            it, with the options it gets in the first of them.
        base_lr: learning rate.
        weight_decay: weight decay.
        weight_decay_norm: weight decay of the parameters of PyTorch's normalisation layers; None
            means the others'.
        bias_lr_factor: parameters named "bias" have ``base_lr`` times this.
        weight_decay_bias: weight decay of parameters named "bias", also in normalisation layers;
            None means the others'.
        lr_factor_func: takes a parameter's full name, like "backbone.res2.0.conv1.weight", and
            returns a factor of ``base_lr`` for it.
        overrides: options by the last part of parameters' names; they win over all others. For
            example ``{"pos_embed": {"weight_decay": 0.0}}``.

    Returns:
        Dictionaries with "params" and options, in the order of their first parameter.

    Raises:
        ValueError: a factor without a ``base_lr``, or "bias" in ``overrides`` beside options for
            biases.
    """
    overrides = _with_options_of_biases(overrides, base_lr, bias_lr_factor, weight_decay_bias)
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func needs base_lr")
    groups = []
    for module, name, parameter in _trainable_parameters(model):
        options: dict[str, float] = {}
        if base_lr is not None:
            options["lr"] = base_lr
            if lr_factor_func is not None:
                options["lr"] *= lr_factor_func(name)
        if weight_decay is not None:
            options["weight_decay"] = weight_decay
        if weight_decay_norm is not None and isinstance(module, _NORMS):
            options["weight_decay"] = weight_decay_norm
        options.update(overrides.get(name.rpartition(".")[2], {}))
        groups.append({"params": [parameter], **options})
    return reduce_param_groups(groups)


def _with_options_of_biases(
    overrides: dict[str, dict[str, float]] | None,
    base_lr: float | None,
    bias_lr_factor: float | None,
    weight_decay_bias: float | None,
) -> dict[str, dict[str, float]]:
    overrides = dict(overrides or {})
    of_biases: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        if base_lr is None:
            raise ValueError(f"bias_lr_factor={bias_lr_factor} needs base_lr")
        of_biases["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        of_biases["weight_decay"] = weight_decay_bias
    if of_biases:
        if "bias" in overrides:
            raise ValueError(
                f"options of biases are given twice: {of_biases} by bias_lr_factor and "
                f"weight_decay_bias, {overrides['bias']} by overrides"
            )
        overrides["bias"] = of_biases
    return overrides


def _trainable_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Each once, with the module that it belongs to and its full name."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, name, parameter


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge parameter groups that have the same options.

    Fewer and larger groups let optimizers work on many parameters at a time.

    Args:
        params: dictionaries as ``torch.optim`` takes them. A parameter may be in several: options
            in later ones are added to those in earlier ones, and replace them.

    Returns:
        One dictionary for each set of options, in the order of first appearance, with each
        parameter once and, if given, "param_names" in the parameters' order.
    """
    merged: dict[Hashable, dict[str, Any]] = {}
    for group in _expand_param_groups(params):
        lists = {key: group.pop(key) for key in ("params", "param_names") if key in group}
        key = tuple((name, _hashable(value)) for name, value in sorted(group.items()))
        into = merged.setdefault((tuple(lists), key), {**{name: [] for name in lists}, **group})
        for name, values in lists.items():
            into[name].extend(values)
    return list(merged.values())


def _expand_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One group for each parameter, with the options of all groups that it is in."""
    expanded: dict[torch.Tensor, dict[str, Any]] = {}
    for group in params:
        options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        members = group["params"]
        members = [members] if isinstance(members, torch.Tensor) else list(members)
        names = group.get("param_names")
        if names is not None and len(names) != len(members):
            raise ValueError(f"{len(members)} params with {len(names)} param_names: {names}")
        for index, parameter in enumerate(members):
            own = expanded.setdefault(parameter, {"params": [parameter]})
            own.update(options)
            if names is not None:
                own["param_names"] = [names[index]]
    return list(expanded.values())


def _hashable(value: Any) -> Hashable:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
