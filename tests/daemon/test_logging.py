"""The log in the foreground has the format of Twisted's own."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, textFileLogObserver

from twisted_sendmail.daemon.logging import TextLog, log_to
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
        ({"nodaemon": True, "logfile": "relay.log"}, False),
        ({"nodaemon": True, "logger": "some.observer"}, False),
        ({"nodaemon": True, "syslog": True}, False),
        ({"nodaemon": False}, False),
    ],
)
def test_the_text_log_replaces_only_the_log_to_stdout(
    options: dict[str, Any] | None, ours: bool
) -> None:
    application = Application("relay")  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    log_to(io.StringIO(), application, options)
    assert ours == (application.getComponent(ILogObserver) is not None)


def test_an_observer_of_the_application_stays() -> None:
    application = Application("relay")  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    application.setComponent(ILogObserver, print)
    log_to(io.StringIO(), application, {"nodaemon": True})
    assert print is application.getComponent(ILogObserver)
