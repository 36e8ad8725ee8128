"""WORKSPACE set-up of the CUDA toolchain."""

_BUILD = """\
load("@rules_cuda//cuda:toolchain.bzl", "cuda_toolchain")

cuda_toolchain(
    name = "nvcc_toolchain",
    compiler_files = ["{toolkit}//:compiler_files"],
    headers = "{toolkit}//:headers",
    nvcc = "{toolkit}//:nvcc",
)

toolchain(
    name = "toolchain",
    exec_compatible_with = ["@platforms//os:linux", "@platforms//cpu:x86_64"],
    target_compatible_with = ["@platforms//os:linux", "@platforms//cpu:x86_64"],
    toolchain = ":nvcc_toolchain",
    toolchain_type = "@rules_cuda//cuda:toolchain_type",
)

alias(
    name = "cuda_runtime_static",
    actual = "{toolkit}//:cudart_static",
    visibility = ["//visibility:public"],
)
"""

def _stand_in_toolchain_repository_impl(repository_ctx):
    repository_ctx.file("BUILD.bazel", _BUILD.format(toolkit = repository_ctx.attr.toolkit))

stand_in_toolchain_repository = repository_rule(
    implementation = _stand_in_toolchain_repository_impl,
    doc = "A toolchain (`:toolchain`) over a repository with nvcc, compiler_files, headers, cudart_static.",
    attrs = {
        "toolkit": attr.string(doc = "the toolkit's repository, e.g. `@my_cuda`", mandatory = True),
    },
)
