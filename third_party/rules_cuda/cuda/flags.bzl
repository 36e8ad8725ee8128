"""Build settings of the CUDA rules."""

load(":providers.bzl", "CudaArchsInfo")

BuildSettingInfo = provider("The value of a build setting.", fields = ["value"])

def _value_impl(ctx):
    return BuildSettingInfo(value = ctx.build_setting_value)

bool_flag = rule(
    implementation = _value_impl,
    build_setting = config.bool(flag = True),
)

string_list_flag = rule(
    implementation = _value_impl,
    build_setting = config.string_list(flag = True, repeatable = True),
)

def _choice_impl(ctx):
    if ctx.build_setting_value not in ctx.attr.values:
        fail("{} must be one of {}, not {}".format(ctx.label, ctx.attr.values, ctx.build_setting_value))
    return BuildSettingInfo(value = ctx.build_setting_value)

string_choice_flag = rule(
    implementation = _choice_impl,
    build_setting = config.string(flag = True),
    attrs = {"values": attr.string_list(mandatory = True)},
)

def parse_archs(text):
    """Turns `compute_80:sm_80;compute_90:sm_90,compute_90` into -gencode arguments.

    Args:
      text: groups separated by `;`, each `virtual:real[,real|virtual...]`, or only a real
        architecture (`sm_90`), which is compiled from the virtual one of the same number.

    Returns:
      a list of strings.
    """
    gencode = []
    for group in text.split(";"):
        group = group.strip()
        if not group:
            continue
        virtual, colon, codes = group.partition(":")
        if not colon:
            codes = group
            virtual = "compute_" + group.split("_")[-1]
        if not virtual.startswith("compute_"):
            fail("{}: want compute_NN:sm_NN[,...], groups separated by ';'".format(text))
        gencode += [
            "-gencode=arch={},code={}".format(virtual, code.strip())
            for code in codes.split(",")
        ]
    return gencode

def _archs_impl(ctx):
    return CudaArchsInfo(gencode = parse_archs(ctx.build_setting_value))

cuda_archs_flag = rule(
    implementation = _archs_impl,
    build_setting = config.string(flag = True),
)
