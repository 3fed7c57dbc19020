"""The text log has the format of Twisted's own; both logs have a level and can be rotated."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, LogLevel, textFileLogObserver

from twisted_sendmail.daemon.logging import JsonLog, TextLog, levels_from, log_to
from twisted_sendmail.relay import LINE

EVENTS: list[dict[str, Any]] = [
    {"log_format": LINE, "line": "3F: to=<a@x.example>, status=sent (250 {ok} €)"},
    {"log_format": LINE, "line": "two\nlines"},
    {"log_format": "{what} of another", "what": "an event"},
    {"log_format": None},
]


@pytest.mark.parametrize("at", [0.0, 1.5, 1_792_287_000.9, 1_792_287_001.0, 1_808_100_123.4])
def test_the_text_log_writes_the_same_as_twisted(at: float) -> None:
    ours, theirs = io.StringIO(), io.StringIO()
    said: list[Any] = []
    logger = Logger(namespace="twisted_sendmail.relay", observer=said.append)  # type: ignore[arg-type]
    for event in EVENTS:
        logger.info(event["log_format"], **{k: v for k, v in event.items() if k != "log_format"})
    observe, expected = TextLog(ours), textFileLogObserver(theirs)
    for event in said:
        for later in (0.0, 0.01, 1.0):
            expected({**event, "log_time": at + later})
            observe({**event, "log_time": at + later})
    assert theirs.getvalue() == ours.getvalue()
    assert "status=sent" in ours.getvalue()


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        (None, False),
        ({"nodaemon": True}, True),
        ({"nodaemon": True, "logfile": "-"}, True),
        ({"nodaemon": True, "logfile": "relay.log"}, True),
        ({"nodaemon": True, "logger": "some.observer"}, False),
        ({"nodaemon": True, "syslog": True}, False),
        ({"nodaemon": False, "logfile": "-"}, False),
        ({"nodaemon": False}, True),
    ],
)
def test_the_text_log_replaces_the_log_to_stdout_and_to_a_file(
    options: dict[str, Any] | None, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    application = Application("relay")  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    log = log_to(io.StringIO(), application, options)
    if log is not None:
        log.close()
    assert ours == (application.getComponent(ILogObserver) is not None)


def test_an_observer_of_the_application_stays() -> None:
    application = Application("relay")  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    application.setComponent(ILogObserver, print)
    log_to(io.StringIO(), application, {"nodaemon": True})
    assert print is application.getComponent(ILogObserver)


LEVELS = ["debug", "info", "warn", "error", "critical"]


@pytest.mark.parametrize(("level", "shown"), [("debug", 5), ("info", 4), ("warn", 3), ("error", 2)])
def test_a_level_limits_both_logs(level: str, shown: int, tmp_path: Path) -> None:
    text, structured = io.StringIO(), JsonLog()
    observer = TextLog(text)
    observer.levels = structured.levels = levels_from(level)
    structured.open(tmp_path / "relay.json")
    logger = Logger(namespace="twisted_sendmail.relay")
    for name in LEVELS:
        logger.emit(LogLevel.levelWithName(name), "an event")
        observer({"log_level": LogLevel.levelWithName(name), "log_format": "x", "log_time": 1.0})
    structured.close()
    written = [json.loads(line) for line in (tmp_path / "relay.json").read_text().splitlines()]
    assert [each["level"] for each in written] == LEVELS[5 - shown :]
    assert text.getvalue().count("\n") == shown


def test_debug_is_not_logged_unless_it_is_asked_for() -> None:
    text = io.StringIO()
    TextLog(text)({"log_level": LogLevel.debug, "log_format": "x", "log_time": 1.0})
    assert text.getvalue() == ""


def test_a_renamed_file_is_written_until_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = TextLog(path)

    def write(word: str) -> None:
        log({"log_level": LogLevel.info, "log_format": word, "log_time": 1.0})

    write("one")
    path.rename(tmp_path / "log.1")
    write("two")
    log.reopen()
    write("three")
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        log.reopen()
    write("four")
    log.close()
    words = [line.split()[-1] for line in (tmp_path / "log.1").read_text().splitlines()]
    assert words == ["one", "two"]


def test_json_has_each_fact_once_and_numbers_as_numbers(tmp_path: Path) -> None:
    log = JsonLog()
    log.open(tmp_path / "relay.json")
    logger = Logger(namespace="twisted_sendmail.relay")
    logger.info(LINE, line="AB: removed", id="AB", delay=1.5, delays=(0.5, 1), path=Path("/x"))
    try:
        raise ValueError("an error\nof two lines")
    except ValueError:
        logger.failure("{id} could not be sent", id="AB")
    log.close()
    sent, failed = (json.loads(line) for line in (tmp_path / "relay.json").read_text().splitlines())
    assert sent.pop("time").endswith("Z")
    assert sent == {
        "level": "info",
        "logger": "twisted_sendmail.relay",
        "message": "AB: removed",
        "id": "AB",
        "delay": 1.5,
        "delays": [0.5, 1],
        "path": "/x",
    }
    assert (failed["level"], failed["message"]) == ("critical", "AB could not be sent")
    assert "ValueError: an error\nof two lines" in failed["traceback"]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        ({"log_format": "reactor class: {reactor}.", "reactor": "a.b.EPollReactor"}, False),
        ({"log_format": "twistd {version} starting up.", "version": "26.4"}, True),
    ],
)
def test_the_class_of_the_reactor_is_not_logged(event: dict[str, Any], shown: bool) -> None:
    out = io.StringIO()
    at = {"log_namespace": "twisted.application", "log_level": LogLevel.info, "log_time": 0.0}
    TextLog(out)({**at, **event})
    assert bool(out.getvalue()) is shown
