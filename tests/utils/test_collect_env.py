"""The environment report, and the reader of architectures in compiled code."""

import importlib.util
import re
import struct
import subprocess
import sys

import pytest
import torch

import detectron2
from detectron2.utils import collect_env
from detectron2.utils._fatbin import cuda_architectures
from detectron2.utils.collect_env import (
    collect_env_info,
    collect_torch_env,
    detect_compute_compatibility,
    get_env_module,
)


def rows(report):
    """The table of a report as a dict."""
    table = report.split("\n-----")[0]
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines()[1:])


def test_report_names_versions_and_the_extension():
    report = collect_env_info()
    table = rows(report)
    assert table["Python"].startswith(sys.version.split(" ", 1)[0])
    assert table["PyTorch"].startswith(torch.__version__)
    assert table["detectron2"].startswith(detectron2.__version__)
    assert table["Compiler"].startswith(("GCC", "clang"))
    assert {"numpy", "torchvision", "fvcore", "iopath", "Pillow", "CUDA compiler"} <= set(table)
    assert report.endswith(collect_torch_env())


def test_report_tells_about_gpus():
    table = rows(collect_env_info())
    if torch.cuda.is_available():
        assert table["GPU available"] == "Yes"
        assert torch.cuda.get_device_name(0) in "".join(table.values())
    else:
        assert table["GPU available"].startswith("No")


def test_report_survives_an_extension_that_does_not_load(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2._C", None)
    assert rows(collect_env_info())["detectron2._C"].startswith("cannot be imported")


def test_report_survives_a_package_that_does_not_load(monkeypatch):
    def broken(name):
        raise OSError("no such library")

    monkeypatch.setattr(collect_env.importlib, "import_module", broken)
    assert collect_env._module_version("torchvision") == "cannot be imported: no such library"
    assert collect_env._module_version("not_a_package_of_any_kind") == "not installed"


def test_env_module_and_variables(monkeypatch):
    monkeypatch.delenv("DETECTRON2_ENV_MODULE", raising=False)
    assert get_env_module() == ("DETECTRON2_ENV_MODULE", "<not set>")
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", "some.module")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    table = rows(collect_env_info())
    assert table["DETECTRON2_ENV_MODULE"] == "some.module"
    assert table["NCCL_DEBUG"] == "INFO"


def test_runs_as_a_script():
    command = [sys.executable, "-W", "ignore", "-m", "detectron2.utils.collect_env"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"detectron2{' ' * 13}{detectron2.__version__}" in output


# ------------------------------------------------------------------------ architectures


def fat_binary(*entries):
    """One container with entries of (kind, architecture), as nvcc lays them out."""
    body = b""
    for kind, arch in entries:
        payload = b"\x11" * 24
        header = struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(payload), 0, 0, 0, 0, arch)
        body += header.ljust(64, b"\0") + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf_file(path, sections):
    """A 64-bit ELF file of the given sections and nothing else."""
    names, contents, headers = b"\0", b"", [bytes(64)]
    for name, data in [*sections.items(), (b".shstrtab", None)]:
        name_at = len(names)
        names += name + b"\0"
        data = names if data is None else data
        headers.append(
            struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, 64 + len(contents), len(data), 0, 0, 1, 0)
        )
        contents += data
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64 + len(contents), 0, 64, 0, 0, 64, len(headers),
        len(headers) - 1,
    )  # fmt: skip
    path.write_bytes(header + contents + b"".join(headers))
    return path


def test_architectures_of_several_containers(tmp_path):
    data = fat_binary((2, 90), (2, 75), (1, 120)) + bytes(8) + fat_binary((2, 120), (2, 90))
    path = elf_file(tmp_path / "lib.so", {b".text": b"code", b".nv_fatbin": data})
    assert cuda_architectures(path) == ["sm_75", "sm_90", "sm_120", "compute_120"]
    assert detect_compute_compatibility(None, str(path)) == "sm_75, sm_90, sm_120, compute_120"


def test_architectures_of_what_is_no_cuda_library(tmp_path):
    plain = elf_file(tmp_path / "plain.so", {b".text": b"code"})
    assert cuda_architectures(plain) == []
    assert detect_compute_compatibility(None, str(plain)) == "(no CUDA code)"
    broken = elf_file(tmp_path / "broken.so", {b".nv_fatbin": b"\x01" * 32})
    with pytest.raises(ValueError, match="fat binary magic 0x1010101"):
        cuda_architectures(broken)
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(ValueError, match="not a 64-bit"):
        cuda_architectures(text)
    assert detect_compute_compatibility(None, str(tmp_path / "none.so")).startswith("([Errno 2]")


def test_architectures_of_the_cuda_extension():
    spec = importlib.util.find_spec("detectron2._C_cuda")
    if spec is None:
        pytest.skip("built without CUDA")
    names = cuda_architectures(spec.origin)
    assert names
    assert all(re.fullmatch(r"(sm|compute)_\d{2,3}", name) for name in names)


@pytest.mark.gpu
def test_main_tries_each_gpu(capsys):
    collect_env.main()
    output = capsys.readouterr().out
    for index in range(torch.cuda.device_count()):
        assert f"A tensor on cuda:{index}: OK" in output
    if torch.cuda.device_count() > 1:
        assert "NCCL all_reduce" in output
    assert "failed" not in output.split("A tensor on")[1]
