"""Files behind URLs, kept in the cache folder of iopath."""

import http.client
import logging
import os
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, file_lock, get_cache_dir

from detectron2.utils._atomic_file import replacing

# Seconds without an answer, or without a byte, until a server is given up.
TIMEOUT = 30.0

_CHUNK = 1 << 20


class URLHandler(HTTPURLHandler):
    """Downloads what ``http://``, ``https://`` and ``ftp://`` URLs name, once.

    The files are where iopath keeps them: ``<cache folder>/<path of the URL>``, whatever the host.
    The cache folder is ``$FVCORE_CACHE``, or ``~/.torch/iopath_cache``. It needs to be writable
    only for a download. A server that does not answer is an error, not a wait without end.
    """

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        self._check_kwargs(kwargs)
        place = self._place(path)
        root = cache_dir or os.path.expanduser(
            os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")
        )
        file = os.path.join(root, place)
        if not force and os.path.isfile(file):
            return file
        # Another folder, if this one cannot be written to.
        file = os.path.join(get_cache_dir(cache_dir), place)
        with file_lock(file):
            # Meanwhile, another process may have done it.
            if force or not os.path.isfile(file):
                download(path, file)
        return file

    def _place(self, url: str) -> str:
        folder = os.path.dirname(urlparse(url).path.lstrip("/"))
        name = url.rsplit("/", 1)[-1]
        if not name:
            raise ValueError(f"{url!r} is the URL of a folder, not of a file")
        return os.path.join(folder, name)


class OneDriveHandler(OneDrivePathHandler, URLHandler):
    """Downloads what OneDrive links name."""


def download(url: str, file: str) -> None:
    """Download a file; it gets its name when it is complete.

    Args:
        url: of a kind that ``urllib`` can open.
        file: where to put it, in a folder that exists.

    Raises:
        OSError: the download failed; the message says where the file can be put by hand.
    """
    logging.getLogger(__name__).info(f"Downloading {url} to {file} ...")
    try:
        _download(url, file)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise OSError(
            f"Cannot download {url}: {reason or type(error).__name__}. Without a network, get it "
            f"elsewhere, and put it at {file}"
        ) from error


def _download(url: str, file: str) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, replacing(file) as out:
        length = response.headers.get("Content-Length")
        size = int(length) if length else None
        # No bar where there is no terminal.
        with tqdm(
            desc=os.path.basename(file), total=size, unit="B", unit_scale=True, disable=None
        ) as bar:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        received = out.tell()
        if received == 0 or received != (size or received):
            raise OSError(f"it ended after {received} bytes of {length or 'an unknown number'}")
