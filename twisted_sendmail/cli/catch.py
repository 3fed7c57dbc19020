"""``twisted-sendmail catch``: a development mailbox.

A submission server on the loopback interface that takes what any program sends it,
with any user and any password, and tells one line about each message.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass
from email.errors import MessageError
from mailbox import Maildir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus
from twisted_sendmail.cli.running import run
from twisted_sendmail.cli.terminal import complain, note, say
from twisted_sendmail.client import off_reactor
from twisted_sendmail.smtp import Reply, printable
from twisted_sendmail.testing.loopback import LoopbackServer
from twisted_sendmail.testing.mailbox import ReceivedMessage, RecordingReceiver

if TYPE_CHECKING:
    from twisted_sendmail.server import ConnectionInfo

HELP = "catch what a program sends, on the loopback interface"
#: Where one would look for it.
PORT = 2525
TLS_PORT = 2465


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise ArgumentTypeError(f"'{text}' is no port, which is a number from 0 to 65535")


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Run a submission server on the loopback interface that takes every message, from every user "
        "with any password, with STARTTLS, implicit TLS or in clear. One line is printed for each "
        "message. Nothing is delivered anywhere. End it with Ctrl-C."
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=PORT,
        help=f"for STARTTLS and clear text; {PORT}; 0: a free one",
    )
    parser.add_argument(
        "--tls-port",
        type=_port,
        default=TLS_PORT,
        help=f"for implicit TLS; {TLS_PORT}; 0: a free one",
    )
    parser.add_argument(
        "--maildir",
        type=Path,
        metavar="DIR",
        help="keep the messages in this Maildir; it is made if need be",
    )
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="write the CA certificate here, for the client to trust",
    )


def execute(args: Namespace) -> int:
    """Run it until it is interrupted; the exit status."""
    return run(lambda reactor: _work(reactor, args))


@dataclass
class _Catcher(RecordingReceiver):
    """Keeps in the Maildir, then tells; the client hears 250 after both."""

    reactor: Any
    maildir: Maildir | None

    async def commit(self) -> Reply | None:
        caught: list[ReceivedMessage] = []
        self.keep = caught.append
        super().commit()
        (message,) = caught
        maildir = self.maildir
        if maildir is not None:
            try:
                await off_reactor(self.reactor, lambda: maildir.add(_stored(message)))
            except OSError as e:
                complain(f"a message could not be kept: {e.strerror}")
                return Reply(452, ("4.3.1 The message could not be kept",))
        say(_line(message))
        return None


def _stored(message: ReceivedMessage) -> bytes:
    """What came, with the envelope in front, which the content does not tell."""
    envelope = [b"Return-Path: " + message.sender.wire.encode()]
    envelope += [b"Delivered-To: " + str(r).encode() for r in message.recipients]
    return b"\n".join([*envelope, message.content.replace(b"\r\n", b"\n")])


def _line(message: ReceivedMessage) -> str:
    try:
        subject = str(message.email.get("Subject", ""))
    except (MessageError, ValueError, LookupError, AttributeError):
        subject = "(a subject that cannot be read)"
    to = ", ".join(str(recipient) for recipient in message.recipients)
    how = message.tls.version if message.tls else "in clear"
    who = f" by {message.user}" if message.user is not None else ""
    text = f"{message.id}  {message.sender} -> {to}  {subject!r}  {len(message.content)} octets, {how}{who}"
    return printable(text, limit=1000)


def _open(path: Path | None) -> Maildir | None:
    if path is None:
        return None
    try:
        return Maildir(path, factory=None, create=True)
    except OSError as e:
        raise Complaint(
            f"Maildir {path} cannot be used: {e.strerror}", ExitStatus.CANTCREAT
        ) from None


def _publish(pem: bytes, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.write_bytes(pem)
    except OSError as e:
        raise Complaint(
            f"CA file {path} cannot be written: {e.strerror}", ExitStatus.CANTCREAT
        ) from None


async def _work(reactor: Any, args: Namespace) -> int:
    maildir = _open(args.maildir)

    def receive(connection: ConnectionInfo) -> _Catcher:
        return _Catcher(connection, lambda _: None, reactor, maildir)

    server = LoopbackServer(
        reactor, port=args.port, tls_port=args.tls_port, lenient=True, receiver=receive
    )
    _publish(server.authority.pem, args.ca_file)
    try:
        await server.start()
    except CannotListenError as e:
        raise Complaint(
            f"port {e.port} cannot be listened on: {e.socketError.strerror}; choose another with "
            "--port and --tls-port",
            ExitStatus.UNAVAILABLE,
        ) from None
    note(f"catching at {server.url} and {server.tls_url}, any user, any password")
    note(f"the CA certificate is in {args.ca_file or server.ca_file}")
    note(server.authority.pem.decode("ascii").rstrip())
    try:
        await Deferred[None]()
    except CancelledError:
        pass
    finally:
        await server.stop()
    return ExitStatus.OK
