"""The CUDA rules."""

load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load(":actions.bzl", "HEADERS", "SOURCES", "archive", "compile_sources", "cuda_context", "device_link")
load(":providers.bzl", "CudaInfo")
load(":toolchain.bzl", "TOOLCHAIN_TYPE")

_ATTRS = {
    "alwayslink": attr.bool(doc = "link all objects, also where nothing refers to them"),
    "archs": attr.string_list(doc = "e.g. `sm_90`; in place of --@rules_cuda//cuda:archs"),
    "copts": attr.string_list(doc = "options of nvcc"),
    "defines": attr.string_list(doc = "definitions for this target and its dependents"),
    "deps": attr.label_list(providers = [[CcInfo], [CudaInfo]]),
    "hdrs": attr.label_list(allow_files = HEADERS),
    "host_copts": attr.string_list(doc = "options of the host compiler"),
    "host_defines": attr.string_list(doc = "definitions for host code, and for C++ dependents"),
    "host_linkopts": attr.string_list(doc = "options of the host linker"),
    "host_local_defines": attr.string_list(doc = "definitions for this target's host code"),
    "includes": attr.string_list(doc = "include folders, for dependents too"),
    "linkopts": attr.string_list(doc = "options of the device linker"),
    "local_defines": attr.string_list(doc = "definitions for this target"),
    "ptxasopts": attr.string_list(doc = "options of ptxas"),
    "rdc": attr.bool(doc = "relocatable device code: kernels call device functions of other sources"),
    "srcs": attr.label_list(allow_files = SOURCES + HEADERS),
    "_archs": attr.label(default = "//cuda:archs"),
    "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    "_copts": attr.label(default = "//cuda:copts"),
    "_enable": attr.label(default = "//cuda:enable"),
    "_host_copts": attr.label(default = "//cuda:host_copts"),
    "_runtime": attr.label(default = "//cuda:runtime"),
}

def _dependency_objects(ctx, field):
    return [getattr(dep[CudaInfo], field) for dep in ctx.attr.deps if CudaInfo in dep]

def _info(context, objects, rdc_objects):
    return CudaInfo(
        defines = context.defines,
        objects = objects,
        pic_objects = objects,
        rdc_objects = rdc_objects,
        rdc_pic_objects = rdc_objects,
    )

def _output_groups(objects, rdc_objects, library = None):
    library = depset([library] if library else [])
    return OutputGroupInfo(
        lib = library,
        objects = objects,
        pic_lib = library,
        pic_objects = objects,
        rdc_objects = rdc_objects,
        rdc_pic_objects = rdc_objects,
    )

def _cuda_library_impl(ctx):
    context = cuda_context(ctx)
    compiled = compile_sources(ctx, context, ctx.attr.rdc)
    rdc_objects = depset(
        compiled if ctx.attr.rdc else [],
        transitive = _dependency_objects(ctx, "rdc_objects"),
    )
    objects = compiled
    if ctx.attr.rdc:
        objects = rdc_objects.to_list() + [device_link(ctx, context, rdc_objects)]
    linking_context, library = archive(ctx, context, objects)
    objects = depset(objects)

    # The device link took the dependencies' relocatable code in; it is not to be linked once more.
    remaining = depset() if ctx.attr.rdc else rdc_objects
    return [
        DefaultInfo(files = depset([library] if library else [])),
        CcInfo(compilation_context = context.compilation_context, linking_context = linking_context),
        _info(context, depset(), remaining),
        _output_groups(objects, remaining, library),
    ]

cuda_library = rule(
    implementation = _cuda_library_impl,
    doc = "A static library of device and host code.",
    attrs = _ATTRS,
    fragments = ["cpp"],
    toolchains = [TOOLCHAIN_TYPE, "@bazel_tools//tools/cpp:toolchain_type"],
)

def _cuda_objects_impl(ctx):
    context = cuda_context(ctx)
    compiled = depset(compile_sources(ctx, context, rdc = True))
    rdc_objects = depset(transitive = [compiled] + _dependency_objects(ctx, "rdc_objects"))
    return [
        DefaultInfo(files = compiled),
        CcInfo(compilation_context = context.compilation_context),
        _info(context, depset(), rdc_objects),
        _output_groups(compiled, rdc_objects),
    ]

cuda_objects = rule(
    implementation = _cuda_objects_impl,
    doc = "Relocatable device code for a cuda_library with rdc = True to device-link.",
    attrs = _ATTRS,
    fragments = ["cpp"],
    toolchains = [TOOLCHAIN_TYPE, "@bazel_tools//tools/cpp:toolchain_type"],
)
