"""Stubs of glibc's libraries, to link against the oldest version of a function."""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library")

# The first release of glibc for x86-64.
_FIRST = "GLIBC_2.2.5"

def glibc_stub(name, soname, functions, newer = {}):
    """A library to link against in which functions have their first x86-64 version.

    Args:
      name: of the cc_library.
      soname: of the library that has the functions at run time.
      functions: names of those that glibc has had from the start.
      newer: name to version of those that came later.
    """
    nodes = {_FIRST: functions}
    for function, version in newer.items():
        nodes.setdefault(version, []).append(function)
    native.genrule(
        name = name + "_source",
        outs = [name + ".c"],
        cmd = "echo '{}' > $@".format(" ".join(["void {}(void) {{}}".format(f) for f in functions + newer.keys()])),
    )
    native.genrule(
        name = name + "_versions",
        outs = [name + ".map"],
        cmd = "echo '{}' > $@".format(" ".join([
            "{} {{ global: {};{} }};".format(version, "; ".join(names), " local: *;" if version == _FIRST else "")
            for version, names in nodes.items()
        ])),
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
