"""A program on asyncio that sends mail: Twisted runs on the same event loop.

TWISTED_SENDMAIL_PASSWORD=… python asyncio_program.py smtps://ci@mail.example.net CA_FILE RECIPIENT...
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing
from email.message import EmailMessage
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_sendmail import SendmailError, SubmissionServer, Timeouts, TLSTrust, submit


async def notify(reactor: Any, server: SubmissionServer, recipient: str) -> str:
    """Send one message; a coroutine of asyncio, which returns a line with the result."""
    message = EmailMessage()
    message["From"] = "Build Bot <ci@example.test>"
    message["To"] = recipient
    message["Subject"] = "build 42 failed"
    message.set_content("See the log of step 3.\n")
    try:
        report = await submit(reactor, server, message).asFuture(asyncio.get_running_loop())
    except SendmailError as error:
        return f"{recipient}: {error}"
    return f"{recipient}: queued as {report.queue_id}"


async def main(reactor: Any, url: str, ca_file: str, *recipients: str) -> None:
    """Notify all recipients at the same time."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(
        url,
        password=password,
        trust=TLSTrust(ca_file=ca_file),
        timeouts=Timeouts(total=60),
    )
    for line in await asyncio.gather(*(notify(reactor, server, each) for each in recipients)):
        print(line)


if __name__ == "__main__":
    with closing(asyncio.new_event_loop()) as loop:
        # Before the first import of twisted.internet.reactor.
        asyncioreactor.install(loop)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        react(lambda reactor: Deferred.fromFuture(loop.create_task(main(reactor, *sys.argv[1:]))))
