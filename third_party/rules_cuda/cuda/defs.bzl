"""CUDA rules, under the load path and with the attributes of the rule set rules_cuda.

Written for this project: it is what `@rules_cuda` is where a workspace declares none of its own.
"""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_test")
load(":providers.bzl", _CudaArchsInfo = "CudaArchsInfo", _CudaInfo = "CudaInfo")
load(":rules.bzl", _cuda_library = "cuda_library", _cuda_objects = "cuda_objects")

CudaArchsInfo = _CudaArchsInfo
CudaInfo = _CudaInfo
cuda_library = _cuda_library
cuda_objects = _cuda_objects

# Attributes that cc_binary and cc_test take; all others are the compiled library's.
_LINK_ATTRS = ["args", "data", "env", "flaky", "linkshared", "linkstatic", "local", "shard_count", "size", "timeout"]
_COMMON_ATTRS = ["tags", "target_compatible_with", "testonly", "visibility"]

def _linked(rule, name, attributes):
    common = {key: attributes[key] for key in _COMMON_ATTRS if key in attributes}
    link = {key: attributes[key] for key in _LINK_ATTRS if key in attributes}
    compiled = {
        key: value
        for key, value in attributes.items()
        if key not in _LINK_ATTRS and key not in _COMMON_ATTRS
    }
    library_common = dict(common, visibility = ["//visibility:private"])
    _cuda_library(name = name + "_library", alwayslink = True, **dict(compiled, **library_common))
    rule(name = name, deps = [":" + name + "_library"], **dict(link, **common))

def cuda_binary(name, **kwargs):
    """A program of device and host code.

    Args:
      name: of the target.
      **kwargs: attributes of cuda_library, and those of cc_binary that concern linking and running.
    """
    _linked(cc_binary, name, kwargs)

def cuda_test(name, **kwargs):
    """A test of device and host code.

    Args:
      name: of the target.
      **kwargs: attributes of cuda_library, and those of cc_test that concern linking and running.
    """
    _linked(cc_test, name, dict(kwargs, testonly = True))
