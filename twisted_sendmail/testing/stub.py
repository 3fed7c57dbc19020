"""A mailer that records messages instead of sending them.

Messages are prepared as for sending: the envelope is read from the header, ``Bcc`` is removed,
``Date`` and ``Message-ID`` are added, and the errors are the same. Replies of the missing server
can be set in advance.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_sendmail.message import prepare
from twisted_sendmail.smtp import (
    DeliveryReport,
    RecipientResult,
    RecipientStatus,
    Reply,
    require_acceptance,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from email.message import EmailMessage

    from twisted_sendmail.client import Item
    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath


@dataclass(frozen=True, repr=False)
class SentMessage:
    """One recorded message."""

    envelope: Envelope
    #: The prepared octets, with CRLF line ends.
    content: bytes
    #: The report that the caller got.
    report: DeliveryReport
    #: The server given to :meth:`StubMailer.submit`.
    server: object = None

    @property
    def email(self) -> EmailMessage:
        """The content, parsed by the standard library."""
        return message_from_bytes(self.content, policy=policy.default)

    def __repr__(self) -> str:
        to = ", ".join(map(str, self.envelope.recipients))
        return f"<SentMessage {self.envelope.sender} to {to}, {len(self.content)} octets>"


class StubMailer:
    """Takes the place of a mailer, or of ``submit``, in the program under test."""

    def __init__(self) -> None:
        #: The messages with an accepted recipient, in order.
        self.sent: list[SentMessage] = []
        #: True after :meth:`aclose`.
        self.closed = False
        self._refusals: dict[str, Reply] = {}
        self._failures: deque[Exception] = deque()

    # -- setting replies -------------------------------------------------------------------------

    def refuse(self, address: str, code: int = 550, text: str = "5.1.1 No such user") -> None:
        """Refuse this recipient from now on."""
        self._refusals[address] = Reply(code, (text,))

    def fail(self, error: Exception) -> None:
        """Let the next message fail with *error*; after two calls, the next two."""
        self._failures.append(error)

    def clear(self) -> None:
        """Forget messages and replies."""
        self.sent.clear()
        self._refusals.clear()
        self._failures.clear()

    # -- sending ---------------------------------------------------------------------------------

    def send(
        self,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        all_or_nothing: bool = False,
        complete: bool = True,
        server: object = None,
    ) -> Deferred[DeliveryReport]:
        """Record one message; the arguments and errors are those of ``submit``."""
        sending = self._send(
            message,
            server,
            all_or_nothing=all_or_nothing,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            complete=complete,
        )
        return Deferred.fromCoroutine(sending).addCallback(require_acceptance)

    def submit(
        self,
        reactor: Any,
        server: object,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        all_or_nothing: bool = False,
        complete: bool = True,
    ) -> Deferred[DeliveryReport]:
        """Record one message; the arguments are those of :func:`twisted_sendmail.submit`."""
        return self.send(
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            all_or_nothing=all_or_nothing,
            complete=complete,
            server=server,
        )

    def send_many(
        self,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        all_or_nothing: bool = False,
        complete: bool = True,
    ) -> Deferred[list[DeliveryReport]]:
        """Record several messages; a refused one does not stop the next."""

        async def send_many() -> list[DeliveryReport]:
            reports = []
            async for item in _each(messages):
                envelope, message = item if isinstance(item, tuple) else (None, item)
                given = {"all_or_nothing": all_or_nothing, "complete": complete}
                reports.append(await self._send(message, envelope=envelope, **given))
            return reports

        return Deferred.fromCoroutine(send_many())

    def aclose(self, *, grace: float | None = 30.0, send_waiting: bool = True) -> Deferred[None]:
        """Set ``closed``; nothing waits."""
        self.closed = True
        return succeed(None)

    async def _send(
        self, message: Message, server: object = None, *, all_or_nothing: bool, **given: Any
    ) -> DeliveryReport:
        if self._failures:
            raise self._failures.popleft()
        prepared = await prepare(message, now=time.time(), all_or_nothing=all_or_nothing, **given)
        pieces = []
        try:
            while piece := await prepared.read():
                pieces.append(piece)
        finally:
            await prepared.close()
        envelope, content = prepared.envelope, b"".join(pieces)
        accepted = Reply(250, (f"2.0.0 Ok: queued as STUB{len(self.sent) + 1}",))
        refusals = [self._refusals.get(str(recipient)) for recipient in envelope.recipients]
        rejected = all(refusals) or (all_or_nothing and any(refusals))
        results = []
        for recipient, refusal in zip(envelope.recipients, refusals, strict=True):
            if refusal:
                results.append(RecipientResult(recipient, RecipientStatus.REFUSED, refusal))
            elif rejected:
                results.append(RecipientResult(recipient, RecipientStatus.UNTOUCHED))
            else:
                results.append(RecipientResult(recipient, RecipientStatus.ACCEPTED, accepted))
        report = DeliveryReport(
            envelope,
            (*results, *prepared.refused),
            reply=None if rejected else accepted,
            size=len(content),
            message_id=prepared.message_id,
        )
        if not rejected:
            self.sent.append(SentMessage(envelope, content, report, server))
        return report


async def _each(messages: Any) -> Any:
    if hasattr(messages, "__aiter__"):
        async for message in messages:
            yield message
    else:
        for message in messages:
            yield message
