"""Downloads from a server of this process, and from none; no test leaves the machine."""

import http.server
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import _download
from detectron2.utils.file_io import Detectron2Handler, PathManager

CONTENT = bytes(range(256)) * 10


class Handler(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        name = self.path.rsplit("/", 1)[-1]
        if name == "absent.pkl":
            self.send_error(404)
            return
        if name == "slow.pkl":
            time.sleep(1.5)
            return
        self.send_response(200)
        if name != "unknown_length.pkl":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if name != "empty.pkl":
            self.wfile.write(CONTENT[: 100 if name == "short.pkl" else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A URL whose port is taken, by a socket that does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("name", ["a.pkl", "unknown_length.pkl"])
def test_files_are_kept_below_the_path_of_their_url(server: str, cache: Path, name: str) -> None:
    for _ in range(2):
        local = PathManager.get_local_path(f"{server}/folder/{name}")
        assert local == str(cache / "folder" / name)
        assert Path(local).read_bytes() == CONTENT
        with PathManager.open(f"{server}/folder/{name}", "rb") as file:
            assert file.read() == CONTENT
    assert Handler.requests == 1
    PathManager.get_local_path(f"{server}/folder/{name}", force=True)
    assert Handler.requests == 2


def test_files_put_there_by_hand(refusing: str, cache: Path) -> None:
    file = cache / "folder" / "a.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"by hand")
    # Nothing is written, which other users may not be allowed to.
    assert PathManager.get_local_path(f"{refusing}/folder/a.pkl") == str(file)
    assert os.listdir(file.parent) == ["a.pkl"]


def test_another_cache_folder(server: str, tmp_path: Path) -> None:
    local = PathManager.get_local_path(f"{server}/a.pkl", cache_dir=str(tmp_path / "other"))
    assert local == str(tmp_path / "other" / "a.pkl")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.pkl", "HTTP Error 404: Not Found"),
        ("short.pkl", "100 bytes"),
        ("empty.pkl", "0 bytes"),
    ],
)
def test_failures_leave_no_file(server: str, cache: Path, name: str, reason: str) -> None:
    with pytest.raises(OSError, match="Cannot download") as raised:
        PathManager.get_local_path(f"{server}/folder/{name}")
    assert reason in str(raised.value)
    assert str(raised.value).startswith(f"Cannot download {server}/folder/{name}: ")
    assert str(raised.value).endswith(
        f". Without a network, get it elsewhere, and put it at {cache}/folder/{name}"
    )
    assert os.listdir(cache / "folder") == [f"{name}.lock"]


def test_a_silent_server_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "TIMEOUT", 0.1)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"slow\.pkl: timed out\. Without"):
        PathManager.get_local_path(f"{server}/slow.pkl")
    assert time.monotonic() - start < 1


def test_a_folder_is_no_file(server: str) -> None:
    with pytest.raises(ValueError, match="the URL of a folder"):
        PathManager.get_local_path(f"{server}/folder/")


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("detectron2://COCO-Detection/x/1/model_final_1.pkl", "COCO-Detection/x/1"),
        ("catalog://ImageNetPretrained/MSRA/R-50", "ImageNetPretrained/MSRA"),
        ("{refusing}/a/b.pkl", "a"),
    ],
)
def test_loading_weights_without_a_network(
    refusing: str, cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, below: str
) -> None:
    monkeypatch.setattr(Detectron2Handler, "S3_DETECTRON2_PREFIX", f"{refusing}/detectron2/")
    monkeypatch.setattr(
        "detectron2.checkpoint.catalog.ModelCatalog.S3_C2_DETECTRON_PREFIX", f"{refusing}/detectron"
    )
    checkpointer = DetectionCheckpointer(torch.nn.Linear(1, 1))
    with pytest.raises(OSError, match="Connection refused") as raised:
        checkpointer.load(path.format(refusing=refusing))
    url, _, file = str(raised.value).removeprefix("Cannot download ").partition(": ")
    assert url.startswith(refusing)
    assert f"/{below}/" in url
    assert file.endswith(f"and put it at {cache}{url.removeprefix(refusing)}")
    # And there it is found.
    weights = {"weight": np.array([[2.0]]), "bias": np.array([3.0])}
    with open(file.rpartition(" put it at ")[2], "wb") as out:
        pickle.dump({"model": weights, "__author__": "test"}, out)
    checkpointer.load(path.format(refusing=refusing))
    assert checkpointer.model.weight.item() == 2.0
