"""Submit a message command by command.

TWISTED_SENDMAIL_PASSWORD=… python by_hand.py HOST PORT USER [CA_FILE]
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import react

from twisted_sendmail import ServerVerifier, SubmissionProtocol, TLSTrust

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\n.by hand\r\n"


async def main(reactor: Any, host: str, port: str, user: str, ca_file: str | None = None) -> None:
    """Send the commands of RFC 5321, and print each reply."""
    endpoint = HostnameEndpoint(reactor, host, int(port))
    client = SubmissionProtocol(reactor, server_name=host)
    protocol = await connectProtocol(endpoint, client)
    print(await protocol.greeting)
    print(await protocol.ehlo("client.example.test"))
    print(await protocol.starttls(ServerVerifier(TLSTrust(ca_file=ca_file), host)))
    print(await protocol.ehlo("client.example.test"))  # replies before TLS do not count
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    print(await protocol.auth("PLAIN", f"\0{user}\0{password}".encode()))
    with protocol.group():  # in one write if the server offers PIPELINING
        replies = [
            protocol.mail("alice@example.test"),
            protocol.rcpt("bob@example.test"),
            protocol.data(),
        ]
    for reply in await gatherResults(replies, consumeErrors=True):
        print(reply)
    print(await protocol.content(MESSAGE))  # adds the dot-stuffing and the final dot
    print(await protocol.quit())


if __name__ == "__main__":
    react(main, sys.argv[1:])
