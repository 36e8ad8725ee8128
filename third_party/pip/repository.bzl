"""Packages of a lock file as one site-packages folder."""

load("//third_party/python:repository.bzl", "find_python")

# The CUDA compiler's wheels: the build takes them one by one (//third_party/cuda), and nothing that
# is imported needs them.
CUDA_COMPILER = [
    "nvidia-cuda-cccl",
    "nvidia-cuda-crt",
    "nvidia-cuda-nvcc",
    "nvidia-nvvm",
]

_BUILD_HEADER = """\
load("@rules_python//python:defs.bzl", "py_library")

package(default_visibility = ["//visibility:public"])

# One folder, not a repository a wheel: torch finds its CUDA libraries in the folders beside its own,
# and a test's runfiles hold one link instead of fifty thousand.
py_library(
    name = "site_packages",
    data = ["site-packages"],
    imports = ["site-packages"],
)
"""

_ALIAS = """
alias(
    name = "{name}",
    actual = "{actual}",
)
"""

def locked_packages(repository_ctx, lock):
    """The packages in a lock file.

    Args:
      repository_ctx: of the calling repository rule.
      lock: label of the file.

    Returns:
      a list of normalised names.
    """
    return [
        line.split("==")[0].strip().lower().replace("_", "-").replace(".", "-")
        for line in repository_ctx.read(lock).splitlines()
        if "==" in line and not line.startswith((" ", "#", "-"))
    ]

def cache_folder(repository_ctx):
    """Where unpacked wheels are kept between workspaces and `bazel clean --expunge`.

    Args:
      repository_ctx: of the calling repository rule.

    Returns:
      a path, as a string.
    """
    environ = repository_ctx.os.environ
    if environ.get("DETECTRON2_NEO_CACHE"):
        return environ["DETECTRON2_NEO_CACHE"]
    base = environ.get("XDG_CACHE_HOME") or environ.get("HOME", "/tmp") + "/.cache"
    return base + "/detectron2_neo"

def install_wheels(repository_ctx, lock, packages, tree, bytecode = False):
    """Installs locked packages, with pip as the machine has it configured, into one folder.

    Args:
      repository_ctx: of the calling repository rule.
      lock: label of the lock file.
      packages: names of the packages to take from it.
      tree: path of the folder to make, in the repository.
      bytecode: whether to compile the modules.

    Returns:
      None, or why it failed, in one line.
    """
    programs = [
        repository_ctx.path(Label("//third_party/pip:" + program))
        for program in ("wheel_tree.py", "lock_file.py", "wheel_cache.py", "wheel_unpack.py")
    ]
    command = [
        find_python(repository_ctx),
        programs[0],
        "--lock",
        repository_ctx.path(lock),
        "--tree",
        tree,
        "--cache",
        cache_folder(repository_ctx),
    ]
    for package in packages:
        command += ["--package", package]
    if bytecode:
        command.append("--bytecode")
    repository_ctx.report_progress("installing " + ", ".join(packages[:3]) + (", …" if len(packages) > 3 else ""))
    done = repository_ctx.execute(command, quiet = True, timeout = 3600)
    return None if done.return_code == 0 else done.stderr.strip().splitlines()[-1]

def fail_with(repository_ctx, error):
    """Ends the build; bazelw repeats the error as its last line, where it is seen.

    Args:
      repository_ctx: of the calling repository rule.
      error: one line.
    """
    write = "mkdir -p \"$2\" && printf '%s\\n' \"$1\" > \"$2/error\""
    repository_ctx.execute(["sh", "-c", write, "sh", error, cache_folder(repository_ctx)])
    fail(error)

def _pip_packages_impl(repository_ctx):
    lock = repository_ctx.attr.requirements_lock
    packages = [
        name
        for name in locked_packages(repository_ctx, lock)
        if name not in CUDA_COMPILER
    ]
    error = install_wheels(repository_ctx, lock, packages, "site-packages", bytecode = True)
    if error:
        fail_with(repository_ctx, error)
    repository_ctx.file("BUILD.bazel", _BUILD_HEADER + "".join([
        _ALIAS.format(name = name, actual = ":site_packages")
        for name in packages
    ]))

pip_packages = repository_rule(
    implementation = _pip_packages_impl,
    doc = "`:site_packages`, and `:<package>` for each package of the lock (the same, by name).",
    attrs = {
        "requirements_lock": attr.label(mandatory = True, allow_single_file = True),
    },
    environ = ["PATH", "DETECTRON2_NEO_CACHE"],
)

def _pip_aliases_impl(repository_ctx):
    repository_ctx.file("BUILD.bazel", "package(default_visibility = [\"//visibility:public\"])\n" + "".join([
        _ALIAS.format(name = name, actual = actual)
        for name, actual in repository_ctx.attr.packages.items()
    ]))

pip_aliases = repository_rule(
    implementation = _pip_aliases_impl,
    doc = """\
For monorepos that have their packages from a hub of rules_python: declared as
`detectron2_neo_pip` before detectron2_neo_repositories(), it makes the library depend on the hub's
packages instead of installing a lock.
""",
    attrs = {
        "packages": attr.string_dict(
            doc = "package name, e.g. `torch`, to label, e.g. `@pip//torch`",
            mandatory = True,
        ),
    },
)
