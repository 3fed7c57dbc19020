"""Tell apart what can become of a message, try again what is safe, and leave with an exit status.

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
    """Submit; say who has it, who will not, and whether to try again."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    try:
        report = await submit(
            reactor, server, MESSAGE, sender="alice@example.test", recipients=recipients
        )
    except SendmailError as error:
        if error.in_doubt:
            # The server may have it, whatever the class: a person has to decide.
            print("in doubt:", error)
            sys.exit(os.EX_PROTOCOL)
        # `transient`: nobody has it, and the same may work later.
        print("try again later:" if error.transient else "give up:", error)
        sys.exit(os.EX_TEMPFAIL if error.transient else os.EX_UNAVAILABLE)
    # Somebody has it; that is a result even if others were refused.
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
    """Send; after each of *waits* seconds once more, to those of whom that is safe."""
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
                continue  # the message was not begun
            report = error.report
        for outcome in report.outcomes:
            print(outcome)
        # Not those who are accepted, refused for good, or in doubt.
        left = [outcome.recipient for outcome in report.outcomes if outcome.transient]
        if not left:
            return


if __name__ == "__main__":
    react(main, sys.argv[1:])
