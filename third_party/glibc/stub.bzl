"""Stubs of glibc's libraries, to link against the oldest version of a function."""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library")

def glibc_stub(name, soname, functions, version = "GLIBC_2.2.5"):
    """A library to link against in which functions have their first x86-64 version.

    Args:
      name: of the cc_library.
      soname: of the library that has the functions at run time.
      functions: their names.
      version: the version node.
    """
    native.genrule(
        name = name + "_source",
        outs = [name + ".c"],
        cmd = "echo '{}' > $@".format(" ".join(["void {}(void) {{}}".format(f) for f in functions])),
    )
    native.genrule(
        name = name + "_versions",
        outs = [name + ".map"],
        cmd = "echo '{} {{ global: {}; local: *; }};' > $@".format(version, "; ".join(functions)),
    )
    library = name + "_stub.so"
    cc_binary(
        name = library,
        srcs = [":{}_source".format(name)],
        additional_linker_inputs = [":{}_versions".format(name)],
        # The functions have other types than the compiler knows them by, which does not matter here.
        copts = ["-fno-builtin", "-w"],
        linkopts = [
            "-nostdlib",
            "-Wl,-soname," + soname,
            "-Wl,--version-script=$(execpath :{}_versions)".format(name),
        ],
        linkshared = True,
        tags = ["manual"],
    )
    cc_library(
        name = name,
        additional_linker_inputs = [":" + library],
        linkopts = [
            "-Wl,--push-state,--as-needed",
            "$(execpath :{})".format(library),
            "-Wl,--pop-state",
        ],
    )
