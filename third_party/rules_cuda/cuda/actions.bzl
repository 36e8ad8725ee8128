"""Actions of the CUDA rules: compiling, device-linking and archiving."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@rules_cc//cc/common:cc_common.bzl", "cc_common")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load(":flags.bzl", "BuildSettingInfo")
load(":providers.bzl", "CudaArchsInfo", "CudaInfo")
load(":toolchain.bzl", "TOOLCHAIN_TYPE")

SOURCES = [".cu", ".cc", ".cpp", ".cxx", ".c"]
HEADERS = [".cuh", ".h", ".hh", ".hpp", ".hxx", ".inl", ".inc"]

def _host(flag):
    """Wraps an argument for the host compiler, in which nvcc would read a comma as a separator."""
    return "-Xcompiler=" + flag.replace(",", "\\,")

def _gencode(ctx):
    if ctx.attr.archs:
        return ["-gencode=arch={},code={}".format(a.replace("sm_", "compute_"), a) for a in ctx.attr.archs]
    return ctx.attr._archs[CudaArchsInfo].gencode

def cuda_context(ctx):
    """Collects what all actions of one target share.

    Args:
      ctx: of a rule that has the attributes of rules.bzl.

    Returns:
      a struct: the toolchains, the compilation context to compile with and to pass on, and the
      definitions to pass on.
    """
    if not ctx.attr._enable[BuildSettingInfo].value:
        fail("{} needs CUDA, which --@rules_cuda//cuda:enable=False has switched off".format(ctx.label))
    cc_toolchain = find_cpp_toolchain(ctx)
    toolchain = ctx.toolchains[TOOLCHAIN_TYPE].cuda
    defines = depset(
        ctx.attr.defines,
        transitive = [dep[CudaInfo].defines for dep in ctx.attr.deps if CudaInfo in dep],
    )
    root = ctx.label.workspace_root
    folder = "/".join([part for part in (root, ctx.label.package) if part])
    own = cc_common.create_compilation_context(
        headers = depset(ctx.files.hdrs),
        includes = depset([folder + "/" + path if path != "." else folder for path in ctx.attr.includes]),
        quote_includes = depset([root or "."]),
        defines = depset(ctx.attr.defines + ctx.attr.host_defines),
    )
    public = cc_common.merge_compilation_contexts(
        compilation_contexts = [own] + [dep[CcInfo].compilation_context for dep in ctx.attr.deps if CcInfo in dep],
    )
    return struct(
        cc_toolchain = cc_toolchain,
        compilation_context = public,
        defines = defines,
        features = cc_common.configure_features(
            ctx = ctx,
            cc_toolchain = cc_toolchain,
            requested_features = ctx.features,
            unsupported_features = ctx.disabled_features,
        ),
        toolchain = toolchain,
    )

def _compile_arguments(ctx, context, rdc):
    arguments = ctx.actions.args()
    compilation = context.compilation_context
    arguments.add("-ccbin", context.cc_toolchain.compiler_executable)

    # Unsandboxed, nvcc's temporary names carry its process id, and they end up in the object.
    arguments.add("-objtemp")
    arguments.add("-x", "cu")
    arguments.add(_host("-fPIC"))
    if rdc:
        arguments.add("-rdc=true")
    arguments.add_all(_gencode(ctx))
    if ctx.var["COMPILATION_MODE"] == "opt":
        arguments.add_all(["-O3", "-DNDEBUG"])
    elif ctx.var["COMPILATION_MODE"] == "dbg":
        arguments.add_all(["-O0", "-g", "-G"])
    arguments.add_all(compilation.quote_includes, format_each = "-I%s")
    arguments.add_all(compilation.includes, format_each = "-I%s")
    arguments.add_all(compilation.system_includes, before_each = "-isystem")
    arguments.add_all(depset(ctx.attr.local_defines, transitive = [context.defines, compilation.defines]), format_each = "-D%s")
    arguments.add_all([_host("-D" + define) for define in ctx.attr.host_local_defines])
    arguments.add_all(ctx.attr.ptxasopts, format_each = "-Xptxas=%s")
    arguments.add_all(ctx.attr._copts[BuildSettingInfo].value)
    arguments.add_all([_host(flag) for flag in ctx.attr._host_copts[BuildSettingInfo].value])
    arguments.add_all(ctx.attr.copts)
    arguments.add_all([_host(flag) for flag in ctx.attr.host_copts])
    return arguments

def _run_nvcc(ctx, context, mnemonic, arguments, inputs, output, message):
    ctx.actions.run(
        executable = context.toolchain.nvcc,
        arguments = arguments,
        inputs = depset(
            inputs,
            transitive = [
                context.compilation_context.headers,
                context.toolchain.compiler_files,
                context.cc_toolchain.all_files,
            ],
        ),
        outputs = [output],
        mnemonic = mnemonic,
        progress_message = message,
        # nvcc starts the host compiler by way of a shell's PATH.
        use_default_shell_env = True,
    )

def compile_sources(ctx, context, rdc):
    """Compiles every source of the target.

    Args:
      ctx: of the rule.
      context: from cuda_context().
      rdc: whether to generate relocatable device code.

    Returns:
      a list of position-independent objects.
    """
    objects = []
    private_headers = [file for file in ctx.files.srcs if "." + file.extension in HEADERS]
    for source in [file for file in ctx.files.srcs if "." + file.extension in SOURCES]:
        stem = source.short_path.replace("../", "external/").replace("/", "_")
        output = ctx.actions.declare_file("_cuda_objs/{}/{}.{}.o".format(ctx.label.name, stem, "rdc.pic" if rdc else "pic"))
        arguments = _compile_arguments(ctx, context, rdc)
        arguments.add("-c", source)
        arguments.add("-o", output)
        _run_nvcc(ctx, context, "CudaCompile", [arguments], [source] + private_headers, output, "Compiling " + source.short_path)
        objects.append(output)
    return objects

def device_link(ctx, context, rdc_objects):
    """Links relocatable device code into a program.

    Args:
      ctx: of the rule.
      context: from cuda_context().
      rdc_objects: depset of the objects.

    Returns:
      a host object that holds the device program.
    """
    output = ctx.actions.declare_file("_cuda_objs/{}/device_link.o".format(ctx.label.name))
    arguments = ctx.actions.args()
    arguments.add("-ccbin", context.cc_toolchain.compiler_executable)
    arguments.add_all(["-dlink", _host("-fPIC")])
    arguments.add_all(_gencode(ctx))
    arguments.add_all(ctx.attr.linkopts)
    arguments.add_all(rdc_objects)
    arguments.add("-o", output)
    _run_nvcc(ctx, context, "CudaDeviceLink", [arguments], rdc_objects.to_list(), output, "Device-linking " + str(ctx.label))
    return output

def archive(ctx, context, objects):
    """Makes the target's static library.

    Args:
      ctx: of the rule.
      context: from cuda_context().
      objects: list of position-independent objects.

    Returns:
      the linking context of the library, and its file, or None where there is nothing to archive.
    """
    linking_context, outputs = cc_common.create_linking_context_from_compilation_outputs(
        name = ctx.label.name,
        actions = ctx.actions,
        alwayslink = ctx.attr.alwayslink,
        cc_toolchain = context.cc_toolchain,
        # Position-independent code can be linked into anything: one compilation serves both uses.
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        disallow_dynamic_library = True,
        feature_configuration = context.features,
        linking_contexts = [
            dep[CcInfo].linking_context
            for dep in ctx.attr.deps + [ctx.attr._runtime]
            if CcInfo in dep
        ],
        user_link_flags = ctx.attr.host_linkopts,
    )
    library = outputs.library_to_link
    return linking_context, (library.pic_static_library if library else None)
