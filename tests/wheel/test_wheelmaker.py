"""third_party/rules_python/wheelmaker.py: the wheel that the `py_wheel` rule asks for."""

from __future__ import annotations

import base64
import email
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def wheelmaker(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("third_party/rules_python/wheelmaker.py")


class Inputs:
    """The files that the rule writes and passes, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: list[str] = []
        self.arguments = [
            *("--name", "some.name", "--version", "1.0", "--python_tag", "cp311", "--abi", "abi3"),
            *("--platform", "manylinux_2_28_x86_64", "--strip_path_prefix=src"),
            *("--metadata_file", self.write("metadata.txt", "Metadata-Version: 2.1\nName: x\n")),
        ]

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def add(self, name: str, text: str) -> None:
        self.listed.append(f"{name};{self.write(name.replace('/', '_'), text)}")

    def run(self, wheelmaker: ModuleType, *more: str) -> tuple[int, Path]:
        wheel = self.folder / "out.whl"
        listed = self.write("inputs.txt", "".join(f"{line}\n" for line in self.listed))
        outputs = ["--out", str(wheel), "--name_file", str(self.folder / "name")]
        code = wheelmaker.main([*self.arguments, *outputs, "--input_file_list", listed, *more])
        return code, wheel


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    inputs = Inputs(tmp_path)
    inputs.add("src/pkg/z.py", "Z = 1\n")
    inputs.add("src/pkg/_C.abi3.so", "not really")
    inputs.add("external/a,b.txt", "")
    return inputs


def test_layout_and_record(wheelmaker: ModuleType, inputs: Inputs) -> None:
    code, wheel = inputs.run(
        wheelmaker,
        *("--description_file", inputs.write("README.md", "# Title\n")),
        *("--entry_points_file", inputs.write("entry.txt", "[console_scripts]\na = b:c")),
        *("--extra_distinfo_file", f"LICENSE;{inputs.write('license', 'terms')}"),
    )
    assert code == 0
    info = "some.name-1.0.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        files = {entry.filename: archive.read(entry) for entry in entries}
    assert [entry.filename for entry in entries] == [
        *("external/a,b.txt", "pkg/_C.abi3.so", "pkg/z.py"),
        *(f"{info}/{name}" for name in ("LICENSE", "METADATA", "WHEEL", "entry_points.txt")),
        f"{info}/RECORD",
    ]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    modes = {entry.filename: entry.external_attr >> 16 for entry in entries}
    assert {name for name, mode in modes.items() if mode == 0o100755} == {"pkg/_C.abi3.so"}
    assert set(modes.values()) == {0o100755, 0o100644}

    digest = base64.urlsafe_b64encode(hashlib.sha256(b"Z = 1\n").digest()).decode().rstrip("=")
    record = files[f"{info}/RECORD"].decode().splitlines()
    assert f"pkg/z.py,sha256={digest},6" in record
    assert record[0].startswith('"external/a,b.txt",sha256=')
    assert record[-1] == f"{info}/RECORD,,"
    assert len(record) == len(entries)

    metadata = email.message_from_bytes(files[f"{info}/METADATA"])
    assert (metadata["Version"], metadata.get_payload()) == ("1.0", "# Title\n")
    assert files[f"{info}/entry_points.txt"] == b"[console_scripts]\na = b:c"
    name = (inputs.folder / "name").read_text()
    assert name == "some.name-1.0-cp311-abi3-manylinux_2_28_x86_64.whl"


def test_order_and_times_of_inputs_do_not_matter(wheelmaker: ModuleType, inputs: Inputs) -> None:
    first = inputs.run(wheelmaker)[1].read_bytes()
    # py_wheel's deps may list a file more than once.
    inputs.listed = [*reversed(inputs.listed), inputs.listed[0]]
    for path in inputs.folder.iterdir():
        os.utime(path, (1_500_000_000, 1_500_000_000))
        path.chmod(0o700)
    assert inputs.run(wheelmaker)[1].read_bytes() == first


def test_tags(wheelmaker: ModuleType) -> None:
    pure = email.message_from_string(wheelmaker.wheel_file("py2.py3", "none", "any"))
    assert pure["Root-Is-Purelib"] == "true"
    assert pure.get_all("Tag") == ["py2-none-any", "py3-none-any"]
    for abi, platform in (("abi3", "any"), ("none", "linux_x86_64")):
        binary = email.message_from_string(wheelmaker.wheel_file("cp311", abi, platform))
        assert binary["Root-Is-Purelib"] == "false"


def test_stamps(wheelmaker: ModuleType, inputs: Inputs) -> None:
    code, wheel = inputs.run(
        wheelmaker,
        *("--version", "1.0+{BUILD_EMBED_LABEL}.{BUILD_TIMESTAMP}"),
        *("--volatile_status_file", inputs.write("volatile.txt", "BUILD_TIMESTAMP 17\n")),
        *("--stable_status_file", inputs.write("stable.txt", "BUILD_EMBED_LABEL rc1\n")),
    )
    assert code == 0
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("some.name-1.0_rc1.17.dist-info/METADATA").decode()
    assert "\nVersion: 1.0+rc1.17\n" in metadata


@pytest.mark.parametrize("name", ["src/../../escape", "/etc/escape"])
def test_refuses_paths_outside_of_the_wheel(
    wheelmaker: ModuleType, inputs: Inputs, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs.add(name, "")
    code, wheel = inputs.run(wheelmaker)
    assert code == 1
    assert not wheel.exists()
    assert "outside of the wheel" in capsys.readouterr().err


def test_refuses_two_files_for_one_path(
    wheelmaker: ModuleType, inputs: Inputs, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs.add("pkg/z.py", "Z = 2\n")
    assert inputs.run(wheelmaker)[0] == 1
    assert "two different files for pkg/z.py" in capsys.readouterr().err
