"""The CUDA toolkit, put together from NVIDIA's wheels on the package index."""

load("//third_party/pip:repository.bzl", "CUDA_COMPILER", "fail_with", "install_wheels")

_WHEELS = CUDA_COMPILER + ["nvidia-cuda-runtime"]

# Where NVIDIA's CUDA 13 wheels put their files in site-packages: together, the layout of a toolkit.
_TOOLKIT = "wheels/nvidia/cu13"

# rules_cuda looks for these as an installed toolkit has them.
_LINKS = {
    "lib": "lib64",
    "lib/libcudart.so.13": "lib/libcudart.so",
}

# An archive with no members (rules_cuda links culibos beside the static runtime, which since
# CUDA 13 has it inside).
_EMPTY_ARCHIVE = "!<arch>\n"

_BUILD = """\
load("@rules_cc//cc:defs.bzl", "cc_import", "cc_library")

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "nvcc",
    srcs = ["{toolkit}/bin/nvcc"],
)

# What nvcc reads and runs while it compiles. CCCL (Thrust, CUB, libcu++) is a library of its own:
# thousands of files that most kernels don't include.
filegroup(
    name = "compiler_files",
    srcs = glob(
        [
            "{toolkit}/bin/**",
            "{toolkit}/include/**",
            "{toolkit}/nvvm/**",
        ],
        exclude = ["{toolkit}/include/cccl/**"],
    ),
)

cc_library(
    name = "cccl",
    hdrs = glob(["{toolkit}/include/cccl/**"]),
    includes = ["{toolkit}/include/cccl"],
)

cc_library(
    name = "headers",
    hdrs = glob(
        ["{toolkit}/include/**"],
        exclude = ["{toolkit}/include/cccl/**"],
    ),
    includes = ["{toolkit}/include"],
)

cc_import(
    name = "cudart_archive",
    static_library = "{toolkit}/lib/libcudart_static.a",
)

cc_library(
    name = "cudart_static",
    deps = [
        ":cudart_archive",
        "@{project}//third_party/glibc",
    ],
)

exports_files(["path.bzl"])
"""

def _cuda_from_wheels_impl(repository_ctx):
    lock = Label("//:requirements_lock.txt")
    error = install_wheels(repository_ctx, lock, _WHEELS, "wheels")
    if error:
        fail_with(repository_ctx, error)
    toolkit = repository_ctx.path(_TOOLKIT)
    for target, link in _LINKS.items():
        if not toolkit.get_child(link).exists:
            repository_ctx.symlink(toolkit.get_child(target), "{}/{}".format(_TOOLKIT, link))
    if not toolkit.get_child("lib/libculibos.a").exists:
        repository_ctx.file(_TOOLKIT + "/lib/libculibos.a", _EMPTY_ARCHIVE)

    # The release is a compile-time fact of the CUDA extension; crt's header states it.
    header = repository_ctx.read(toolkit.get_child("include/cuda_runtime_api.h"))
    version = header.split("#define CUDART_VERSION")[1].split("\n")[0].strip()
    repository_ctx.file(
        "path.bzl",
        "TOOLKIT_PATH = {}\nCUDART_VERSION = {}\n".format(repr(str(toolkit)), repr(version)),
    )
    repository_ctx.file("BUILD.bazel", _BUILD.format(
        project = Label("//:BUILD.bazel").workspace_name,
        toolkit = _TOOLKIT,
    ))

cuda_from_wheels = repository_rule(
    implementation = _cuda_from_wheels_impl,
    doc = """\
nvcc, its headers and the static runtime, of the versions in this project's lock.

`:nvcc` and `:compiler_files` for a toolchain, `:headers`, `:cccl` and `:cudart_static` as
cc_library, and `path.bzl` with the folder for rule sets that want an installed toolkit.
""",
    environ = ["PATH", "DETECTRON2_NEO_CACHE"],
)
