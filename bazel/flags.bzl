"""Build settings of this project."""

# Real architectures (sm_NN) get machine code; a virtual one (compute_NN) gets PTX, which the driver
# compiles for GPUs that are newer than this list.
CUDA_ARCHS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_120"]

def _cuda_archs_flag_impl(ctx):
    for arch in ctx.build_setting_value:
        if arch not in CUDA_ARCHS:
            fail("{}: unknown architecture '{}'; known are {}".format(ctx.label, arch, ", ".join(CUDA_ARCHS)))
    return []

cuda_archs_flag = rule(
    implementation = _cuda_archs_flag_impl,
    doc = "The GPU architectures to compile for: --//:cuda_archs=sm_80,sm_90",
    build_setting = config.string_list(flag = True),
)

def cuda_archs_settings():
    """Declares one config_setting an architecture, for gencode_copts()."""
    for arch in CUDA_ARCHS:
        native.config_setting(
            name = "cuda_" + arch,
            flag_values = {":cuda_archs": arch},
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
        virtual = "compute_" + arch.split("_")[1]
        copts = copts + select({
            Label("//:cuda_" + arch): ["-gencode=arch={},code={}".format(virtual, arch)],
            "//conditions:default": [],
        })
    return copts
