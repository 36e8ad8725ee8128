"""Nested inputs and outputs as flat tuples of tensors, which is all that a trace can take and give.

``flatten_to_tuple`` gives the leaves, and a schema that puts them together again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.registry import _convert_target_to_string, locate

__all__ = [
    "DictSchema",
    "IdentitySchema",
    "InstancesSchema",
    "ListSchema",
    "Schema",
    "TensorWrapSchema",
    "TracingAdapter",
    "TupleSchema",
    "flatten_to_tuple",
]


@dataclass
class Schema:
    """How an object is made of leaves. Schemas of objects alike are equal."""

    @classmethod
    def flatten(cls, obj: Any) -> tuple[tuple[Any, ...], "Schema"]:
        """Take an object apart: its leaves, and its schema."""
        raise NotImplementedError(f"{cls.__name__} flattens nothing")

    def __call__(self, values: Sequence[Any]) -> Any:
        """Make an object like the one that was flattened, of as many leaves.

        Raises:
            ValueError: there are more or fewer leaves.
        """
        raise NotImplementedError(f"{type(self).__name__} makes nothing")


def _check_count(values: Sequence[Any], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"the schema is of {count} leaves, got {len(values)}")


@dataclass
class IdentitySchema(Schema):
    """Of a leaf."""

    @classmethod
    def flatten(cls, obj: Any) -> tuple[tuple[Any, ...], "IdentitySchema"]:
        return (obj,), cls()

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, 1)
        return values[0]


@dataclass
class ListSchema(Schema):
    """Of a list.

    Attributes:
        schemas: of each element.
        sizes: leaves of each element.
    """

    schemas: list[Schema]
    sizes: list[int]

    @staticmethod
    def _parts(elements: Sequence[Any]) -> tuple[tuple[Any, ...], list[Schema], list[int]]:
        leaves: list[Any] = []
        schemas, sizes = [], []
        for element in elements:
            its_leaves, schema = flatten_to_tuple(element)
            leaves.extend(its_leaves)
            schemas.append(schema)
            sizes.append(len(its_leaves))
        return tuple(leaves), schemas, sizes

    @classmethod
    def flatten(cls, obj: Sequence[Any]) -> tuple[tuple[Any, ...], "ListSchema"]:
        leaves, schemas, sizes = cls._parts(obj)
        return leaves, cls(schemas, sizes)

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, sum(self.sizes))
        elements, start = [], 0
        for schema, size in zip(self.schemas, self.sizes, strict=True):
            elements.append(schema(values[start : start + size]))
            start += size
        return elements


@dataclass
class TupleSchema(ListSchema):
    """Of a tuple."""

    def __call__(self, values: Sequence[Any]) -> Any:
        return tuple(super().__call__(values))


@dataclass
class DictSchema(ListSchema):
    """Of a mapping, by sorted keys.

    Attributes:
        keys: of the elements.
    """

    keys: list[str]

    @classmethod
    def flatten(cls, obj: Mapping[str, Any]) -> tuple[tuple[Any, ...], "DictSchema"]:
        """
        Raises:
            KeyError: a key is not a string.
        """
        for key in obj:
            if not isinstance(key, str):
                raise KeyError(f"only dicts whose keys are strings can be flattened, got {key!r}")
        keys = sorted(obj)
        leaves, schemas, sizes = cls._parts([obj[key] for key in keys])
        return leaves, cls(schemas, sizes, keys)

    def __call__(self, values: Sequence[Any]) -> Any:
        return dict(zip(self.keys, super().__call__(values), strict=True))


@dataclass
class InstancesSchema(DictSchema):
    """Of `Instances`: the fields by sorted names, then the image size as one tensor ``(2,)``."""

    @classmethod
    def flatten(cls, obj: Instances) -> tuple[tuple[Any, ...], "InstancesSchema"]:
        leaves, of_fields = DictSchema.flatten(obj.get_fields())
        size = obj.image_size
        if not isinstance(size, torch.Tensor):
            size = _size_tensor(size)
        return (*leaves, size), cls(of_fields.schemas, of_fields.sizes, of_fields.keys)

    def __call__(self, values: Sequence[Any]) -> Instances:
        _check_count(values, sum(self.sizes) + 1)
        return Instances(values[-1], **super().__call__(values[:-1]))


def _size_tensor(size: Sequence[Any]) -> torch.Tensor:
    """Sides as int64 ``(2,)``; those that are part of a graph stay so."""
    if torch.compiler.is_compiling():
        return torch.stack([torch.full((), side, dtype=torch.int64) for side in size])
    return torch.stack([torch.as_tensor(side) for side in size])


@dataclass
class TensorWrapSchema(Schema):
    """Of an object around one tensor, its attribute ``tensor``.

    Attributes:
        class_name: full name of the class, which is called with the tensor.
    """

    class_name: str

    @classmethod
    def flatten(cls, obj: Any) -> tuple[tuple[Any, ...], "TensorWrapSchema"]:
        return (obj.tensor,), cls(_convert_target_to_string(type(obj)))

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, 1)
        return locate(self.class_name)(values[0])


# The first type that an object is of.
_SCHEMAS: tuple[tuple[type | tuple[type, ...], type[Schema]], ...] = (
    ((str, bytes), IdentitySchema),
    (list, ListSchema),
    (tuple, TupleSchema),
    (Mapping, DictSchema),
    (Instances, InstancesSchema),
    ((Boxes, ROIMasks), TensorWrapSchema),
)


def flatten_to_tuple(obj: Any) -> tuple[tuple[Any, ...], Schema]:
    """Flatten lists, tuples, mappings, `Instances`, `Boxes` and `ROIMasks`, however nested.

    Args:
        obj: the object. What is none of these is a leaf.

    Returns:
        The leaves, and the schema, which called with as many leaves makes such an object of them.

    Raises:
        KeyError: a mapping has a key that is not a string.
    """
    for kind, schema in _SCHEMAS:
        if isinstance(obj, kind):
            return schema.flatten(obj)
    return IdentitySchema.flatten(obj)


def _call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


class TracingAdapter(nn.Module):
    """A model as a module from tensors to tensors, for ``torch.jit.trace``.

        adapter = TracingAdapter(model, inputs)
        traced = torch.jit.trace(adapter, adapter.flattened_inputs)
        outputs = adapter.outputs_schema(traced(*flatten_to_tuple((other_inputs,))[0]))

    Attributes:
        model: without what wraps it for data-parallel training.
        inputs: the arguments, a tuple.
        flattened_inputs: their leaves, a tuple of tensors.
        inputs_schema: makes ``inputs`` of leaves; None if leaves that are no tensors were dropped.
        outputs_schema: makes the outputs of what :meth:`forward` returns; None before the first
            call.
    """

    flattened_inputs: tuple[torch.Tensor, ...] = None
    inputs_schema: Schema = None
    outputs_schema: Schema = None

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        inference_func: Callable[..., Any] | None = None,
        allow_non_tensor: bool = False,
    ) -> None:
        """
        Args:
            model: the model.
            inputs: its arguments, as a tuple; or the only one.
            inference_func: called with the model and the arguments, returns the outputs; None
                calls the model. A two-stage detector is traced without post-processing by
                ``lambda model, inputs: model.inference(inputs, do_postprocess=False)``.
            allow_non_tensor: leave out what is not a tensor among the leaves of inputs and
                outputs. Such inputs become constants: :meth:`forward` can only be called with
                ``flattened_inputs`` themselves. Of such outputs there is no schema.

        Raises:
            ValueError: a leaf of the inputs is not a tensor, without ``allow_non_tensor``.
        """
        super().__init__()
        parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
        self.model = model.module if isinstance(model, parallel) else model
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.inference_func = _call if inference_func is None else inference_func
        self.allow_non_tensor = allow_non_tensor
        self.flattened_inputs, self.inputs_schema = self._tensors_of(self.inputs, "input")

    def _tensors_of(self, obj: Any, kind: str) -> tuple[tuple[torch.Tensor, ...], Schema | None]:
        leaves, schema = flatten_to_tuple(obj)
        tensors = tuple(x for x in leaves if isinstance(x, torch.Tensor))
        if len(tensors) == len(leaves):
            return tensors, schema
        if not self.allow_non_tensor:
            other = next(x for x in leaves if not isinstance(x, torch.Tensor))
            raise ValueError(
                f"an {kind} of the model holds {other!r}, a {type(other).__name__}, and a trace "
                f"takes and gives tensors only; allow_non_tensor=True leaves it out"
            )
        return tensors, None

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Flat outputs of flat inputs, without gradients.

        Raises:
            ValueError: the inputs cannot be put together, an output is not a tensor, or the
                outputs are not like those of the first call.
        """
        with torch.no_grad(), patch_builtin_len():
            outputs = self.inference_func(self.model, *self._inputs_of(args))
            flattened_outputs, schema = self._tensors_of(outputs, "output")
        if self.outputs_schema is None:
            self.outputs_schema = schema
        elif schema != self.outputs_schema:
            raise ValueError(
                f"the outputs differ in structure from those of the first call: {schema} instead "
                f"of {self.outputs_schema}"
            )
        return flattened_outputs

    def _inputs_of(self, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        if self.inputs_schema is not None:
            return self.inputs_schema(args)
        same = len(args) == len(self.flattened_inputs) and all(
            x is y for x, y in zip(args, self.flattened_inputs, strict=True)
        )
        if not same:
            raise ValueError(
                "the inputs hold more than tensors, so that the adapter can be called with its "
                "flattened_inputs only"
            )
        return self.inputs
