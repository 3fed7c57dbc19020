"""``sendmail -bs``: SMTP on stdin and stdout.

This process is the server. Each message becomes a file in the spool directory before the 250.
"""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO

from twisted_sendmail.cli.react import react
from twisted_sendmail.cli.sendmail.spool import commit, drop_envelope
from twisted_sendmail.daemon.incoming_mail import server_settings
from twisted_sendmail.drop import DropFile, new_name
from twisted_sendmail.exit_status import ExitStatus
from twisted_sendmail.queue import NO_SPACE
from twisted_sendmail.server import (
    INSUFFICIENT_STORAGE,
    ConnectionInfo,
    Networks,
    Receiver,
    SMTPServerFactory,
    SMTPServerProtocol,
)
from twisted_sendmail.smtp import Envelope, Recipient, Reply

if TYPE_CHECKING:
    from twisted_sendmail.drop import DropSettings
    from twisted_sendmail.smtp import MailParameters, ReversePath


def serve(settings: DropSettings) -> int:
    """Serve one session; the exit status."""
    gc.enable()  # a session may be long

    async def work(reactor: Any) -> int:
        session_done: Deferred[None] = Deferred()
        factory = _PipeServerFactory(
            reactor,
            lambda connection: DropReceiver(connection, settings),
            # Shell scripts write LF.
            settings=server_settings(settings, settings.name, repair=True),
            early_input=Networks(["unix"]),
        )
        factory.session_done = session_done
        protocol = factory.buildProtocol(cast("Any", None))
        StandardIO(protocol, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        await session_done
        return ExitStatus.OK

    return react(work)


class DropReceiver(Receiver):
    """Puts one message into the spool directory; an error is answered by 451."""

    def __init__(self, connection: ConnectionInfo, settings: DropSettings) -> None:
        self.connection = connection
        self.id = new_name()
        self._settings = settings
        self._recipients: list[Recipient] = []
        self._file: DropFile | None = None
        # The server's Received field: a client that does not wait for the reply to DATA could not
        # get the error that the file cannot be created.
        self._trace = b""

    def sender(self, sender: ReversePath, parameters: MailParameters) -> None:
        """Accept any sender: the relay decides who may send."""
        self._sender, self._parameters = sender, parameters

    def recipient(self, recipient: Recipient) -> None:
        """Accept any recipient."""
        self._recipients.append(recipient)

    def trace(self, field: bytes) -> None:
        """Keep the field for the first content."""
        self._trace = field

    def write(self, data: bytes) -> Reply | None:
        """Write content to the file."""
        try:
            self._opened().write(data)
        except OSError as e:
            return _refusal(e)
        return None

    def commit(self) -> Reply | None:
        """Complete the file, and notify the relay."""
        try:
            commit(self._settings, self._opened())
        except OSError as e:
            return _refusal(e)
        return None

    def abort(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.abort()

    def _opened(self) -> DropFile:
        if self._file is None:
            given = self._parameters
            envelope = Envelope(
                self._sender,
                self._recipients,
                ret=given.ret,
                envid=given.envid,
                require_tls=given.require_tls,
            )
            binary = given.body == "BINARYMIME"
            dropped = drop_envelope(envelope, binary=binary)
            self._file = file = DropFile(self._settings.directory, dropped, self.id)
            try:
                file.create()
                file.write(self._trace)
            except OSError:
                file.abort()
                self._file = None
                raise
        return self._file


def _refusal(error: OSError) -> Reply:
    if error.errno in NO_SPACE:
        return INSUFFICIENT_STORAGE
    raise error


class _LineEndRepair:
    """Turns LF into CRLF for a caller whose first line ends with LF alone.

    Shell scripts write LF, and sendmail has always accepted it. The octets of all other callers
    stay as they are, because BDAT counts them.
    """

    def __init__(self) -> None:
        self._bare: bool | None = None
        # A CR at the end of the data before.
        self._cr = b""

    def feed(self, data: bytes) -> bytes:
        """Return *data* with CRLF line ends."""
        octets = self._cr + data
        if self._bare is None and (at := octets.find(b"\n")) >= 0:
            self._bare = octets[:at][-1:] != b"\r"
        if self._bare:
            data = re.sub(rb"(?<!\r)\n", b"\r\n", octets)[len(self._cr) :]
        self._cr = b"\r" if octets.endswith(b"\r") else b""
        return data


class _PipeServerProtocol(SMTPServerProtocol):
    """Accepts LF line ends."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._line_ends = _LineEndRepair()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(self._line_ends.feed(data))


class _PipeServerFactory(SMTPServerFactory):
    """Fires *session_done* when its one session ends."""

    protocol_class = _PipeServerProtocol
    session_done: Deferred[None]

    def closed(self, protocol: SMTPServerProtocol) -> None:
        """See ``SMTPServerFactory``."""
        super().closed(protocol)
        if not self.session_done.called:
            self.session_done.callback(None)
