"""What lets TorchScript compile models that Python runs as they are."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

from detectron2.export._scripted_instances import clear_jit_caches, define_scripted_instances
from detectron2.modeling.roi_heads import fast_rcnn, keypoint_head, mask_head
from detectron2.modeling.roi_heads.roi_heads import StandardROIHeads

# Code written for upstream imports one of these names from here.
from detectron2.structures import Boxes, Instances

__all__ = [
    "Boxes",
    "Instances",
    "freeze_training_mode",
    "patch_builtin_len",
    "patch_instances",
    "patch_nonscriptable_classes",
]


@contextmanager
def patch_instances(fields: Mapping[str, Any]) -> Iterator[type]:
    """Let TorchScript compile code that uses `Instances`, meanwhile.

    `Instances` stands there for a class with the given fields. It supports what can be typed: the
    constructor with an image size, the fields as attributes, ``image_size``, ``len``, ``has``,
    ``to``, indexing, ``get_fields`` and ``cat`` (of an instance, not of the class).

    Args:
        fields: type by name, such as ``{"pred_boxes": Boxes, "scores": torch.Tensor}``. Types
            other than tensors are script classes with ``__len__``, indexing and ``to``.

    Yields:
        That class. Its ``from_instances`` makes one of it of `Instances`, to call a script with.

    Raises:
        ValueError: a name is not one that a field can have.
        RuntimeError: in another such context.
    """
    if "_jit_override_qualname" in vars(Instances):
        raise RuntimeError("patch_instances cannot be nested")
    # Compiled functions are kept, and with them what Instances was at the time.
    clear_jit_caches()
    scripted = define_scripted_instances(fields)
    # Where this is set, TorchScript looks for the class of that name instead.
    Instances._jit_override_qualname = torch._jit_internal._qualified_name(scripted)
    try:
        yield scripted
    finally:
        del Instances._jit_override_qualname
        clear_jit_caches()


def _length(obj: Any) -> Any:
    return obj.__len__()


@contextmanager
def patch_builtin_len(modules: Any = ()) -> Iterator[None]:
    """Keep lengths of tensors, `Boxes` and `Instances` part of a trace, meanwhile.

    ``len`` makes an int of them, which a trace takes for a constant. In the modules of the box,
    mask and keypoint heads, and in the given ones, it returns what ``__len__`` does.

    Args:
        modules: module objects.
    """
    with ExitStack() as stack:
        for module in (fast_rcnn, mask_head, keypoint_head, *modules):
            stack.enter_context(mock.patch.object(module, "len", _length, create=True))
        yield


def patch_nonscriptable_classes() -> None:
    """Mark which RoI heads there are as constants, so that only those are compiled.

    Importing this module does it. Backbones need no change: they can be scripted as they are.
    """
    StandardROIHeads.__annotations__.update(
        mask_on=torch.jit.Final[bool], keypoint_on=torch.jit.Final[bool]
    )


patch_nonscriptable_classes()


@contextmanager
def freeze_training_mode(model: nn.Module) -> Iterator[None]:
    """Make ``training`` a constant for TorchScript, meanwhile, so that it compiles the branch for
    the mode that the model is in.

    Args:
        model: the classes of its modules are changed, but for those with ``__constants__``, which
            are PyTorch's own for the most part.
    """
    classes = {type(module) for module in model.modules()}
    classes = [cls for cls in classes if not hasattr(cls, "__constants__")]
    own = {cls: inspect.get_annotations(cls) for cls in classes}
    # TorchScript looks at those of the first base class only that has any.
    inherited = {cls: torch.jit._recursive.get_annotations(cls) for cls in classes}
    for cls in classes:
        cls.__annotations__ = {**inherited[cls], "training": torch.jit.Final[bool]}
    try:
        yield
    finally:
        for cls in classes:
            cls.__annotations__ = own[cls]
