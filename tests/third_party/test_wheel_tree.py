"""third_party/pip/wheel_tree.py: locked packages to one site-packages tree, offline."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(os.environ.get("DETECTRON2_NEO_ROOT", Path(__file__).absolute().parents[2]))
FOLDER = (ROOT / "third_party" / "pip").absolute()

# Stands in for the real setuptools: builds a wheel of the one module beside pyproject.toml.
BUILD_BACKEND = """
import zipfile

def _write(archive):
    archive.writestr("built-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: built\\nVersion: 1.0\\n")
    archive.writestr("built-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    archive.writestr("built-1.0.dist-info/RECORD", "")

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "built-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as archive:
        archive.write("built.py")
        _write(archive)
    return name
"""  # noqa: E501


def make_wheel(
    folder: Path, name: str, files: dict[str, str | bytes], version: str = "1.0"
) -> Path:
    """A wheel without RECORD entries, which pip's download does not look at."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def lock_line(file: Path, name: str, version: str = "1.0") -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    other = hashlib.sha256(b"the same version for another platform").hexdigest()
    return (
        f"{name}=={version} \\\n    --hash=sha256:{other} \\\n"
        f"    --hash=sha256:{digest}\n    # via -r requirements.in\n"
    )


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Workplace:
    """A folder with an index of wheels, a lock, a cache, and the program over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = folder / "index"
        self.cache = folder / "cache"
        self.lock = folder / "requirements_lock.txt"
        self.index.mkdir()
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PIP_", "PYTHON"))
        } | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(self.index),
            "PIP_NO_INDEX": "1",
        }

    def command(self, tree: str, *arguments: str) -> list[str]:
        paths = {"--lock": self.lock, "--tree": self.folder / tree, "--cache": self.cache}
        options = [text for pair in paths.items() for text in map(str, pair)]
        return [str(FOLDER / "wheel_tree.py"), *options, *arguments]

    def run(self, tree: str, *arguments: str, flags: tuple[str, ...] = (), **environment: str):
        return subprocess.run(
            [sys.executable, *flags, *self.command(tree, *arguments)],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, tree: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self.command(tree, *arguments)],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fail(self, *arguments: str, **options) -> str:
        """Runs, expects the one-line refusal, returns it."""
        result = self.run("refused", *arguments, **options)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert not (self.folder / "refused").exists()
        last = result.stderr.splitlines()[-1]
        assert last.startswith("wheel_tree: ")
        return last


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    return Workplace(tmp_path)


def test_merges_and_reuses_the_cache_without_an_index(workplace: Workplace) -> None:
    shared = {"common/__init__.py": ""}
    one = make_wheel(workplace.index, "One", {"common/one.py": "VALUE = 1\n", **shared})
    two = make_wheel(workplace.index, "two", {"common/two.py": "VALUE = 2\n", **shared})
    workplace.lock.write_text("# a lock\n" + lock_line(one, "One") + lock_line(two, "two"))

    result = workplace.run("all", "--bytecode")
    assert result.returncode == 0, result.stderr
    tree = workplace.folder / "all"
    values = "from common import one, two; print(one.VALUE + two.VALUE, one.__cached__)"
    output = subprocess.check_output(
        [sys.executable, "-B", "-c", values], env={"PYTHONPATH": str(tree)}, text=True
    )
    total, cached = output.split()
    assert total == "3"
    assert Path(cached).exists()

    for wheel in (one, two):
        wheel.unlink()
    second = workplace.run("only_two", "--package", "TWO", "--bytecode")
    assert second.returncode == 0, second.stderr
    assert "fetching" not in second.stderr
    other = workplace.folder / "only_two"
    assert (other / "common/two.py").samefile(tree / "common/two.py")
    bytecode = Path("common/__pycache__", Path(cached).name.replace("one", "two"))
    assert (other / bytecode).samefile(tree / bytecode)
    assert not (other / "common/one.py").exists()

    assert "exists already" in workplace.run("all").stderr


def test_killed_run_leaves_nothing_half_done(workplace: Workplace) -> None:
    wheel = make_wheel(workplace.index, "one", {"one.py": ""})
    workplace.lock.write_text(lock_line(wheel, "one"))
    killed = workplace.start("tree")
    assert killed.stderr.readline().startswith("fetching one==1.0")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stderr.close()
    assert not (workplace.folder / "tree").exists()

    # What other kills, and a damaged disk, may leave.
    stale = workplace.cache / "tmp" / "stale" / "tree"
    stale.mkdir(parents=True, exist_ok=True)
    (stale / "one.py").write_text("half")
    assert workplace.run("tree").returncode == 0
    assert not (workplace.cache / "tmp").exists()
    (index_file,) = (workplace.cache / "index").iterdir()
    for damage in (b"", b"\xff\xfe", b"../../..\n"):
        index_file.write_bytes(damage)
        wheel_is_fetched_again = workplace.run(f"tree{len(damage)}")
        assert "fetching" in wheel_is_fetched_again.stderr
        assert (workplace.folder / f"tree{len(damage)}" / "one.py").read_text() == ""


def test_concurrent_runs_share_one_download(workplace: Workplace) -> None:
    wheel = make_wheel(workplace.index, "one", {"one.py": ""})
    workplace.lock.write_text(lock_line(wheel, "one"))
    runs = [workplace.start(f"tree{number}") for number in range(2)]
    messages = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], messages
    assert sum("fetching" in message for message in messages) == 1


def test_refuses_a_file_that_the_lock_does_not_admit(workplace: Workplace) -> None:
    wheel = make_wheel(workplace.index, "one", {"one.py": ""})
    workplace.lock.write_text(lock_line(wheel, "one"))
    make_wheel(workplace.index, "one", {"one.py": "tampered = True\n"})
    message = workplace.fail()
    assert "hash mismatch" in message
    assert "one==1.0" in message


def test_builds_an_sdist_with_the_locked_tools(workplace: Workplace) -> None:
    tool = make_wheel(
        workplace.index,
        "setuptools",
        {"setuptools/__init__.py": "", "setuptools/build_meta.py": BUILD_BACKEND},
    )
    (workplace.folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    (workplace.folder / "built.py").write_text("VALUE = 7\n")
    sdist = workplace.index / "built-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("pyproject.toml", "built.py"):
            archive.add(workplace.folder / name, f"built-1.0/{name}")
    workplace.lock.write_text(lock_line(sdist, "built") + lock_line(tool, "setuptools"))

    result = workplace.run("tree", "--package", "built")
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (workplace.folder / "tree").iterdir()}
    assert names == {"built.py", "built-1.0.dist-info"}
    sdist.unlink()
    assert workplace.run("again", "--package", "built").returncode == 0


def test_says_what_is_wrong_in_one_line(workplace: Workplace) -> None:
    wheel = make_wheel(workplace.index, "one", {"one.py": ""})
    workplace.lock.write_text(lock_line(wheel, "one"))
    assert "absent, other-one" in workplace.fail("--package=absent", "--package=Other_One")
    no_site_packages = workplace.fail(flags=("-S",))
    assert "has no pip" in no_site_packages
    assert "ensurepip" in no_site_packages
    unreachable = workplace.fail(
        PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="1"
    )
    assert "one==1.0: the index cannot be reached" in unreachable
    wheel.unlink()
    assert "one==1.0: the index cannot be reached, or has no such file" in workplace.fail()
    workplace.lock.unlink()
    assert "cannot read the lock" in workplace.fail()


def test_refuses_packages_that_disagree_about_a_file(workplace: Workplace) -> None:
    one = make_wheel(workplace.index, "one", {"common.py": "A = 1\n"})
    two = make_wheel(workplace.index, "two", {"common.py": "A = 2\n"})
    workplace.lock.write_text(lock_line(one, "one") + lock_line(two, "two"))
    assert "common.py differs between one and two" in workplace.fail()
    assert not [path for path in workplace.folder.iterdir() if path.name.endswith(".tmp")]


def test_unpacks_data_folders_and_marks_programs(tmp_path: Path) -> None:
    elf = b"\x7fELF and more"
    wheel = make_wheel(
        tmp_path,
        "one",
        {
            "nvidia/cu13/bin/nvcc": elf,
            "nvidia/cu13/bin/nvcc.profile": "TOP = ..\n",
            "nvidia/cu13/lib/libone.so": elf,
            "one-1.0.data/purelib/one.py": "",
            "one-1.0.data/scripts/tool": "#!python\nprint(1)\n",
            "one-1.0.data/headers/one/one.h": "",
            "one-1.0.data/data/share/one.txt": "",
        },
    )
    with zipfile.ZipFile(wheel, "a") as archive:
        marked = zipfile.ZipInfo("one/helper")
        marked.external_attr = (stat.S_IFREG | 0o755) << 16
        archive.writestr(marked, "")
    load("wheel_unpack").unpack_wheel(wheel, tmp_path / "tree")
    files = {
        path.relative_to(tmp_path / "tree").as_posix(): bool(path.stat().st_mode & 0o100)
        for path in (tmp_path / "tree").rglob("*")
        if path.is_file() and ".dist-info" not in path.parts[-2]
    }
    assert files == {
        "nvidia/cu13/bin/nvcc": True,
        "nvidia/cu13/bin/nvcc.profile": False,
        "nvidia/cu13/lib/libone.so": False,
        "one.py": False,
        "bin/tool": True,
        "include/one/one.h": False,
        "share/one.txt": False,
        "one/helper": True,
    }
    assert (tmp_path / "tree/bin/tool").read_text() == "#!/usr/bin/env python3\nprint(1)\n"


@pytest.mark.parametrize("member", ["../escape.py", "/etc/escape", "one-1.0.data/unknown/x"])
def test_refuses_members_outside_of_the_tree(tmp_path: Path, member: str) -> None:
    wheel = make_wheel(tmp_path, "one", {member: ""})
    unpack = load("wheel_unpack")
    with pytest.raises(unpack.WheelError, match="member"):
        unpack.unpack_wheel(wheel, tmp_path / "tree")


def test_refuses_a_truncated_wheel(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "one", {"one.py": "A = 1\n" * 100})
    wheel.write_bytes(wheel.read_bytes()[:200])
    unpack = load("wheel_unpack")
    with pytest.raises(unpack.WheelError, match="not a sound wheel"):
        unpack.unpack_wheel(wheel, tmp_path / "tree")


HASH = "--hash=sha256:" + "0" * 64


def test_reads_markers_for_this_interpreter(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        f"A_b.c==1 ; python_version >= '3.9' and (sys_platform == '{sys.platform}') {HASH}\n"
        f"tool==1 ; python_full_version < '3.10' {HASH}\n"
        f"tool[extra]==2.0+cpu ; python_version >= '3.10' \\\n  {HASH}\n"
        f"other==1 ; extra == 'x' or 'win' in platform_system {HASH}  # not here\n"
    )
    pins = [package.pin for package in load("lock_file").read_lock(lock).values()]
    assert pins == ["a-b-c==1", "tool==2.0+cpu"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("one==1", "no --hash"),
        (f"one>=1 {HASH}", "not of the form"),
        ("--index-url=https://example.org", "not of the form"),
        ("one==1 --hash=sha256:00", "no sha256"),
        ("one==1 --hash=md5:00", "no sha256"),
        (f"one==1 {HASH} --pre", "options other than --hash"),
        (f"one==1 ; python_version ~= '3.9' {HASH}", "cannot evaluate"),
        (f"one==1 {HASH}\nOne==2 {HASH}", "locked twice"),
    ],
)
def test_refuses_what_is_not_pinned_and_hashed(tmp_path: Path, line: str, complaint: str) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(line + "\n")
    lock_file = load("lock_file")
    with pytest.raises(lock_file.LockError, match=complaint):
        lock_file.read_lock(lock)
