"""Build settings of this project."""

# Real architectures (sm_NN) get machine code; a virtual one (compute_NN) gets PTX, which the driver
# compiles for GPUs that are newer than this list.
#
# sm_90 is compiled as sm_90a, whose instructions for warp groups all GPUs of compute capability 9.0
# have, and no others.
CUDA_ARCHS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_120"]

def _cuda_archs_flag_impl(ctx):
    for arch in ctx.build_setting_value:
        if arch not in CUDA_ARCHS:
            fail("{}: unknown architecture '{}'; known are {}".format(ctx.label, arch, ", ".join(CUDA_ARCHS)))
    return []

_cuda_archs_flag = rule(
    implementation = _cuda_archs_flag_impl,
    build_setting = config.string_list(flag = True),
)

def cuda_archs_flag(name):
    """The flag with the GPU architectures to compile for: --//:cuda_archs=sm_80,sm_90

    Args:
      name: of the flag; gencode_copts() reads it through the settings `<name>_<architecture>`.
    """
    _cuda_archs_flag(
        name = name,
        build_setting_default = CUDA_ARCHS,
        visibility = ["//visibility:public"],
    )
    for arch in CUDA_ARCHS:
        native.config_setting(
            name = "{}_{}".format(name, arch),
            flag_values = {":" + name: arch},
            visibility = ["//:__subpackages__"],
        )

def gencode_copts():
    """nvcc's -gencode options for --//:cuda_archs.

    Passed to each library rather than through a flag of rules_cuda, whose name and grammar differ
    between its releases and which a monorepo sets for its own kernels.

    Returns:
      options, to be used as (part of) copts.
    """
    copts = []
    for arch in CUDA_ARCHS:
        code = arch + "a" if arch == "sm_90" else arch
        virtual = "compute_" + code.split("_")[1]
        copts = copts + select({
            Label("//:cuda_archs_" + arch): ["-gencode=arch={},code={}".format(virtual, code)],
            "//conditions:default": [],
        })
    return copts
