"""Send several messages over one connection.

TWISTED_SENDMAIL_PASSWORD=… python several.py smtp+starttls://alice@mail.example.net [CA_FILE]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from twisted.internet.task import react

from twisted_sendmail import Envelope, SubmissionServer, TLSTrust, many

READERS = ["bob@example.test", "carol@example.test", "gone@example.test", "dave@example.test"]


def newsletter() -> Iterator[tuple[Envelope, str]]:
    """Yield a message for each reader; each is made when it is needed."""
    for reader in READERS:
        message = f"From: news@example.test\nTo: {reader}\nSubject: News\n\nGood morning!\n"
        yield Envelope("bounces@example.test", reader), message


async def main(reactor: Any, url: str, ca_file: str | None = None) -> None:
    """Send the newsletter; a refused reader does not stop the next."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    for report in await many(reactor, server, newsletter()):
        (outcome,) = report.outcomes
        print(outcome if report.error is None else f"{outcome}: {report.error}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
