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
    ConnectionClosed,
    Content,
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
    """Send *commands* in as few writes as the server allows; return when all have replies."""
    for command in commands:
        session.send(command)
    while not session.idle:
        sock.sendall(session.data_to_send())
        if session.owed:
            data = sock.recv(65536)
            session.receive(data)
            if not data:
                session.finish(ConnectionClosed("connection lost"))
        while session.events:
            said, _, result = session.events.popleft()
            if isinstance(result, SendmailError):
                raise result
            # A group of commands has a list of replies.
            for reply in result if isinstance(result, list) else [result]:
                if not (reply.positive or reply.intermediate):
                    raise refusal(str(said), reply)
                print(said, "->", reply)


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
            session.send(Content())
            session.data_to_send()  # writes nothing yet, but opens the content
            session.content(MESSAGE)
            session.end_content()
            converse(tls, session, Quit())


if __name__ == "__main__":
    main(*sys.argv[1:])
