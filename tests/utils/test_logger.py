"""Handlers that setup_logger adds, and messages that are logged now and then."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from detectron2.utils import logger as logger_module
from detectron2.utils.logger import (
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)

NAME = "detectron2_logger_test"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _fresh_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    logging.getLogger(NAME).handlers.clear()


def put_in_place(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    # Not sys.stdout itself: pytest sets that after the fixtures have run.
    system = SimpleNamespace(stdout=stream, _getframe=sys._getframe)
    monkeypatch.setattr(logger_module, "sys", system)
    return stream


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    return put_in_place(monkeypatch, io.StringIO())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return put_in_place(monkeypatch, Terminal())


def without_time(text: str) -> list[str]:
    """The lines, each without its beginning, which has to be the time."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"(\x1b\[32m)?\[\d\d/\d\d \d\d:\d\d:\d\d", line)
        assert match, line
        lines.append(line[match.end() :])
    return lines


class TestSetup:
    def test_plain_where_there_is_no_terminal(self, stdout: io.StringIO) -> None:
        logger = setup_logger(name=NAME)
        logger.debug("hello")
        logger.getChild("part").warning("careful")
        assert without_time(stdout.getvalue()) == [
            f"] {NAME} DEBUG: hello",
            f"] {NAME}.part WARNING: careful",
        ]
        assert not logger.propagate

    def test_colored_on_a_terminal(self, terminal: Terminal) -> None:
        logger = setup_logger(name=NAME, abbrev_name="t")
        logger.info("hello %d", 5)
        logger.getChild("part").warning("careful")
        logging.getLogger(NAME).error("bad")
        assert terminal.getvalue().startswith("\x1b[32m[")
        assert without_time(terminal.getvalue()) == [
            " t]: \x1b[0mhello 5",
            " t.part]: \x1b[0m\x1b[33mWARNING\x1b[0m careful",
            " t]: \x1b[0m\x1b[31mERROR\x1b[0m bad",
        ]

    def test_color_can_be_declined(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setup_logger(name=NAME, color=False).info("hello")
        monkeypatch.setenv("NO_COLOR", "1")
        setup_logger(name=NAME).info("hello")
        assert without_time(terminal.getvalue()) == [f"] {NAME} INFO: hello"] * 2

    def test_library_is_abbreviated(self, terminal: Terminal) -> None:
        logger = logging.getLogger("detectron2")
        before = logger.handlers[:], logger.level, logger.propagate
        try:
            setup_logger()
            logging.getLogger("detectron2.engine").info("hello")
        finally:
            logger.handlers[:], logger.level, logger.propagate = before
        assert without_time(terminal.getvalue()) == [" d2.engine]: \x1b[0mhello"]

    def test_file_gets_full_names_and_no_color(self, terminal: Terminal, tmp_path: Path) -> None:
        setup_logger(tmp_path / "a", name=NAME, abbrev_name="t").error("bad")
        file = tmp_path / "a" / "log.txt"
        assert without_time(file.read_text()) == [f"] {NAME} ERROR: bad"]

    @pytest.mark.parametrize(
        ("output", "rank", "file"),
        [
            ("run", 0, "run/log.txt"),
            ("run", 3, "run/log.txt.rank3"),
            ("run/train.log", 0, "run/train.log"),
            ("run/train.txt", 1, "run/train.txt.rank1"),
        ],
    )
    def test_files(
        self, stdout: io.StringIO, tmp_path: Path, output: str, rank: int, file: str
    ) -> None:
        setup_logger(str(tmp_path / output), rank, name=NAME).info("hello")
        assert (tmp_path / file).read_text().endswith("INFO: hello\n")
        assert bool(stdout.getvalue()) == (rank == 0)

    def test_file_in_the_working_folder(
        self, stdout: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        setup_logger("here.txt", name=NAME).info("hello")
        assert (tmp_path / "here.txt").exists()

    def test_no_message_shows_twice(self, stdout: io.StringIO, tmp_path: Path) -> None:
        first = setup_logger(name=NAME)
        second = setup_logger(str(tmp_path), name=NAME, color=False)
        third = setup_logger(str(tmp_path / "log.txt"), name=NAME)
        assert first is second is third
        first.info("hello")
        assert len(stdout.getvalue().splitlines()) == 1
        assert len((tmp_path / "log.txt").read_text().splitlines()) == 1

    def test_loggers_share_a_file(self, stdout: io.StringIO, tmp_path: Path) -> None:
        setup_logger(str(tmp_path), name=NAME).info("one")
        other = setup_logger(str(tmp_path), name=NAME + "2", configure_stdout=False)
        other.info("two")
        other.handlers.clear()
        lines = without_time((tmp_path / "log.txt").read_text())
        assert lines == [f"] {NAME} INFO: one", f"] {NAME}2 INFO: two"]
        assert "two" not in stdout.getvalue()

    def test_propagation(self, stdout: io.StringIO) -> None:
        assert setup_logger(name=NAME, enable_propagation=True).propagate


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Gives the messages that were logged so far; counting starts anew."""
    logger_module._counts.clear()
    logger_module._times.clear()
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


class TestNowAndThen:
    def test_first_n_of_a_line(self, messages) -> None:
        for i in range(5):
            log_first_n(logging.INFO, f"a{i}", 2)
            log_first_n(logging.INFO, f"b{i}")
        assert messages() == ["a0", "b0", "a1"]

    def test_first_n_of_a_message(self, messages) -> None:
        for message in "aabba":
            log_first_n(logging.INFO, message, key="message")
        log_first_n(logging.INFO, "a", key="message")
        log_first_n(logging.INFO, "a", key=("caller", "message"))
        assert messages() == ["a", "b", "a"]

    @pytest.mark.parametrize("key", ["module", (), ("caller", "x")])
    def test_unknown_key(self, key) -> None:
        with pytest.raises(ValueError, match="key must be made of"):
            log_first_n(logging.INFO, "a", key=key)

    @pytest.mark.parametrize(("n", "expected"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6])])
    def test_every_n(self, messages, n: int, expected: list[int]) -> None:
        for i in range(7):
            log_every_n(logging.INFO, str(i), n)
        assert messages() == list(map(str, expected))

    def test_every_n_seconds(self, messages, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([100.0, 104.9, 105.0, 109.0, 111.0])
        monkeypatch.setattr("time.monotonic", lambda: next(clock))
        for i in range(5):
            log_every_n_seconds(logging.INFO, str(i), 5)
        assert messages() == ["0", "2", "4"]

    @pytest.mark.parametrize("function", [log_every_n, log_every_n_seconds])
    def test_n_is_positive(self, function) -> None:
        with pytest.raises(ValueError, match="got 0"):
            function(logging.INFO, "a", 0)

    def test_record_names_the_caller(self, messages, caplog: pytest.LogCaptureFixture) -> None:
        log_first_n(logging.WARNING, "a")
        log_every_n(logging.WARNING, "b", name="other")
        first, second = caplog.records
        assert first.name == __name__
        assert first.funcName == second.funcName == "test_record_names_the_caller"
        assert second.name == "other"

    def test_script_logs_as_the_library(self, messages, monkeypatch: pytest.MonkeyPatch) -> None:
        records = []
        monkeypatch.setattr(
            logging.getLogger("detectron2"), "log", lambda *a, **k: records.append(a)
        )
        script = {"__name__": "__main__", "log_first_n": log_first_n}
        exec("log_first_n(30, 'from a script')", script)
        assert records == [(30, "from a script")]


def test_small_table() -> None:
    names, line, values = create_small_table({"bbox": 1.5, "segm": 22.12345, "n": 3}).splitlines()
    assert [cell.strip() for cell in names.strip("|").split("|")] == ["bbox", "segm", "n"]
    assert set(line) <= set("|:-")
    assert [cell.strip() for cell in values.strip("|").split("|")] == ["1.500", "22.123", "3"]


def test_log_api_usage() -> None:
    logger_module._log_api_usage("test")
