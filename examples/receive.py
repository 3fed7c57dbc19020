"""Receive mail for one address, and print every message.

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
    """Receives one message."""

    def __init__(self, connection: ConnectionInfo) -> None:
        super().__init__(connection)
        self.parts: list[bytes] = []

    def recipient(self, recipient: Recipient) -> Reply | None:
        """Accept only one address."""
        known = str(recipient) == "guestbook@example.org"
        return None if known else Reply(550, ("5.1.1 No such user",))

    def write(self, data: bytes) -> None:
        """Keep a part of the content."""
        self.parts.append(data)

    async def commit(self) -> None:
        """Print the message; the client gets the 250 reply when this is done."""
        print(b"".join(self.parts).decode("utf-8", "replace"), flush=True)


async def main(reactor: Any, description: str) -> None:
    """Listen until interrupted."""
    port = await serverFromString(reactor, description).listen(
        SMTPServerFactory(reactor, Guestbook)
    )
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


if __name__ == "__main__":
    react(main, sys.argv[1:])
