"""Exported models as ONNX, through PyTorch's exporter."""

import importlib
import os
from typing import Any

import torch

from detectron2.export.program import ExportedModel

__all__ = ["export_onnx"]

# Of weights, in bytes.
_MOST_IN_FILE = 2**30


def export_onnx(
    exported: ExportedModel,
    path: str | os.PathLike | None = None,
    *,
    opset_version: int = 18,
    **kwargs: Any,
) -> Any:
    """Convert an exported model to ONNX. It needs the packages ``onnx`` and ``onnxscript``.

        export_onnx(export_program(model, [{"image": image}]), "model.onnx")
        session = onnxruntime.InferenceSession("model.onnx")
        outputs = session.run(["pred_boxes", "scores"], {"image": image.numpy()})

    The model has operators of ONNX only, NMS and RoIAlign among them, and its inputs and outputs
    have the names of ``exported``. NMS compares in float32. Weights are in the file itself, or from
    1 GiB on in another beside it, as a file of ONNX ends at 2 GiB.

    Args:
        exported: what ``export_program`` returned.
        path: the file to write; None: none.
        opset_version: of ONNX, 18 at least.
        **kwargs: further arguments of ``torch.onnx.export``.

    Returns:
        The ``torch.onnx.ONNXProgram``.

    Raises:
        ImportError: a package is missing.
        ValueError: the opset is older, or ONNX has no counterpart of an operator of the model:
            those of rotated boxes, of keypoints and of deformable convolutions.
    """
    for name in ("onnx", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"export to ONNX needs the package {name}") from error
    from detectron2.export._onnx_operators import translations

    if opset_version < 18:
        raise ValueError(f"the opset must be 18 or newer, got {opset_version}")
    table = translations()
    _check_operators(exported.program, table)
    kwargs.setdefault("external_data", _num_bytes(exported.program) >= _MOST_IN_FILE)
    return torch.onnx.export(
        exported.program,
        (),
        path,
        input_names=list(exported.input_names),
        output_names=list(exported.output_names),
        opset_version=opset_version,
        dynamo=True,
        custom_translation_table={**table, **kwargs.pop("custom_translation_table", {})},
        **kwargs,
    )


def _num_bytes(program: torch.export.ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(x.nbytes for x in tensors if isinstance(x, torch.Tensor))


def _check_operators(program: torch.export.ExportedProgram, table: dict[Any, Any]) -> None:
    own = {
        node.target
        for node in program.graph.nodes
        if getattr(node.target, "namespace", None) == "detectron2"
    }
    unknown = sorted(str(op) for op in own - set(table))
    if unknown:
        raise ValueError(f"ONNX has no counterpart of these operators of the model: {unknown}")
