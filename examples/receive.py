"""Receive mail: one address, for which every message is printed.

python receive.py tcp:2525:interface=127.0.0.1
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from twisted_sendmail import ConnectionInfo, Receiver, Recipient, Reply, SMTPServerFactory


class Guestbook(Receiver):
    """One message for the guestbook; made anew for each."""

    def __init__(self, connection: ConnectionInfo) -> None:
        super().__init__(connection)
        self.pages: list[bytes] = []

    def recipient(self, recipient: Recipient) -> Reply | None:
        """Nobody else lives here."""
        known = str(recipient) == "guestbook@example.org"
        return None if known else Reply(550, ("5.1.1 There is only the guestbook here",))

    def write(self, data: bytes) -> None:
        """Some of it has come."""
        self.pages.append(data)

    async def commit(self) -> None:
        """All of it has come; when this is done, the client hears 250."""
        print(b"".join(self.pages).decode("utf-8", "replace"), flush=True)


async def main(reactor: Any, description: str) -> None:
    """Listen until interrupted."""
    port = await serverFromString(reactor, description).listen(
        SMTPServerFactory(reactor, Guestbook)
    )
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


if __name__ == "__main__":
    react(main, sys.argv[1:])
