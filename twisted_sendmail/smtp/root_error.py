"""The root of every error of this package, and the errors of bad input.

Below the values that can be wrong, so that an address can refuse itself;
``errors`` holds the rest of the tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from twisted_sendmail.smtp.escape import printable

if TYPE_CHECKING:
    from twisted_sendmail.smtp.reply import EnhancedStatus, Reply
    from twisted_sendmail.smtp.result import DeliveryReport
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript

_Self = TypeVar("_Self", bound="SendmailError")


class SendmailError(Exception):
    """Mail could not be sent, or not as it was asked for.

    ``str()`` is one line a person can act on; it never holds a secret, and
    nothing in it can act on a terminal.

    :param what: what failed, such as ``RCPT TO:<x@example.net> refused``.
    :param detail: why, when no reply says it.
    """

    #: The cause may pass: what failed may work later.  It says nothing of the message, which
    #: somebody may have by then: that is ``transient``.
    temporary: bool = False
    #: Is the connection still good for another message?
    connection_usable: bool = False
    #: What to do about it; empty when the reply says all there is to say.
    remedy: str = ""

    def __init__(
        self,
        what: str,
        *,
        detail: str = "",
        remedy: str | None = None,
        phase: str | None = None,
        command: str | None = None,
        reply: Reply | None = None,
        recipient: str | None = None,
        host: str | None = None,
        tls: TLSFacts | None = None,
        transcript: Transcript | None = None,
        report: DeliveryReport | None = None,
    ) -> None:
        super().__init__(what)
        #: What failed.
        self.what = what
        #: Why.
        self.detail = detail
        if remedy is not None:
            self.remedy = remedy
        #: Where in the session: ``connect``, ``greeting``, ``EHLO``, ``TLS``, ``AUTH``, …
        self.phase = phase
        #: The command, without secrets.
        self.command = command
        #: What the server said.
        self.reply = reply
        #: Whom it concerns, when it is one recipient.
        self.recipient = recipient
        #: ``name[address]:port``.
        self.host = host
        #: The TLS session, once there is one.
        self.tls = tls
        #: The dialogue so far, redacted.
        self.transcript = transcript
        #: What became of each recipient, when the message had begun.
        self.report = report

    @property
    def in_doubt(self) -> bool:
        """Is it unknown of any recipient whether the server has the message?

        Then sending it again may make a second copy, and the error is not ``transient``.
        """
        return any(report.in_doubt for report in self._known())

    @property
    def transient(self) -> bool:
        """May all of the same be tried again later, with no second copy for anybody?

        True if the cause is ``temporary``, no recipient is in doubt and none was accepted.
        """
        accepted = any(report.accepted for report in self._known())
        return self.temporary and not accepted and not self.in_doubt

    def _known(self) -> tuple[DeliveryReport, ...]:
        """What became of the messages of the call that failed; nothing of one that was not begun."""
        return () if self.report is None else (self.report,)

    @property
    def enhanced(self) -> EnhancedStatus | None:
        """The enhanced status code of the reply, if it has one."""
        return self.reply.enhanced if self.reply else None

    def at(
        self: _Self,
        *,
        host: str | None = None,
        tls: TLSFacts | None = None,
        transcript: Transcript | None = None,
        report: DeliveryReport | None = None,
    ) -> _Self:
        """Fill in what is not known yet, and return this error."""
        self.host = self.host or host
        self.tls = self.tls or tls
        self.transcript = self.transcript or transcript
        self.report = self.report or report
        return self

    def copy(self: _Self) -> _Self:
        """The same error for another message, with no report yet; this one is its cause."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.args = self.args
        copy.report = None
        copy.__cause__ = self
        return copy

    def __str__(self) -> str:
        text = self.what
        if self.host:
            text += f" {'by' if self.reply else 'at'} {self.host}"
        why = str(self.reply) if self.reply else self.detail
        if why:
            text += f": {why}"
        if self.reply and self.detail:
            text += f" ({self.detail})"
        if self.remedy:
            text += f"; {self.remedy}"
        return printable(text, limit=1024)


class InvalidInput(SendmailError, ValueError):
    """Something given by the caller cannot be used; nothing was sent."""


class InvalidAddress(InvalidInput):
    """An address does not fit the grammar of RFC 5321 section 4.1.2."""


class InvalidMessage(InvalidInput):
    """The message, or its header, cannot be sent as it is."""


class InvalidServer(InvalidInput):
    """A server URL or a setting of a server cannot be used."""
