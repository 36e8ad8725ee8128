"""Where everything outside this repository comes from, first half: the repositories themselves.

A monorepo that builds @detectron2_neo calls, in its WORKSPACE,

    load("@detectron2_neo//third_party:repositories.bzl", "detectron2_neo_repositories")
    detectron2_neo_repositories(requirements_lock = "//:requirements_lock.txt")
    load("@detectron2_neo//third_party:dependencies.bzl", "detectron2_neo_dependencies")
    detectron2_neo_dependencies()

Every repository is declared with maybe(): one that the monorepo declared before wins.
"""

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")
load("@bazel_tools//tools/build_defs/repo:utils.bzl", "maybe")
load("//third_party/cuda:repository.bzl", "cuda_from_wheels")
load("//third_party/libtorch:repository.bzl", "libtorch_from_wheel", "torch_releases")
load("//third_party/pip:repository.bzl", "pip_packages")
load("//third_party/python:repository.bzl", "host_python")
load("//third_party/rules_cuda:repository.bzl", "rules_cuda_setup", "rules_cuda_stand_in")

def detectron2_neo_repositories(requirements_lock = Label("//:requirements_lock.txt")):
    """Declares the rule sets, Python, the pip packages, libtorch and the CUDA toolchain.

    Args:
      requirements_lock: the lock file whose torch, torchvision, numpy, ... the library runs with,
        and whose torch it is compiled against (2.10 or newer). The CUDA compiler's version is
        this repository's own.
    """
    maybe(
        http_archive,
        name = "rules_python",
        sha256 = "a5640fddd4beb03e8c1fde5ed7160c0ba6bd477e7d048661c30c06936a26fd63",
        strip_prefix = "rules_python-0.22.1",
        urls = [
            "https://github.com/bazelbuild/rules_python/releases/download/0.22.1/rules_python-0.22.1.tar.gz",
            "https://github.com/bazelbuild/rules_python/archive/refs/tags/0.22.1.tar.gz",
        ],
    )
    maybe(
        http_archive,
        name = "rules_cc",
        sha256 = "7e2a1f6c5dd908e6e88d7c80257c99d14e16fa985b56342287fddb6a32c435b5",
        strip_prefix = "rules_cc-0.0.11",
        urls = [
            "https://github.com/bazelbuild/rules_cc/archive/refs/tags/0.0.11.tar.gz",
            "https://github.com/bazelbuild/rules_cc/releases/download/0.0.11/rules_cc-0.0.11.tar.gz",
        ],
    )
    maybe(rules_cuda_stand_in, name = "rules_cuda")
    rules_cuda_setup(
        name = "detectron2_neo_rules_cuda_setup",
        repositories_bzl = "@rules_cuda//cuda:repositories.bzl",
        # A monorepo's own toolkit, under the names that rules_cuda 0.3 and 0.2 give it.
        existing_toolkit = "cuda" if native.existing_rule("cuda") else "local_cuda" if native.existing_rule("local_cuda") else "",
    )

    maybe(host_python, name = "detectron2_neo_python")
    maybe(cuda_from_wheels, name = "detectron2_neo_cuda")
    maybe(libtorch_from_wheel, name = "detectron2_neo_libtorch", requirements_lock = requirements_lock)
    maybe(pip_packages, name = "detectron2_neo_pip", requirements_lock = requirements_lock)
    maybe(torch_releases, name = "detectron2_neo_torch_releases")
