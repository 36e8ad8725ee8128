"""Models for use without their code, or without Python.

They are programs of ``torch.export`` (:func:`export_program`), which may be compiled by
AOTInductor (:func:`export_aoti`) or become ONNX (:func:`export_onnx`); or TorchScript, scripted
(:func:`scripting_with_instances`) or traced (:class:`TracingAdapter`).
"""

import warnings

from detectron2.config.config import CfgNode
from detectron2.export import flatten, torchscript, torchscript_patch
from detectron2.export.aoti import export_aoti
from detectron2.export.flatten import TracingAdapter
from detectron2.export.onnx import export_onnx
from detectron2.export.program import ExportedModel, export_program
from detectron2.export.torchscript import dump_torchscript_IR, scripting_with_instances

__all__ = [
    "STABLE_ONNX_OPSET_VERSION",
    "ExportedModel",
    "TracingAdapter",
    "add_export_config",
    "dump_torchscript_IR",
    "export_aoti",
    "export_onnx",
    "export_program",
    "flatten",
    "scripting_with_instances",
    "torchscript",
    "torchscript_patch",
    "warnings",
]

STABLE_ONNX_OPSET_VERSION = 11
"""The ONNX opset that code written for upstream asks for when it exports a trace."""


def add_export_config(cfg: CfgNode) -> CfgNode:
    """Return ``cfg`` as it is; deprecated, since export needs no options."""
    warnings.warn(
        "add_export_config does nothing, and need not be called", DeprecationWarning, stacklevel=2
    )
    return cfg
