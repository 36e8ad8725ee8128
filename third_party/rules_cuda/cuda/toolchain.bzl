"""The toolchain that the CUDA rules compile with."""

load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load(":providers.bzl", "CudaToolchainInfo")

TOOLCHAIN_TYPE = Label("//cuda:toolchain_type")

def _cuda_toolchain_impl(ctx):
    return platform_common.ToolchainInfo(
        cuda = CudaToolchainInfo(
            compiler_files = depset(transitive = [target[DefaultInfo].files for target in ctx.attr.compiler_files]),
            headers = ctx.attr.headers[CcInfo],
            nvcc = ctx.file.nvcc,
        ),
    )

cuda_toolchain = rule(
    implementation = _cuda_toolchain_impl,
    doc = "nvcc of one toolkit. Its host compiler is the C++ toolchain's.",
    attrs = {
        "compiler_files": attr.label_list(allow_files = True, cfg = "exec", mandatory = True),
        "headers": attr.label(mandatory = True, providers = [CcInfo]),
        "nvcc": attr.label(allow_single_file = True, cfg = "exec", mandatory = True),
    },
)
