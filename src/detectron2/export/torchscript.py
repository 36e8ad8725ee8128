"""TorchScript of models that use `Instances`."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from detectron2.export.torchscript_patch import freeze_training_mode, patch_instances
from detectron2.utils.file_io import PathManager

__all__ = ["dump_torchscript_IR", "scripting_with_instances"]


def scripting_with_instances(model: nn.Module, fields: Mapping[str, Any]) -> torch.jit.ScriptModule:
    """Script a model in which `Instances` occur.

        fields = {"pred_boxes": Boxes, "scores": torch.Tensor, "pred_classes": torch.Tensor}
        script = scripting_with_instances(retinanet, fields)
        instances = script([{"image": image}])[0]
        instances.pred_boxes

    Scripts of two-stage detectors have no post-processing: call
    ``script.inference(inputs, do_postprocess=False)``.

    Args:
        model: in evaluation mode.
        fields: the type of each field that occurs in the model, by name, as for
            :func:`patch_instances`. A detector with proposals also needs ``proposal_boxes`` and
            ``objectness_logits``.

    Returns:
        The script. In place of `Instances` it gives objects of the class that
        :func:`patch_instances` yields.

    Raises:
        AssertionError: the model is in training mode.
    """
    assert not model.training, (
        "only a model in evaluation mode can be scripted with Instances, and this one is in "
        "training mode: call model.eval()"
    )
    with freeze_training_mode(model), patch_instances(fields):
        return torch.jit.script(model)


# The former name.
export_torchscript_with_instances = scripting_with_instances


def dump_torchscript_IR(model: torch.jit.ScriptModule, dir: str) -> None:  # noqa: N802
    """Write a traced or scripted model as text, to be read by people.

    Args:
        model: the script.
        dir: a folder, made where there is none. It receives ``model_ts_code.txt``, the code of
            the module and of those in it; ``model_ts_IR.txt``, their graphs;
            ``model_ts_IR_inlined.txt``, the one graph with everything in it; and ``model.txt``,
            the modules.

    Raises:
        TypeError: the model is neither traced nor scripted.
    """
    if not isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"expected a traced or scripted module, got {type(model).__name__}")
    PathManager.mkdirs(dir)
    code, graphs = [], []
    for name, module in model.named_modules():
        title = f"# {name or 'the model'}: {getattr(module, 'original_name', '')}\n"
        try:
            code.append(f"{title}{module.code}\n")
            graphs.append(f"{title}{module.graph}\n")
        except (AttributeError, RuntimeError):
            continue  # Containers, and what the script does not call, have no forward.
    texts = {
        "model_ts_code.txt": "".join(code),
        "model_ts_IR.txt": "".join(graphs),
        "model_ts_IR_inlined.txt": str(model.inlined_graph),
        "model.txt": str(model),
    }
    for name, text in texts.items():
        with PathManager.open(os.path.join(dir, name), "w") as f:
            f.write(text)
