"""Files that are replaced as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file to be written, which takes the place of ``path`` when the block ends.

    Until then, and for good if the block raises or the process dies, ``path`` is what it was. The
    data is on the disk before the name is changed, so a power cut leaves one of the two, too.

    The temporary name beside ``path`` is always the same, ``path`` + ``.tmp``: what a killed
    process left is overwritten by the next one to write this file. One process at a time may
    write it.

    Args:
        path: a local file, or a symbolic link, which keeps pointing to the file that is replaced.
        mode: ``"wb"`` or ``"w"``.
    """
    target = os.path.realpath(path)
    temporary = target + ".tmp"
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_names(os.path.dirname(target))


def _flush_names(folder: str) -> None:
    # Some file systems know no fsync of folders; there is nothing more to be done there.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
