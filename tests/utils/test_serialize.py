"""Functions that pickle does not take, taken to another process and back."""

import math
import pickle
import subprocess
import sys

import pytest

from detectron2.utils.serialize import PicklableWrapper

OFFSET = 10


def copy_of(obj: object) -> object:
    return pickle.loads(pickle.dumps(PicklableWrapper(obj)))


def test_forwards_calls_and_attributes() -> None:
    def function(a: int, *, b: int) -> int:
        return a - b

    function.tag = "t"
    wrapper = PicklableWrapper(PicklableWrapper(function))
    assert wrapper(5, b=3) == 2
    assert wrapper.tag == "t"
    assert wrapper._obj is function
    with pytest.raises(AttributeError, match="absent"):
        wrapper.absent  # noqa: B018


def test_globals_defaults_and_attributes() -> None:
    def function(a: int, b: int = 2, *, c: int = 3) -> float:
        """Add."""
        return math.floor(a + b + c + OFFSET)

    function.tag = "t"
    copy = copy_of(function)
    assert copy(1) == 16
    assert copy(1, 1, c=1) == 13
    assert (copy.__name__, copy.__doc__, copy.tag) == ("function", "Add.", "t")
    assert copy.__qualname__ == function.__qualname__
    assert copy.__annotations__ == function.__annotations__
    assert copy.__module__ == __name__


def test_names_used_only_by_inner_functions() -> None:
    assert copy_of(lambda values: [(lambda v: v + OFFSET)(v) for v in values])([1]) == [11]


def test_closures_share_their_cells() -> None:
    count = 5

    def increase() -> None:
        nonlocal count
        count += 1

    def read() -> int:
        return count

    increase_copy, read_copy = copy_of((increase, read))
    increase_copy()
    assert (read(), read_copy()) == (5, 6)


def test_recursion() -> None:
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    assert copy_of(factorial)(5) == 120


def test_empty_cell() -> None:
    def function(ask: bool) -> int:
        return late if ask else 1

    copy = copy_of(function)
    assert copy(False) == 1
    with pytest.raises(NameError):
        copy(True)
    late = 3
    assert function(True) == late


def test_inside_of_containers() -> None:
    assert copy_of({"f": [lambda x: x * 3]})["f"][0](2) == 6


def test_importable_functions_stay_themselves() -> None:
    assert copy_of(copy_of) is copy_of
    assert copy_of(math.sqrt) is math.sqrt


def test_class_of_a_function_needs_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local:
        pass

    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(pickle.PicklingError, match=r"Local.*cloudpickle"):
        pickle.dumps(PicklableWrapper(Local()))


def test_script_reaches_another_process() -> None:
    script = """
import pickle, sys
from detectron2.utils.serialize import PicklableWrapper
FACTOR = 7
def helper(x):
    return x * FACTOR
def function(x):
    return helper(x) + 1
sys.stdout.buffer.write(pickle.dumps(PicklableWrapper(function)))
"""
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert pickle.loads(data)(2) == 15
