"""What the running PyTorch offers."""

import re

import torch


def _release(version: str) -> tuple[int, int, int]:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise ValueError(f"expected a version such as '2.10' or '2.10.1', got {version!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def min_torch_version(min_version: str) -> bool:
    """Tell whether the running PyTorch is at least ``min_version`` (``"2.10"`` or ``"2.10.1"``).

    Only the release numbers count: a nightly or a release candidate of 2.11 passes as 2.11, and
    a local suffix such as ``+cu130`` changes nothing.
    """
    return _release(str(torch.__version__)) >= _release(min_version)
