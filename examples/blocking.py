"""A blocking client without Twisted: `socket` and `ssl` do the I/O for the client session.

TWISTED_SENDMAIL_PASSWORD=… python blocking.py HOST PORT USER [CA_FILE]
"""

from __future__ import annotations

import os
import socket
import ssl
import sys

from twisted_sendmail.smtp import (
    Auth,
    ClientSession,
    Command,
    CommandGroup,
    ConnectionClosed,
    ContentCommand,
    Data,
    ForwardPath,
    Hello,
    Mail,
    Quit,
    Rcpt,
    ReversePath,
    SendmailError,
    StartTLS,
    refusal,
)

MAIL = Mail(ReversePath.parse("alice@example.test"))
RCPT = Rcpt(ForwardPath.parse("bob@example.test"))
MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\n.without Twisted\r\n"


def converse(sock: socket.socket, session: ClientSession, *commands: Command) -> None:
    """Send *commands*, in as few writes as the server allows; return when all are answered."""
    finish(sock, session, session.send(*commands))


def finish(sock: socket.socket, session: ClientSession, group: CommandGroup) -> None:
    """Write and read until every command of *group* has its reply."""
    while not group.complete:
        sock.sendall(session.data_to_send())
        data = sock.recv(65536)
        session.receive(data)
        if not data:
            session.finish(ConnectionClosed("connection lost"))
    for command, reply in zip(group.commands, group.replies, strict=True):
        if isinstance(reply, SendmailError):
            raise reply
        if not (reply.positive or reply.intermediate):
            raise refusal(str(command), reply)
        print(command, "->", reply)


def main(host: str, port: str, user: str, ca_file: str | None = None) -> None:
    """Submit one message."""
    session = ClientSession()
    secure = ssl.create_default_context(cafile=ca_file)
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        converse(sock, session, Hello("client.example.test"), StartTLS())
        session.begin_tls()
        with secure.wrap_socket(sock, server_hostname=host) as tls:
            session.tls_begun(f"TLS: {tls.version()}")
            secret = f"\0{user}\0{os.environ['TWISTED_SENDMAIL_PASSWORD']}".encode()
            converse(tls, session, Hello("client.example.test"), Auth("PLAIN", secret))
            converse(tls, session, MAIL, RCPT, Data())
            finish(tls, session, session.send(ContentCommand(), payload=MESSAGE))
            converse(tls, session, Quit())


if __name__ == "__main__":
    main(*sys.argv[1:])
