"""Files for configurations to be read from."""

import pytest
from iopath.common.file_io import PathHandler

from detectron2.utils.file_io import PathManager


@pytest.fixture
def write(tmp_path):
    """Writes a text below the test's own folder; returns the path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def register_prefix(tmp_path):
    """Has the path manager find paths with a prefix in the test's own folder."""

    def register(prefix):
        class Handler(PathHandler):
            def _get_supported_prefixes(self):
                return [prefix]

            def _open(self, path, mode="r", **kwargs):
                return open(tmp_path / path.removeprefix(prefix), mode)

        PathManager.register_handler(Handler(), allow_override=True)

    return register
