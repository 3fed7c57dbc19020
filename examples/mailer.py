"""Keep a mailer as long as the program runs, for single messages and for many, over few connections.

TWISTED_SENDMAIL_PASSWORD=… python mailer.py smtp+starttls://alice@mail.example.net [CA_FILE]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from twisted_sendmail import (
    Envelope,
    Mailer,
    MailerService,
    PoolLimits,
    SendmailError,
    SubmissionServer,
    TLSTrust,
)

READERS = ["bob@example.test", "carol@example.test", "gone@example.test", "dave@example.test"]


async def welcome(mailer: Mailer, user: str) -> str:
    """Send one message, for example from a sign-up page."""
    message = f"From: alice@example.test\nTo: {user}\nSubject: Welcome\n\nHello!\n"
    try:
        report = await mailer.send(message)
    except SendmailError as error:
        return f"{user} not welcomed: {error}"
    return f"{user} welcomed: {report.reply}"


def newsletter() -> Iterator[tuple[Envelope, str]]:
    """Yield a message for each reader; the mailer takes the next one when fewer than its limit wait."""
    for reader in READERS:
        message = f"From: news@example.test\nTo: {reader}\nSubject: News\n\nGood morning!\n"
        yield Envelope("bounces@example.test", reader), message


async def work(mailer: Mailer) -> None:
    """Send two single messages and a newsletter."""
    users = ["erin@example.test", "frank@example.test"]
    welcomed = [Deferred.fromCoroutine(welcome(mailer, user)) for user in users]
    for line in await gatherResults(welcomed):
        print(line)
    async for place, report in mailer.send_many(newsletter()):
        print(f"message {place}: {report}")
    print(mailer)


async def main(reactor: Any, url: str, ca_file: str | None = None) -> None:
    """Run the mailer as a service."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    service = MailerService(reactor, server, limits=PoolLimits(connections=2))
    service.startService()
    try:
        await work(service.mailer)
    finally:
        await service.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
