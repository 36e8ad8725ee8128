"""The documentation: what is generated is up to date, code runs, links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import detectron2
from detectron2.config import CfgNode, get_cfg

ROOT = Path(os.environ.get("DETECTRON2_NEO_ROOT", Path(__file__).absolute().parents[2]))
DOCS = ROOT / "docs"
PACKAGE = Path(detectron2.__file__).parent


def program(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_up_to_date():
    text = program("generate_configuration").generate(PACKAGE / "config")
    assert (DOCS / "configuration.md").read_text() == text, (
        "python docs/generate_configuration.py writes it anew"
    )


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_the_configuration_reference_has_every_key():
    table = re.findall(
        r"^\| `([\w.]+)` \| `(.*?)` \| (.*) \|$", (DOCS / "configuration.md").read_text(), re.M
    )
    assert [name for name, _, meaning in table if not meaning] == []
    rows = [(name, default) for name, default, _ in table]
    documented = dict(rows)
    assert len(documented) == len(rows)
    for name, value in leaves(get_cfg()):
        assert eval(documented.pop(name)) == value, name
    assert len(documented) == 7
    for name in documented:
        *sections, key = name.split(".")
        node = get_cfg()
        for section in sections:
            node = node[section]
        assert eval(dict(rows)[name]) == getattr(node, key)


def test_the_api_reference():
    text = program("generate_api").generate(PACKAGE)
    assert re.search(r"^## detectron2\.structures$", text, re.M)
    assert re.search(
        r"^`nms_rotated\(boxes: [\w.]+, scores: [\w.]+, iou_threshold: float\)", text, re.M
    )
    assert "### class Boxes" in text
    assert "`Boxes.area() -> torch.Tensor`" in text
    # Described once, and named where it is public, too.
    assert text.count("### class Boxes\n\n```text") == 1
    assert "See `detectron2.structures.boxes.Boxes`." in text


@pytest.mark.parametrize("command", ["generate_api", "generate_configuration"])
def test_generators_import_nothing_of_the_package(command, tmp_path):
    """The build runs them with a bare Python."""
    out = tmp_path / "out.md"
    arguments = ["--package", str(PACKAGE), "--out", str(out)]
    subprocess.run([sys.executable, "-S", DOCS / f"{command}.py", *arguments], check=True)
    assert out.stat().st_size > 1000


def code_blocks(name, language):
    text = (DOCS / name).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def run_code(code, folder):
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_extending(tmp_path):
    code = "".join(code_blocks("extending.md", "python"))
    code += "\nprint('last iteration', trainer.iter, len(trainer.model.backbone.layers))\n"
    assert "last iteration" in run_code(code, tmp_path)
    assert (tmp_path / "output" / "model_final.pth").exists()


def test_the_code_of_howto(tmp_path):
    (child,) = code_blocks("howto.md", "yaml")
    (tmp_path / "child.yaml").write_text(child)
    code = "".join(code_blocks("howto.md", "python"))
    code += """
from detectron2.config import get_cfg

cfg = get_cfg()
add_my_config(cfg)
cfg.merge_from_file("child.yaml")
print(cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.MODEL.MY_HEAD.WIDTH, cfg.DATASETS.TRAIN)
"""
    assert run_code(code, tmp_path) == "0.001 3000 256 ('mine_train',)\n"


def test_links():
    # Bazel's copy has the documentation only.
    is_checkout = (ROOT / "WORKSPACE").exists()
    for document in sorted(DOCS.glob("*.md")):
        text = document.read_text()
        for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
            if is_checkout or not target.startswith("../"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_pictures_are_small():
    pictures = [path for path in (DOCS / "images").iterdir() if path.suffix in (".jpg", ".png")]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 100_000, picture.name
        assert any(picture.name in path.read_text() for path in DOCS.glob("*.md")), picture.name
