"""A class that TorchScript can compile in the place of `Instances`.

TorchScript reads the source of classes, which must name the type of every attribute: the source is
written for the fields that there are.
"""

import itertools
import keyword
import linecache
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

import torch

from detectron2.structures import Instances

_numbers = itertools.count()

_CLASS = """\
class {name}:
    def __init__(self, image_size: Tuple[int, int]):
        self.image_size = image_size
{attributes}
    def __len__(self) -> int:
{lengths}
        raise NotImplementedError("Instances without fields have no length")

    def has(self, name: str) -> bool:
{presences}
        return False

    def to(self, device: torch.device) -> "{name}":
        result = {name}(self.image_size)
{moves}
        return result

    def __getitem__(self, item) -> "{name}":
        result = {name}(self.image_size)
{selections}
        return result

    def cat(self, instances: List["{name}"]) -> "{name}":
        if len(instances) == 0:
            raise ValueError("there must be at least one Instances to concatenate")
        result = {name}(instances[0].image_size)
{concatenations}
        return result

    def get_fields(self) -> Dict[str, Tensor]:
        result: Dict[str, Tensor] = {{}}
{tensors}
        return result
{properties}

# Here, where TorchScript finds the names of the types.
torch.jit.script({name})
"""

_PROPERTY = """
    @property
    def {field}(self) -> {type}:
        value = self._{field}
        assert value is not None, "there is no field {field} in these Instances"
        return value

    @{field}.setter
    def {field}(self, value: {type}) -> None:
        self._{field} = value
"""

# What is done with a field, if it is there, in the method that has this in its place.
_STATEMENTS = {
    "lengths": "return len({value})",
    "moves": "result._{field} = {value}.to(device)",
    "selections": "result._{field} = {value}[item]",
    "tensors": "result['{field}'] = {value}{tensor}",
}

_CONCATENATION = """\
        if instances[0]._{field} is not None:
            result._{field} = {joined}
"""


def _check_name(field: str) -> None:
    is_name = isinstance(field, str) and field.isidentifier() and not keyword.iskeyword(field)
    if not is_name or field.startswith("_") or hasattr(Instances, field):
        raise ValueError(f"{field!r} cannot be the name of a field of Instances")


def _source(name: str, fields: Mapping[str, Any], type_names: Mapping[str, str]) -> str:
    parts = dict.fromkeys(_STATEMENTS, "")
    attributes = presences = concatenations = properties = ""
    for i, (field, kind) in enumerate(fields.items()):
        type_name, is_tensor = type_names[field], kind is torch.Tensor
        # A local variable: the type of an attribute is not narrowed by a comparison.
        words = {"field": field, "value": f"x{i}", "tensor": "" if is_tensor else ".tensor"}
        for part, statement in _STATEMENTS.items():
            parts[part] += (
                f"        x{i} = self._{field}\n"
                f"        if x{i} is not None:\n"
                f"            {statement.format(**words)}\n"
            )
        none = f"torch.jit.annotate(Optional[{type_name}], None)"
        attributes += f"        self._{field} = {none}\n"
        presences += (
            f"        if name == '{field}':\n            return self._{field} is not None\n"
        )
        joined = f"torch.cat([x.{field}{words['tensor']} for x in instances])"
        concatenations += _CONCATENATION.format(
            field=field, joined=joined if is_tensor else f"{type_name}({joined})"
        )
        properties += _PROPERTY.format(field=field, type=type_name)
    return _CLASS.format(
        name=name,
        attributes=attributes,
        presences=presences,
        concatenations=concatenations,
        properties=properties,
        **parts,
    )


def _run(source: str, number: int, names: Mapping[str, Any]) -> types.ModuleType:
    """Make a module of source that exists in memory only, but can be inspected."""
    module = types.ModuleType(f"{__name__}_{number}")
    module.__file__ = f"<{module.__name__}>"
    linecache.cache[module.__file__] = (
        len(source),
        None,
        source.splitlines(keepends=True),
        module.__file__,
    )
    sys.modules[module.__name__] = module
    vars(module).update(names)
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def define_scripted_instances(fields: Mapping[str, Any]) -> type:
    """Define and compile such a class; see ``patch_instances``."""
    for field in fields:
        _check_name(field)
    number = next(_numbers)
    name = f"ScriptedInstances{number}"
    type_names = {
        field: "Tensor" if kind is torch.Tensor else f"Type{i}"
        for i, (field, kind) in enumerate(fields.items())
    }
    names: dict[str, Any] = {type_names[field]: kind for field, kind in fields.items()}
    names.update(torch=torch, Tensor=torch.Tensor)
    # Not the builtin types, which TorchScript of PyTorch 2.10 takes in signatures only.
    names.update(Dict=dict, List=list, Optional=typing.Optional, Tuple=tuple)
    scripted = getattr(_run(_source(name, fields, type_names), number, names), name)

    def from_instances(cls: type, instances: Instances) -> Any:
        """One of the class, with the fields of ``instances``.

        Raises:
            AttributeError: the class has no such field.
        """
        height, width = instances.image_size
        result = cls((int(height), int(width)))
        for field, value in instances.get_fields().items():
            if field not in fields:
                raise AttributeError(
                    f"there is no field {field!r} in the scripted class, only {sorted(fields)}"
                )
            setattr(result, field, value)
        return result

    # Only now: TorchScript would compile it.
    scripted.from_instances = classmethod(from_instances)
    return scripted


def clear_jit_caches() -> None:
    """Forget the compiled functions and types of modules: those with other `Instances` in them."""
    torch.jit._recursive.concrete_type_store.type_store.clear()
    torch.jit._recursive.concrete_type_store.methods_compiled.clear()
    torch.jit._state._jit_caching_layer.clear()
