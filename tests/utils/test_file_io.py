"""Which handler takes which path, with the network replaced by a folder."""

from pathlib import Path

import pytest
from iopath.common.file_io import PathManager as IopathPathManager

from detectron2.utils import file_io
from detectron2.utils._download import URLHandler
from detectron2.utils.file_io import Detectron2Handler, PathHandler, PathManager


@pytest.fixture
def requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that are asked for; each is a file that holds its URL."""
    urls = []

    def fetch(self: PathHandler, path: str, force: bool = False, **kwargs: object) -> str:
        urls.append(path)
        file = tmp_path / f"{len(urls)}"
        file.write_text(path)
        return str(file)

    monkeypatch.setattr(URLHandler, "_get_local_path", fetch)
    return urls


def test_is_an_instance_of_its_own() -> None:
    assert isinstance(PathManager, IopathPathManager)
    with pytest.raises(FileNotFoundError):
        IopathPathManager().open("detectron2://a.pkl")


def test_exports() -> None:
    assert file_io.__all__ == ["PathHandler", "PathManager"]
    assert issubclass(Detectron2Handler, PathHandler)


def test_model_zoo_path(requested: list[str]) -> None:
    url = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    local = PathManager.get_local_path("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    assert Path(local).read_text() == url
    with PathManager.open("detectron2://ImageNetPretrained/MSRA/R-50.pkl") as file:
        assert file.read() == url
    assert requested == [url, url]


def test_model_zoo_is_read_only(requested: list[str]) -> None:
    with pytest.raises(AssertionError, match="does not support open with w mode"):
        PathManager.open("detectron2://a.pkl", "w")


def test_one_drive_link_is_not_taken_for_any_url(requested: list[str]) -> None:
    PathManager.get_local_path("https://1drv.ms/u/s!abc")
    assert requested[0].startswith("https://api.onedrive.com/v1.0/shares/u!")


def test_local_files(tmp_path: Path) -> None:
    path = str(tmp_path / "a.txt")
    with PathManager.open(path, "w") as file:
        file.write("text")
    assert PathManager.isfile(path)
    assert PathManager.get_local_path(path) == path
