"""Parameter groups: options by parameter, and merging."""

import pytest
import torch
from torch import nn

from detectron2 import solver
from detectron2.solver import build, get_default_optimizer_params
from detectron2.solver.build import _expand_param_groups, reduce_param_groups


class Net(nn.Module):
    """A convolution, norms, a shared layer, frozen parameters, and one of the root itself."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(3))
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.shared = self.body[0]
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.body[0].weight


ALL = {
    *("pos_embed", "conv.weight", "conv.bias", "norm.weight", "norm.bias"),
    *("body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "tied.bias"),
}


def options_by_name(model, groups):
    """{name: options}; each parameter is in one group only."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    result = {}
    for group in groups:
        options = {key: value for key, value in group.items() if key != "params"}
        for parameter in group["params"]:
            assert name_of[parameter] not in result
            result[name_of[parameter]] = options
    return result


def options_of(**kwargs):
    model = Net()
    return options_by_name(model, get_default_optimizer_params(model, **kwargs))


def test_trainable_parameters_are_in_one_group_in_order():
    model = Net()
    (group,) = get_default_optimizer_params(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert set(group) == {"params"}
    assert [id(p) for p in group["params"]] == [id(p) for p in trainable]
    assert set(options_of()) == ALL


def test_norm_layers_have_their_own_weight_decay():
    options = options_of(base_lr=0.1, weight_decay=0.01, weight_decay_norm=0.0)
    norms = {"norm.weight", "norm.bias", "body.1.weight", "body.1.bias"}
    for name in ALL:
        decay = 0.0 if name in norms else 0.01
        assert options[name] == {"lr": 0.1, "weight_decay": decay}


def test_biases_have_their_own_options_in_norm_layers_too():
    options = options_of(
        base_lr=0.1,
        weight_decay=0.01,
        weight_decay_norm=0.5,
        bias_lr_factor=2.0,
        weight_decay_bias=0.0,
    )
    assert options["norm.bias"] == options["conv.bias"] == {"lr": 0.2, "weight_decay": 0.0}
    assert options["norm.weight"] == {"lr": 0.1, "weight_decay": 0.5}
    assert options["conv.weight"] == {"lr": 0.1, "weight_decay": 0.01}


def test_overrides_go_by_the_last_part_of_the_name_and_win():
    options = options_of(
        base_lr=0.1,
        weight_decay=0.01,
        lr_factor_func=lambda name: 0.5,
        overrides={"pos_embed": {"weight_decay": 0.0, "lr": 7.0}, "bias": {"momentum": 0.0}},
    )
    assert options["pos_embed"] == {"lr": 7.0, "weight_decay": 0.0}
    assert options["norm.bias"] == {"lr": 0.05, "weight_decay": 0.01, "momentum": 0.0}


def test_the_factor_function_gets_full_names():
    names = []
    options = options_of(base_lr=1.0, lr_factor_func=lambda name: names.append(name) or len(name))
    assert set(names) == ALL
    assert all(options[name] == {"lr": len(name)} for name in ALL)


def test_the_callers_overrides_stay_as_they_were():
    overrides = {"pos_embed": {"lr": 1.0}}
    options_of(base_lr=1.0, bias_lr_factor=2.0, overrides=overrides)
    assert overrides == {"pos_embed": {"lr": 1.0}}
    # And so can be given again, which would otherwise be a conflict.
    options_of(base_lr=1.0, bias_lr_factor=2.0, overrides=overrides)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bias_lr_factor": 2.0}, r"bias_lr_factor=2\.0 needs base_lr"),
        ({"lr_factor_func": len}, "lr_factor_func needs base_lr"),
        (
            {"weight_decay_bias": 0.5, "overrides": {"bias": {"lr": 3.0}}},
            r"given twice.*0\.5.*3\.0",
        ),
    ],
)
def test_what_cannot_be_is_an_error(kwargs, message):
    with pytest.raises(ValueError, match=message):
        options_of(**kwargs)


def parameters(count):
    return [nn.Parameter(torch.zeros(1)) for _ in range(count)]


def test_groups_of_equal_options_merge_in_the_order_of_appearance():
    p = parameters(4)
    groups = reduce_param_groups(
        [
            {"params": [p[0], p[1]], "lr": 0.1, "betas": [0.9, 0.99]},
            {"params": [p[2]], "lr": 0.2},
            {"params": iter([p[3]]), "betas": [0.9, 0.99], "lr": 0.1},
        ]
    )
    assert groups == [
        {"params": [p[0], p[1], p[3]], "lr": 0.1, "betas": [0.9, 0.99]},
        {"params": [p[2]], "lr": 0.2},
    ]


def test_later_options_of_a_parameter_replace_earlier_ones():
    p = parameters(2)
    given = [
        {"params": p, "lr": 0.1, "weight_decay": 0.5},
        {"params": p[1], "lr": 0.2},
    ]
    expected = [
        {"params": [p[0]], "lr": 0.1, "weight_decay": 0.5},
        {"params": [p[1]], "lr": 0.2, "weight_decay": 0.5},
    ]
    assert _expand_param_groups(given) == reduce_param_groups(given) == expected
    assert given[0] == {"params": p, "lr": 0.1, "weight_decay": 0.5}


def test_names_stay_with_their_parameters():
    p = parameters(3)
    groups = reduce_param_groups(
        [
            {"params": [p[0], p[1]], "param_names": ["a", "b"], "lr": 0.1},
            {"params": [p[1]], "param_names": ["b"], "lr": 0.2},
            {"params": [p[2]], "param_names": ["c"], "lr": 0.1},
        ]
    )
    assert groups == [
        {"params": [p[0], p[2]], "param_names": ["a", "c"], "lr": 0.1},
        {"params": [p[1]], "param_names": ["b"], "lr": 0.2},
    ]
    optimizer = torch.optim.SGD(groups)
    assert [group["param_names"] for group in optimizer.param_groups] == [["a", "c"], ["b"]]
    with pytest.raises(ValueError, match="1 params with 2 param_names"):
        reduce_param_groups([{"params": [p[0]], "param_names": ["a", "b"]}])


def test_the_package_exports_what_it_says():
    assert solver.build is build
    assert all(hasattr(solver, name) for name in solver.__all__)
    assert solver.LRScheduler is torch.optim.lr_scheduler.LRScheduler
