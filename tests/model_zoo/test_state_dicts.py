"""Models have the tensors that published checkpoints have.

state_dicts.json describes, for each model, what Detectron2 builds: the numbers of parameters, in
all and trainable, and the parts of the state dict.
"""

import json
from pathlib import Path

import pytest
import torch

from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate

from .models import VARIANTS, build, parts

FACTS = json.loads(Path(__file__).with_name("state_dicts.json").read_text())


@pytest.mark.parametrize("name", FACTS["models"])
def test_state_dict(name: str) -> None:
    parameters, trainable, digests = FACTS["models"][name]
    wanted = [[digest, *FACTS["parts"][digest]] for digest in digests.split()]
    model = build(name)
    found = list(parts(model))
    differing = [part for part in found if list(part.summary()) not in wanted]
    summaries = [list(part.summary()) for part in found]
    assert summaries == wanted, "\n".join(line for part in differing for line in part.tensors)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    tensors = [*model.named_parameters(), *model.named_buffers()]
    assert not [name for name, tensor in tensors if not tensor.is_meta]


def test_facts_are_about_all_kinds_of_models() -> None:
    names = set(FACTS["models"])
    projects = {name for name in names if name.startswith(("ViTDet/", "MViTv2/"))}
    configs = {name for name in names if name.endswith((".yaml", ".py"))}
    assert names == configs | projects | set(VARIANTS)
    assert (len(configs), len(projects), len(VARIANTS)) == (118, 29, 20)


@pytest.mark.parametrize(
    "name",
    [
        "COCO-Detection/fcos_R_50_FPN_1x.py",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py",
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py",
        "common/models/mask_rcnn_vitdet.py",
    ],
)
def test_saved_configs_build_the_same_models(name: str, tmp_path: Path) -> None:
    file = str(tmp_path / "config.yaml")
    LazyConfig.save(model_zoo.get_config(name), file)
    with torch.device("meta"):
        model = instantiate(LazyConfig.load(file).model)
    digests = [part.summary()[0] for part in parts(model)]
    assert digests == FACTS["models"][name][2].split()
