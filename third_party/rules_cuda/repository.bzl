"""The rule set @rules_cuda: the stand-in kept here, and the set-up of whichever one is used."""

_STAND_IN_FILES = {
    "cuda/BUILD.bazel": "cuda/cuda.BUILD",
    "cuda/actions.bzl": "cuda/actions.bzl",
    "cuda/defs.bzl": "cuda/defs.bzl",
    "cuda/flags.bzl": "cuda/flags.bzl",
    "cuda/providers.bzl": "cuda/providers.bzl",
    "cuda/repositories.bzl": "cuda/repositories.bzl",
    "cuda/rules.bzl": "cuda/rules.bzl",
    "cuda/toolchain.bzl": "cuda/toolchain.bzl",
}

def _rules_cuda_stand_in_impl(repository_ctx):
    for file, source in _STAND_IN_FILES.items():
        repository_ctx.symlink(Label("//third_party/rules_cuda:" + source), file)
    repository_ctx.file("WORKSPACE", "workspace(name = \"rules_cuda\")\n")

rules_cuda_stand_in = repository_rule(
    implementation = _rules_cuda_stand_in_impl,
    doc = "The subset of rules_cuda, under its load paths, that is written in this repository.",
)

# What each generation of rule sets wants to be told in a WORKSPACE. A load of a name that a file does
# not have is an error there, so the set-up is written after looking at the file.
_STAND_IN = """\
load("@rules_cuda//cuda:repositories.bzl", "stand_in_toolchain_repository")

def set_up_rules_cuda():
    stand_in_toolchain_repository(name = "cuda", toolkit = "@detectron2_neo_cuda")
    native.register_toolchains("@cuda//:toolchain")
"""

_RULES_CUDA_0_3 = """\
load("@detectron2_neo_cuda//:path.bzl", "TOOLKIT_PATH")
load("@rules_cuda//cuda:repositories.bzl", "rules_cuda_dependencies", "rules_cuda_toolchains")

def set_up_rules_cuda():
    rules_cuda_dependencies()
    rules_cuda_toolchains(toolkit_path = TOOLKIT_PATH, register_toolchains = True)
"""

_RULES_CUDA_0_2 = """\
load("@detectron2_neo_cuda//:path.bzl", "TOOLKIT_PATH")
load("@rules_cuda//cuda:repositories.bzl", "register_detected_cuda_toolchains", "rules_cuda_dependencies")

def set_up_rules_cuda():
    rules_cuda_dependencies(toolkit_path = TOOLKIT_PATH)
    register_detected_cuda_toolchains()
"""

_ALREADY_SET_UP = """\
def set_up_rules_cuda():
    pass
"""

_BUILD = """\
alias(
    name = "cudart_static",
    actual = "{cudart}",
    visibility = ["//visibility:public"],
)
"""

def _rules_cuda_setup_impl(repository_ctx):
    existing = repository_ctx.attr.existing_toolkit
    text = repository_ctx.read(repository_ctx.attr.repositories_bzl)
    if existing:
        setup = _ALREADY_SET_UP
    elif "stand_in_toolchain_repository" in text:
        setup = _STAND_IN
    elif "rules_cuda_toolchains" in text:
        setup = _RULES_CUDA_0_3
    elif "register_detected_cuda_toolchains" in text:
        setup = _RULES_CUDA_0_2
    else:
        fail("@rules_cuda is of a generation that this project does not know (0.2 and 0.3 it does)")
    repository_ctx.file("setup.bzl", setup)

    # Compiler and runtime belong together: a monorepo's own toolkit brings its own runtime.
    cudart = "@{}//:cuda_runtime_static".format(existing) if existing else "@detectron2_neo_cuda//:cudart_static"
    repository_ctx.file("BUILD.bazel", _BUILD.format(cudart = cudart))

rules_cuda_setup = repository_rule(
    implementation = _rules_cuda_setup_impl,
    doc = "`setup.bzl` with set_up_rules_cuda(), and the CUDA runtime to link as `:cudart_static`.",
    attrs = {
        "existing_toolkit": attr.string(
            doc = "name of the toolkit repository that the workspace has declared itself, or empty",
        ),
        "repositories_bzl": attr.label(mandatory = True, allow_single_file = True),
    },
)
