"""``twisted-sendmail catch``: a development mailbox.

A submission server on the loopback interface that accepts every message, from any user with any
password, and prints one line for each.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from email.errors import MessageError
from mailbox import Maildir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError

from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.options import PASSWORD_ORIGINS, add_password_options, new_password
from twisted_sendmail.cli.output import print_error, print_note, print_result
from twisted_sendmail.cli.react import react
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.server import INSUFFICIENT_STORAGE
from twisted_sendmail.smtp import printable
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.loopback import LoopbackServer
from twisted_sendmail.testing.recording import ReceivedMessage, RecordingReceiver

if TYPE_CHECKING:
    from twisted_sendmail.server import ConnectionInfo
    from twisted_sendmail.smtp import Reply

#: The default address and ports.
HOST = "127.0.0.1"
PORT = 2525
TLS_PORT = 2465


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Run a submission server on the loopback interface that accepts every message, from any user "
        "with any password, with STARTTLS, implicit TLS or in clear. One line is printed for each "
        "message. Nothing is delivered. End it with Ctrl-C."
    )
    add_options_of(
        parser,
        f"""
        --host ADDRESS      the address to listen on; {HOST}. With another one, other machines can connect: use
                            --user too
        --port PORT         for STARTTLS and clear text; {PORT}; 0: a free one
        --tls-port PORT     for implicit TLS; {TLS_PORT}; 0: a free one
        --maildir DIR       store the messages in this Maildir, which is created if it does not exist
        --ca-file FILE      write the CA certificate here, for the client to trust
        --authority FILE    keep the CA, certificate and key, in FILE, which is made if it does not exist: a
                            client needs to trust it only once. Without it each start makes a new CA
        """,
        host={"default": HOST},
        port={"type": _port, "default": PORT, "metavar": None},
        tls_port={"type": _port, "default": TLS_PORT, "metavar": None},
        **{name: {"type": Path} for name in ("maildir", "ca_file", "authority")},
    )
    user = parser.add_argument_group("authentication", PASSWORD_ORIGINS)
    add_options_of(
        user,
        "--user NAME  accept mail only after STARTTLS or in implicit TLS, from NAME with the password",
    )
    add_password_options(user)


def execute(args: Namespace) -> int:
    """Run the server until a signal ends it; the exit status."""
    return react(lambda reactor: _serve(reactor, args))


async def _serve(reactor: Any, args: Namespace) -> int:
    maildir = _open_maildir(args.maildir)

    def receive(connection: ConnectionInfo) -> _CatchingReceiver:
        return _CatchingReceiver(connection, reactor, maildir)

    users = _users(args)
    server = LoopbackServer(
        reactor,
        host=args.host,
        port=args.port,
        tls_port=args.tls_port,
        users=users,
        receiver=receive,
        authority=_authority(args.authority),
    )
    _write_ca_file(server.authority.pem, args.ca_file)
    try:
        await server.start()
    except CannotListenError as e:
        raise CommandError(
            f"port {e.port} cannot be listened on: {e.socketError.strerror}; choose another with "
            "--port and --tls-port, or another address with --host",
            ExitStatus.UNAVAILABLE,
        ) from None
    who = "any user, any password" if users is None else f"user {printable(args.user, 80)}"
    print_note(f"catching at {server.url} and {server.tls_url}, {who}")
    print_note(f"the CA certificate is in {args.ca_file or server.ca_file}")
    print_note(server.authority.pem.decode("ascii").rstrip())
    try:
        await Deferred[None]()
    except CancelledError:
        pass
    finally:
        await server.stop()
    return ExitStatus.OK


def _users(args: Namespace) -> dict[str, str] | None:
    if args.user is not None:
        return {args.user: new_password(args, args.user)}
    if args.password_file is not None or args.password_command is not None:
        raise CommandError("there is a password but no user; add --user")
    return None


def _authority(path: Path | None) -> Authority | None:
    if path is None:
        return None
    try:
        return Authority.kept(path)
    except OSError as e:
        raise CommandError(
            f"the authority {path} cannot be used: {e.strerror}", ExitStatus.CANTCREAT
        ) from None


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise ArgumentTypeError(f"'{text}' is no port, which is a number from 0 to 65535")


class _CatchingReceiver(RecordingReceiver):
    """Stores a message in the Maildir, then prints its line, then accepts it."""

    def __init__(self, connection: ConnectionInfo, reactor: Any, maildir: Maildir | None) -> None:
        self._caught: list[ReceivedMessage] = []
        super().__init__(connection, self._caught.append)
        self._reactor = reactor
        self._maildir = maildir

    async def commit(self) -> Reply | None:
        super().commit()
        message = self._caught.pop()
        maildir = self._maildir
        if maildir is not None:
            try:
                await off_reactor(self._reactor, lambda: maildir.add(_stored(message)))
            except OSError as e:
                print_error(f"a message could not be stored: {e.strerror}")
                return INSUFFICIENT_STORAGE
        print_result(_line(message))
        return None


def _stored(message: ReceivedMessage) -> bytes:
    """Return the message after two fields with its envelope, which the content does not hold."""
    envelope = [b"Return-Path: " + message.sender.wire.encode()]
    envelope += [b"Delivered-To: " + str(r).encode() for r in message.recipients]
    return b"\n".join([*envelope, message.content.replace(b"\r\n", b"\n")])


def _line(message: ReceivedMessage) -> str:
    try:
        subject = str(message.email.get("Subject", ""))
    except (MessageError, ValueError, LookupError, AttributeError):
        subject = "(unreadable subject)"
    to = ", ".join(str(recipient) for recipient in message.recipients)
    how = message.tls.version if message.tls else "in clear"
    who = f" by {message.user}" if message.user is not None else ""
    text = f"{message.id}  {message.sender} -> {to}  {subject!r}  {len(message.content)} octets, {how}{who}"
    return printable(text, limit=1000)


def _open_maildir(path: Path | None) -> Maildir | None:
    if path is None:
        return None
    try:
        return Maildir(path, factory=None, create=True)
    except OSError as e:
        raise CommandError(
            f"Maildir {path} cannot be used: {e.strerror}", ExitStatus.CANTCREAT
        ) from None


def _write_ca_file(pem: bytes, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.write_bytes(pem)
    except OSError as e:
        raise CommandError(
            f"CA file {path} cannot be written: {e.strerror}", ExitStatus.CANTCREAT
        ) from None
