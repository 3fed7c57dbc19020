"""Submit one message with callbacks.

TWISTED_SENDMAIL_PASSWORD=… python callbacks.py smtp+starttls://alice@mail.example.net [CA_FILE]
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from twisted_sendmail import DeliveryReport, SendmailError, SubmissionServer, TLSTrust, submit

MESSAGE = """\
From: alice@example.test
To: bob@example.test
Subject: Greetings

Hello Bob.
"""


def sent(report: DeliveryReport) -> None:
    """Print the result: at least one recipient was accepted."""
    print(f"{len(report.accepted)} accepted, queued as {report.queue_id}")


def failed(failure: Failure) -> None:
    """Print the error; other exceptions than SendmailError stay failures."""
    failure.trap(SendmailError)
    error: Any = failure.value
    print(f"{'in doubt' if error.in_doubt else 'not sent'}: {error}")


def main(reactor: Any, url: str, ca_file: str | None = None) -> Deferred[None]:
    """Submit one message."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    return submit(reactor, server, MESSAGE).addCallbacks(sent, failed)


if __name__ == "__main__":
    react(main, sys.argv[1:])
