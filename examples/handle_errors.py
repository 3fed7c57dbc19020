"""Distinguish the results of a message, retry only what is safe, and exit with the right status.

TWISTED_SENDMAIL_PASSWORD=… python handle_errors.py URL CA_FILE RECIPIENT...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.task import deferLater, react

from twisted_sendmail import Recipient, SendmailError, SubmissionServer, TLSTrust, submit

MESSAGE = b"""\
From: alice@example.test
Message-ID: <greetings-1@example.test>
Subject: Greetings

Hello
"""


async def main(reactor: Any, url: str, ca_file: str, *recipients: str) -> None:
    """Submit one message; print the result for each recipient."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    try:
        report = await submit(
            reactor, server, MESSAGE, sender="alice@example.test", recipients=recipients
        )
    except SendmailError as error:
        if error.in_doubt:
            # The server may have the message, whatever the class of the error: a person has to decide.
            print("in doubt:", error)
            sys.exit(os.EX_PROTOCOL)
        # `transient`: no recipient has the message, and a later attempt may succeed.
        print("try again later:" if error.transient else "give up:", error)
        sys.exit(os.EX_TEMPFAIL if error.transient else os.EX_UNAVAILABLE)
    # At least one recipient was accepted; others may be refused.
    print("accepted:", *(outcome.recipient for outcome in report.accepted))
    for outcome in report.refused:
        print("later:" if outcome.transient else "never:", outcome)


async def try_again(
    reactor: Any,
    server: SubmissionServer,
    message: bytes,
    *recipients: str | Recipient,
    waits: Iterable[float] = (60, 300, 900),
) -> None:
    """Send; after each of *waits* seconds send again to the recipients for which that is safe."""
    left: Sequence[str | Recipient] = recipients
    for wait in (0, *waits):
        await deferLater(reactor, wait)
        try:
            report = await submit(
                reactor, server, message, sender="alice@example.test", recipients=left
            )
        except SendmailError as error:
            print(error)
            if not error.temporary:
                return
            if error.report is None:
                continue  # no recipient has a result yet
            report = error.report
        for outcome in report.outcomes:
            print(outcome)
        # Not recipients that are accepted, permanently refused or in doubt.
        left = [outcome.recipient for outcome in report.outcomes if outcome.transient]
        if not left:
            return


if __name__ == "__main__":
    react(main, sys.argv[1:])
