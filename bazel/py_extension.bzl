"""Python extension modules over libtorch."""

load("@rules_cc//cc:defs.bzl", "cc_binary")

# Options of the shared library that a py_extension is.
_LINKOPTS = [
    # No symbol table: it is most of the file, and what a debugger needs is not in an optimised build.
    "-Wl,-s",
    "-Wl,--gc-sections",
    # The id would be the only thing that differs where nothing else does.
    "-Wl,--build-id=none",
]

def _cudart_transition_impl(_settings, _attr):
    # Builds of a monorepo don't read this project's .bazelrc: see there.
    return {"@rules_cuda//cuda:runtime": Label("@detectron2_neo_rules_cuda_setup//:cudart_static")}

_cudart_transition = transition(
    implementation = _cudart_transition_impl,
    inputs = [],
    outputs = ["@rules_cuda//cuda:runtime"],
)

def _extension_module_impl(ctx):
    module = ctx.actions.declare_file(ctx.label.name + ".abi3.so")
    ctx.actions.symlink(output = module, target_file = ctx.file.library)
    return [DefaultInfo(
        files = depset([module]),
        runfiles = ctx.runfiles([module]),
    )]

_extension_module = rule(
    implementation = _extension_module_impl,
    attrs = {
        "library": attr.label(
            allow_single_file = True,
            cfg = _cudart_transition,
            mandatory = True,
        ),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)

def py_extension(name, deps, visibility = None):
    """A module `<name>.abi3.so` that CPython 3.11 and every later release can import.

    libtorch's libraries come through `deps`. Of the module's own symbols only PyInit_<name> is
    exported, so that nothing in it can be taken for another library's in the same process.

    Args:
      name: of the module.
      deps: cc_library targets.
      visibility: of the module.
    """
    exports = name + "_exports"
    native.genrule(
        name = exports,
        outs = [name + ".map"],
        cmd = "echo '{ global: PyInit_%s; local: *; };' > $@" % name,
    )
    library = "lib{}.so".format(name)
    cc_binary(
        name = library,
        additional_linker_inputs = [":" + exports],
        linkopts = _LINKOPTS + ["-Wl,--version-script=$(execpath :{})".format(exports)],
        linkshared = True,
        tags = ["manual"],
        deps = deps,
    )
    _extension_module(
        name = name,
        library = ":" + library,
        visibility = visibility,
    )
