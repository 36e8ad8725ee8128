"""The instances of an image: what is known of each, field by field."""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["Instances"]


class Instances:
    """N instances of one image, as fields of length N: boxes, classes, scores, masks, ...

    A field is whatever has a length and can be indexed: a tensor ``(N, ...)``, a list, `Boxes`,
    `BitMasks`. Fields are attributes, set by assignment:

        instances = Instances((480, 640), gt_boxes=Boxes(...))
        instances.gt_classes = torch.tensor([0, 3])
        instances[instances.gt_classes == 3].gt_boxes

    Attributes whose names begin with an underscore are ordinary ones, not fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        """Args:
        image_size: (height, width) of the image.
        **kwargs: fields by name.
        """
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image; a tensor ``(2,)`` while tracing."""
        return self._image_size

    def __setattr__(self, name: str, val: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, val)
        elif hasattr(type(self), name):
            raise AttributeError(
                f"{name!r} cannot be assigned as a field: {type(self).__name__} has an attribute "
                f"of that name"
            )
        else:
            self.set(name, val)

    def __getattr__(self, name: str) -> Any:
        # `_fields` itself is missing while an object is being copied or unpickled.
        if name == "_fields" or name not in self._fields:
            known = [] if name == "_fields" else list(self._fields)
            raise AttributeError(f"there is no field {name!r} in these Instances, only {known}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field ``name``.

        Raises:
            ValueError: the length is not that of the other fields.
        """
        if self._fields:
            self._check_length(name, value)
        self._fields[name] = value

    def _check_length(self, name: str, value: Any) -> None:
        if torch.jit.is_tracing():
            # Lengths are compared as the numbers that they are in this run.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", torch.jit.TracerWarning)
                own_length, length = int(self.__len__()), len(value)
        elif torch.compiler.is_compiling():
            # A graph may have lengths that are known only when it runs: it checks them then.
            torch._check(value.__len__() == self.__len__())
            return
        else:
            own_length, length = len(self), len(value)
        if length != own_length:
            raise ValueError(
                f"the field {name!r} has the length {length}, but there are {own_length} instances"
            )

    def has(self, name: str) -> bool:
        """Whether there is a field ``name``."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Delete the field ``name``; KeyError if there is none."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """The field ``name``; KeyError if there is none."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields by name; changes to the dict are changes to the instances."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """New Instances, with ``to(*args, **kwargs)`` of each field that has such a method."""
        result = Instances(self._image_size)
        for name, value in self._fields.items():
            result._fields[name] = value.to(*args, **kwargs) if hasattr(value, "to") else value
        return result

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Instances":
        """Select instances, in every field.

        Args:
            item: an index, negative from the end, of which Instances of length 1 come back; or a
                slice, a bool mask ``(N,)`` or int64 indices. Anything else is passed to every
                field's own indexing.

        Raises:
            IndexError: an index out of range, or a mask of another length.
        """
        item = self._normalize_index(item)
        result = Instances(self._image_size)
        for name, value in self._fields.items():
            result._fields[name] = _select(value, item)
        return result

    def _normalize_index(self, item: Any) -> Any:
        """An int as a slice, a mask as indices: the device is waited for once, not by each field.

        On the CPU, too, the fields are selected faster by indices.
        """
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} instances")
            start = item + len(self) if item < 0 else item
            return slice(start, start + 1)
        if isinstance(item, torch.Tensor):
            if item.dim() == 0 and item.dtype != torch.bool:
                return item.reshape(1)
            # For PyTorch, uint8 is a mask, too, and for NumPy, and so for fields of its, indices.
            if item.dim() == 1 and item.dtype in (torch.bool, torch.uint8):
                # A trace would take the comparison for a constant, and warn.
                if not torch.jit.is_tracing() and item.size(0) != len(self):
                    raise IndexError(
                        f"a mask of length {item.size(0)} cannot index {len(self)} instances"
                    )
                return item.nonzero().squeeze(1)
        return item

    def __len__(self) -> int:
        for value in self._fields.values():
            # Not len(), which makes a constant of the length while tracing.
            return value.__len__()
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Instances cannot be iterated over: index them, or their fields")

    @staticmethod
    def cat(instance_lists: "list[Instances]") -> "Instances":
        """Concatenate Instances of the same image.

        Tensors are concatenated on their first dimension, lists are chained, and any other field
        is handed to the ``cat`` of its type.

        Args:
            instance_lists: at least one; the first one's fields are those of the result.

        Returns:
            The concatenation; of a single element, that element itself.

        Raises:
            TypeError: not a list of Instances.
            ValueError: an empty list, different image sizes, a field that one of them lacks or
                that cannot be concatenated.
        """
        if not isinstance(instance_lists, (list, tuple)):
            raise TypeError(f"expected a list of Instances, got {type(instance_lists).__name__}")
        other = [x for x in instance_lists if not isinstance(x, Instances)]
        if other:
            raise TypeError(f"expected a list of Instances, got one with {type(other[0]).__name__}")
        if not instance_lists:
            raise ValueError("there must be at least one Instances to concatenate, got []")
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first

        size = first._image_size
        # Sizes that a trace keeps as tensors are not compared: that would make constants of them.
        if not isinstance(size, torch.Tensor):
            other = [x._image_size for x in instance_lists if x._image_size != size]
            if other:
                raise ValueError(
                    f"Instances of different image sizes cannot be concatenated, got {size} and "
                    f"{other[0]}"
                )
        result = Instances(size)
        all_fields = [instances._fields for instances in instance_lists]
        for name in first._fields:
            try:
                values = [fields[name] for fields in all_fields]
            except KeyError:
                lacking = next(i for i, fields in enumerate(all_fields) if name not in fields)
                raise ValueError(
                    f"the field {name!r} is missing from number {lacking} of the "
                    f"{len(all_fields)} Instances"
                ) from None
            result._fields[name] = _concatenate(name, values)
        return result

    def __str__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        count = len(self) if self._fields else 0
        return (
            f"{type(self).__name__}(num_instances={count}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )

    __repr__ = __str__


def _select(value: Any, item: Any) -> Any:
    """``value[item]``, also for a list and an index that lists do not take."""
    if isinstance(value, np.ndarray) and isinstance(item, torch.Tensor):
        # Itself, a tensor of one element is an integer for NumPy, and drops the dimension.
        return value[item.cpu().numpy()]
    if not isinstance(value, (list, tuple)) or isinstance(item, slice):
        return value[item]
    chosen = torch.as_tensor(item)
    if chosen.dtype in (torch.bool, torch.uint8):
        if chosen.shape != (len(value),):
            raise IndexError(
                f"a mask of the shape {list(chosen.shape)} cannot index {len(value)} instances"
            )
        return type(value)(itertools.compress(value, chosen.tolist()))
    return type(value)([value[i] for i in chosen.tolist()])


def _concatenate(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values, dim=0)
    if isinstance(first, list):
        return list(itertools.chain.from_iterable(values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise ValueError(
        f"the field {name!r} cannot be concatenated: {type(first).__name__} is neither a tensor "
        f"nor a list and has no cat()"
    )
