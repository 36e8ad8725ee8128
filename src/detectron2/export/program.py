"""Models as programs of ``torch.export``: graphs that hold for images of any size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detectron2.export._leaf_names import leaf_names
from detectron2.export._predictions import predictions
from detectron2.export.flatten import Schema, TracingAdapter, flatten_to_tuple

__all__ = ["ExportedModel", "export_program"]


@dataclass(frozen=True)
class ExportedModel:
    """A program from tensors to tensors, and what they mean.

    Attributes:
        program: takes and returns flat tuples of tensors. ``torch.export.save`` writes it.
        inputs_schema: of the arguments, a tuple.
        outputs_schema: of the result.
        input_names: of the program's inputs, such as ``image``.
        output_names: of its outputs, such as ``pred_boxes``.
    """

    program: torch.export.ExportedProgram
    inputs_schema: Schema
    outputs_schema: Schema
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def flatten(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        """The program's inputs of arguments like those of the export.

        Raises:
            ValueError: they differ in structure from those.
        """
        leaves, schema = flatten_to_tuple(inputs)
        if schema != self.inputs_schema:
            raise ValueError(
                f"the inputs differ in structure from those of the export: {schema} instead of "
                f"{self.inputs_schema}"
            )
        return leaves

    def __call__(self, *inputs: Any) -> Any:
        """Run the program on arguments like those of the export; the result is like the model's.

        The image size of `Instances` in it is a tensor.

        Raises:
            ValueError: the arguments differ in structure from those of the export.
        """
        with torch.no_grad():
            return self.outputs_schema(self.program.module()(*self.flatten(*inputs)))


def export_program(
    model: nn.Module,
    inputs: Any,
    inference_func: Callable[..., Any] | None = None,
    *,
    dynamic_dims: Mapping[str, Sequence[int]] | None = None,
) -> ExportedModel:
    """Export a model with ``torch.export``, for any image size.

        exported = export_program(model, [{"image": image}])
        instances = exported([{"image": other_image}])[0]["instances"]
        torch.export.save(exported.program, "model.pt2")

    Some of its operators are this library's and torchvision's. So it runs where
    ``detectron2.layers`` is imported; in C++, where torchvision's library, ``_C_cpu.abi3.so`` and,
    for CUDA, ``_C_cuda.abi3.so`` are loaded (``dlopen``, without Python).

    Args:
        model: in evaluation mode, on the device that the program is to run on.
        inputs: its arguments, as a tuple; or the only one; all leaves are tensors, such as images
            ``(3, H, W)`` in the model's order of colours, from 0 to 255. Not their values but their
            shapes and dtypes count, and later inputs have the same dtypes. Both sides of an image
            must be longer than the coarsest stride of the model, 64 or 128 as a rule, in the
            example as later: the graph is none for a feature map of one location.
        inference_func: called with the model and the arguments, returns the outputs. None: what
            detectors predict before post-processing, in the pixels of the input, a dict for each
            image, with ``instances`` (``pred_masks`` are ``(N, 1, M, M)``, relative to the boxes,
            for :func:`detector_postprocess`) and, of a `PanopticFPN`, the logits ``sem_seg``; other
            models are called.
        dynamic_dims: of inputs by name (the key in their dict), the dimensions that may differ
            from the example. None: height and width of ``image``.

    Raises:
        AssertionError: the model is in training mode.
        ValueError: an input is not a tensor, an image is too small, ``dynamic_dims`` names an
            input that there is not.
    """
    assert not model.training, "only a model in evaluation mode can be exported: call model.eval()"
    if not isinstance(inputs, tuple):
        inputs = (inputs,)
    leaves, inputs_schema = flatten_to_tuple(inputs)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise ValueError(
                f"programs take tensors only, got {leaf!r}, a {type(leaf).__name__}, among the "
                f"inputs"
            )
    input_names = leaf_names(inputs_schema, "input")
    dims = {"image": (1, 2)} if dynamic_dims is None else dynamic_dims
    _check_image_sizes(model, input_names, leaves)
    shapes = _dynamic_shapes(input_names, dims, dynamic_dims is not None)

    adapter = TracingAdapter(model, inputs, inference_func or predictions).eval()
    with torch.no_grad():
        program = torch.export.export(adapter, leaves, dynamic_shapes=(shapes,), strict=False)
    outputs_schema = adapter.outputs_schema
    output_names = tuple(
        f"output.{name}" if name in input_names else name
        for name in leaf_names(outputs_schema, "output")
    )
    return ExportedModel(program, inputs_schema, outputs_schema, input_names, output_names)


def _key(name: str) -> str:
    """The key in its dict of an input with a name such as "0.image"."""
    return name.rpartition(".")[2]


def _dynamic_shapes(
    names: Sequence[str], dims: Mapping[str, Sequence[int]], must_exist: bool
) -> tuple[dict[int, Any], ...]:
    unknown = sorted(set(dims) - {_key(name) for name in names})
    if unknown and must_exist:
        raise ValueError(f"dynamic_dims names {unknown}, but the inputs are {list(names)}")
    return tuple(
        dict.fromkeys(dims.get(_key(name), ()), torch.export.Dim.DYNAMIC) for name in names
    )


def _check_image_sizes(
    model: nn.Module, names: Sequence[str], leaves: Sequence[torch.Tensor]
) -> None:
    backbone = getattr(model, "backbone", None)
    if not hasattr(backbone, "output_shape"):
        return
    stride = max(shape.stride or 1 for shape in backbone.output_shape().values())
    for name, leaf in zip(names, leaves, strict=True):
        if _key(name) == "image" and min(leaf.shape[-2:]) <= stride:
            raise ValueError(
                f"both sides of an image must be longer than {stride}, the model's coarsest "
                f"stride, got {leaf.shape[-2]} x {leaf.shape[-1]}"
            )
