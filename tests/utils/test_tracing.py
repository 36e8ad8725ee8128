"""Assertions in modules that torch.fx traces."""

import logging

import pytest
import torch
from torch import nn

from detectron2.utils.tracing import (
    assert_fx_safe,
    first_rows,
    is_exporting,
    is_fx_tracing,
    is_fx_tracing_legacy,
    tracing_current_exists,
)


class Checking(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert_fx_safe(x.shape[0] == 2, "expected two")
        return x + 1


def test_outside_of_a_trace() -> None:
    assert tracing_current_exists
    assert not is_fx_tracing()
    assert not is_fx_tracing_legacy()
    assert Checking()(torch.zeros(2)).tolist() == [1, 1]
    with pytest.raises(AssertionError, match="expected two"):
        Checking()(torch.zeros(3))
    with pytest.raises(AssertionError, match="no"):
        assert_fx_safe(torch.tensor(False), "no")


def test_traced_module_checks() -> None:
    traced = torch.fx.symbolic_trace(Checking())
    assert traced(torch.zeros(2)).tolist() == [1, 1]
    with pytest.raises(AssertionError, match="expected two"):
        traced(torch.zeros(3))


def test_inside_of_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    class Looking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((is_fx_tracing(), is_fx_tracing_legacy()))
            return x

    with caplog.at_level(logging.WARNING):
        torch.fx.symbolic_trace(Looking())
    assert seen == [(True, True)]
    assert not caplog.records


class Exported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if is_exporting() else x - 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_exporting_is_not_compiling() -> None:
    x = torch.zeros(2)
    torch._dynamo.reset()
    for model in (Exported(), torch.compile(Exported(), backend="eager", fullgraph=True)):
        assert model(x).tolist() == [-1, -1]
    for strict in (True, False):
        program = torch.export.export(Exported(), (x,), strict=strict)
        assert program.module()(x).tolist() == [1, 1]


class FirstPositives(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return first_rows(x[x > 0], 2)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_first_rows() -> None:
    inputs = torch.tensor([[1.0, -1, 2, 3], [-1, -1, 4, -1], [-1, -1, -1, -1]])
    model = FirstPositives()
    program = torch.export.export(model, (inputs[0],), strict=False)
    traced = torch.jit.trace(model, inputs[0])
    for function in (model, torch.jit.script(model), traced, program.module()):
        assert [function(x).tolist() for x in inputs] == [[1, 2], [4], []]
    # The ends of the program's slice: start in full, and stop by what tells the length.
    (ends,) = [x.args[2:] for x in program.graph.nodes if x.target is torch.ops.aten.slice.Tensor]
    assert ends[0] == 0
    assert isinstance(ends[1], torch.fx.Node)
