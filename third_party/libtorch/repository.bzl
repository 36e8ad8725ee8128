"""libtorch as pip provides it: the headers to compile against and the libraries to link against."""

load("//third_party/pip:repository.bzl", "cache_folder", "fail_with", "install_wheels", "locked_packages")
load("//third_party/python:repository.bzl", "find_python")

_BUILD = """\
load("@rules_cc//cc:defs.bzl", "cc_library")

package(default_visibility = ["//visibility:public"])

# The stable ABI and nothing else: a binding that includes any other header of torch does not compile.
cc_library(
    name = "stable_headers",
    hdrs = glob([
        "wheels/torch/include/torch/csrc/stable/**",
        "wheels/torch/include/torch/headeronly/**",
        "wheels/torch/include/torch/csrc/inductor/aoti_torch/c/**",
        "wheels/torch/include/torch/csrc/inductor/aoti_torch/generated/**",
    ]),
    includes = ["wheels/torch/include"],
)

# The libraries are given to the linker as files. As libraries of a Bazel target they would leave
# their place in the sandbox in the extension's RPATH; where torch is, torch's own import knows.
# Every one is to be named as NEEDED, used or not: torch loads them privately, and a symbol is only
# found through an extension's own dependencies.
{libraries}
"""

_LIBRARY = """
cc_library(
    name = "{name}",
    additional_linker_inputs = {files},
    linkopts = [
        "-Wl,--push-state,--no-as-needed",
        {linkopts},
        "-Wl,--pop-state",
    ],
    deps = [":stable_headers"],
)
"""

def _library(name, libraries):
    files = ["wheels/torch/lib/{}.so".format(library) for library in libraries]
    return _LIBRARY.format(
        name = name,
        files = repr(files),
        linkopts = ", ".join([repr("$(execpath {})".format(file)) for file in files]),
    )

def _libtorch_from_wheel_impl(repository_ctx):
    lock = repository_ctx.attr.requirements_lock
    if "torch" not in locked_packages(repository_ctx, lock):
        fail("{} has no torch".format(lock))
    error = install_wheels(repository_ctx, lock, ["torch"], "wheels")
    if error:
        fail_with(repository_ctx, error)
    if not repository_ctx.path("wheels/torch/lib/libtorch_cuda.so").exists:
        fail_with(repository_ctx, "the torch of {} is CPU-only: the CUDA extension is linked against one with CUDA".format(lock))
    libraries = _library("torch_cpu", ["libtorch", "libtorch_cpu"])
    libraries += _library("torch_cuda", ["libtorch", "libtorch_cpu", "libtorch_cuda"])
    repository_ctx.file("BUILD.bazel", _BUILD.format(libraries = libraries))

libtorch_from_wheel = repository_rule(
    implementation = _libtorch_from_wheel_impl,
    doc = "`:stable_headers`, `:torch_cpu` and `:torch_cuda` from the torch wheel of a lock.",
    attrs = {
        "requirements_lock": attr.label(mandatory = True, allow_single_file = True),
    },
    environ = ["PATH", "DETECTRON2_NEO_CACHE"],
)

_RELEASES_BUILD = """\
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "symbols",
    srcs = glob(["symbols/*.txt"]),
)

# Empty where the machine's indexes have no CPU-only build.
filegroup(
    name = "cpu_only",
    srcs = glob(["cpu_only/site-packages"], exclude_directories = 0, allow_empty = True),
)
"""

def _torch_releases_impl(repository_ctx):
    # Run beside each other, found beside each other.
    programs = [
        repository_ctx.path(Label(program))
        for program in (
            "//third_party/libtorch:release_symbols.py",
            "//third_party/libtorch:dynamic_symbols.py",
            "//bazel/wheel:elf.py",
        )
    ]
    releases = repository_ctx.path(Label("//third_party/libtorch:supported_releases.txt"))
    repository_ctx.report_progress("listing the symbols of releases of torch")
    done = repository_ctx.execute(
        [find_python(repository_ctx), programs[0], "--releases", releases, "--out", "symbols"] +
        ["--cache", cache_folder(repository_ctx)],
        timeout = 3600,
    )
    if done.return_code:
        fail_with(repository_ctx, done.stderr.strip().splitlines()[-1])

    # No such build on the machine's indexes is no error: the test that wants it is skipped.
    lock = Label("//third_party/libtorch:cpu_only_release.txt")
    error = install_wheels(repository_ctx, lock, ["torch"], "cpu_only/site-packages")
    if error:
        # buildifier: disable=print
        print("no CPU-only torch to test beside: " + error)
    repository_ctx.file("BUILD.bazel", _RELEASES_BUILD)

torch_releases = repository_rule(
    implementation = _torch_releases_impl,
    doc = """\
Other releases of torch than the locked one, for tests: `:symbols`, the symbols that the oldest
and the newest supported release export, and `:cpu_only`, a CPU-only torch, if one is to be had.
""",
    environ = ["PATH", "DETECTRON2_NEO_CACHE"],
)
