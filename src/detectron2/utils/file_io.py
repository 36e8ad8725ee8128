"""Files behind paths and URLs, through :data:`PathManager`."""

from typing import IO, Any

from iopath.common.file_io import PathHandler
from iopath.common.file_io import PathManager as _PathManager

from detectron2.utils._download import OneDriveHandler, URLHandler

__all__ = ["PathHandler", "PathManager"]

PathManager: _PathManager = _PathManager()
"""Opens the files of this library: local paths, ``http(s)://`` and ``ftp://`` URLs, OneDrive
links and ``detectron2://`` paths; importing ``detectron2.checkpoint`` adds ``catalog://``.

What is remote is downloaded once, into the folder that the environment variable ``FVCORE_CACHE``
names, or ``~/.torch/iopath_cache``. Without a network, files can be put there, below the path of
their URL; the error of a failed download says where. It is an instance of its own, so that
handlers registered here do not show in other packages.
"""


class Detectron2Handler(PathHandler):
    """Resolves ``detectron2://`` paths: files of the model zoo, for reading only."""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _url(self, path: str) -> str:
        return self.S3_DETECTRON2_PREFIX + path.removeprefix(self.PREFIX)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return PathManager.get_local_path(self._url(path), force=force, **kwargs)

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> IO[str] | IO[bytes]:
        return PathManager.open(self._url(path), mode, buffering=buffering, **kwargs)


for _handler in (URLHandler(), OneDriveHandler(), Detectron2Handler()):
    PathManager.register_handler(_handler)
