"""Exported models compiled ahead of time, by AOTInductor."""

import os
from typing import Any

import torch

from detectron2.export.program import ExportedModel

__all__ = ["export_aoti"]


def export_aoti(
    exported: ExportedModel, path: str | os.PathLike, *, options: dict[str, Any] | None = None
) -> str:
    """Compile an exported model for its device and put it into a package.

        path = export_aoti(export_program(model, inputs), "model.pt2")
        compiled = torch._inductor.aoti_load_package(path)
        outputs = exported.outputs_schema(compiled(*exported.flatten(inputs)))

    The package's metadata, ``compiled.get_metadata()``, has the names of inputs and outputs,
    separated by commas, as ``input_names`` and ``output_names``. It runs where
    its operators are loaded, see :func:`export_program`.

    Args:
        exported: what ``export_program`` returned.
        path: the file to write, which ends in ``.pt2``.
        options: of the Inductor, as of ``torch._inductor.aoti_compile_and_package``. Of models
            with transposed convolutions ``layout_optimization`` is always off.

    Returns:
        The path.

    Raises:
        ValueError: the file's name has another ending.
    """
    if not os.fspath(path).endswith(".pt2"):
        raise ValueError(f"the name of a package ends in .pt2, got {os.fspath(path)!r}")
    names = {
        "input_names": ",".join(exported.input_names),
        "output_names": ",".join(exported.output_names),
    }
    options = dict(options or {})
    if _has_transposed_convolution(exported.program):
        # In channels-last layout, Inductor of PyTorch 2.14 reads their weights in the wrong order
        # on the CPU: the masks of a Mask R-CNN come out wrong, without an error.
        options["layout_optimization"] = False
    options["aot_inductor.metadata"] = {**options.get("aot_inductor.metadata", {}), **names}
    # Not with the package: the Inductor takes a while to import.
    import torch._inductor

    return torch._inductor.aoti_compile_and_package(
        exported.program, package_path=os.fspath(path), inductor_configs=options
    )


def _has_transposed_convolution(program: torch.export.ExportedProgram) -> bool:
    return any("conv_transpose" in str(node.target) for node in program.graph.nodes)
