"""Where results go. It is made before they are, so that they are not lost for want of it."""

import os

from detectron2.cli._errors import UsageError


def prepare_folder(path: str, option: str) -> None:
    """Make the folder that ``option`` names."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"{option} {path}: the folder cannot be written to")


def prepare_file(path: str, option: str) -> None:
    """Make the folder of the file that ``option`` names."""
    if os.path.isdir(path):
        raise UsageError(f"{option} {path} is a folder; it has to name a file")
    prepare_folder(os.path.dirname(path) or ".", option)
