"""Where everything outside this repository comes from, second half: what the rule sets ask for."""

load("@detectron2_neo_rules_cuda_setup//:setup.bzl", "set_up_rules_cuda")
load("@rules_python//python:repositories.bzl", "py_repositories")

# buildifier: disable=unnamed-macro
def detectron2_neo_dependencies():
    """Loads the rule sets' own dependencies and registers the Python and CUDA toolchains."""
    py_repositories()
    set_up_rules_cuda()
    native.register_toolchains("@detectron2_neo_python//:toolchain")
