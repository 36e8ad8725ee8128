"""Targets of native code: kernels, and the bindings that make dispatcher ops of them."""

load("@rules_cc//cc:defs.bzl", "cc_library")
load("@rules_cuda//cuda:defs.bzl", "cuda_library")
load(":flags.bzl", "gencode_copts")

# Options that decide what the compiler generates are stated in full: they come after the
# toolchain's own, and so the code is the same in every monorepo and every compilation mode.
_HOST_CODEGEN = [
    # Kernels are this library's purpose; a debug build of a monorepo must not slow them down.
    "-O3",
    "-g0",
    # Everything ends up in a shared library.
    "-fPIC",
    # An extension exports its PyInit function only (see py_extension).
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
    # The same results on every x86-64 processor: no fused multiply-add by the compiler's choice.
    "-ffp-contract=off",
    # Torch's header names its source file in messages; the path must not depend on the workspace.
    "-fmacro-prefix-map=external/detectron2_neo/=",
]

CXX_COPTS = ["-std=c++17"] + _HOST_CODEGEN + [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]

# The release whose stable ABI the bindings keep to: symbols and behaviour of PyTorch 2.10, on that
# release and every later one.
TORCH_DEFINES = ["TORCH_TARGET_VERSION=0x020a000000000000"]

# Switches torch's CUDA shims on in its headers.
TORCH_CUDA_DEFINES = TORCH_DEFINES + ["USE_CUDA"]

NVCC_COPTS = [
    "-std=c++17",
    "-O3",
    # Device code is most of the wheel's size.
    "-Xfatbin=-compress-all",
]

def kernel_library(name, srcs = [], hdrs = [], deps = []):
    """CPU code that includes no header of torch.

    Args:
      name: of the target.
      srcs: sources.
      hdrs: headers.
      deps: libraries whose headers these include.
    """
    cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = CXX_COPTS,
        deps = deps,
    )

def cuda_kernel_library(name, srcs, hdrs, deps = []):
    """CUDA code that includes no header of torch.

    Args:
      name: of the target.
      srcs: sources.
      hdrs: headers.
      deps: libraries whose headers these include.
    """
    cuda_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = NVCC_COPTS + gencode_copts(),
        host_copts = _HOST_CODEGEN,
        deps = deps,
    )

def torch_binding(name, srcs, deps, cuda = False):
    """Code that checks tensors, and registers ops with torch's dispatcher when it is loaded.

    Args:
      name: of the target.
      srcs: sources.
      deps: the kernels.
      cuda: whether it belongs to the CUDA extension.
    """
    cc_library(
        name = name,
        srcs = srcs,
        copts = CXX_COPTS,
        local_defines = TORCH_CUDA_DEFINES if cuda else TORCH_DEFINES,
        visibility = ["//csrc/extension:__pkg__"],
        deps = deps + [Label("//csrc/torch_abi:torch_abi_cuda" if cuda else "//csrc/torch_abi")],
        # Nothing refers to a registration: without this the linker leaves it out.
        alwayslink = True,
    )

def cuda_op(name, hdrs = [], deps = []):
    """An op with a CPU and a CUDA kernel, of the files that an op's folder holds.

    `<name>.h` declares the kernels of `<name>_cpu.cpp` and `<name>_cuda.cu`; `<name>_op.cpp` and
    `<name>_op_cuda.cpp` bind them, after the checks in `<name>_args.h`, as the targets `<name>_op`
    and `<name>_op_cuda`.

    Args:
      name: of the op.
      hdrs: further headers of the kernels.
      deps: headers that the kernels share with other ops.
    """
    hdrs = [name + ".h"] + hdrs
    kernel_library(
        name = name + "_cpu",
        srcs = [name + "_cpu.cpp"],
        hdrs = hdrs,
        deps = deps,
    )
    cuda_kernel_library(
        name = name + "_cuda",
        srcs = [name + "_cuda.cu"],
        hdrs = hdrs,
        deps = deps,
    )
    torch_binding(
        name = name + "_op",
        srcs = [
            name + "_args.h",
            name + "_op.cpp",
        ],
        deps = [":{}_cpu".format(name)],
    )
    torch_binding(
        name = name + "_op_cuda",
        srcs = [
            name + "_args.h",
            name + "_op_cuda.cpp",
        ],
        cuda = True,
        deps = [":{}_cuda".format(name)],
    )
