"""The host's CPython 3.11 as a Bazel toolchain."""

_BUILD = """\
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

py_runtime(
    name = "runtime",
    interpreter_path = "{interpreter}",
    python_version = "PY3",
    # The default asks for a python3 on the PATH of actions, which may have none, or an old one.
    stub_shebang = "#!{interpreter}",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    exec_compatible_with = ["@platforms//os:linux", "@platforms//cpu:x86_64"],
    target_compatible_with = ["@platforms//os:linux", "@platforms//cpu:x86_64"],
    toolchain = ":runtime_pair",
    toolchain_type = "@rules_python//python:toolchain_type",
)
"""

def find_python(repository_ctx):
    """The path of the host's python3.11 itself, where what is on PATH may be a launcher of it.

    Args:
      repository_ctx: of the calling repository rule.

    Returns:
      an absolute path, as a string.
    """
    launcher = repository_ctx.which("python3.11")
    if not launcher:
        fail("no Python 3.11: install it so that python3.11 is on PATH")
    found = repository_ctx.execute([launcher, "-c", "import sys; print(sys.executable)"])
    if found.return_code:
        fail("{} does not run: {}".format(launcher, found.stderr))
    return found.stdout.strip()

def _host_python_impl(repository_ctx):
    repository_ctx.file("BUILD.bazel", _BUILD.format(interpreter = find_python(repository_ctx)))

host_python = repository_rule(
    implementation = _host_python_impl,
    configure = True,
    doc = "A Python toolchain (`:toolchain`) over the python3.11 on PATH.",
    environ = ["PATH"],
    local = True,
)
