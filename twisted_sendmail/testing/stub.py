"""A mailer that sends nothing, and remembers what it was asked to send.

The message is prepared exactly as for sending: the envelope comes from the header,
``Bcc`` is taken out, ``Date`` and ``Message-ID`` are added, and what cannot be sent is
refused with the same errors.  Only the server is missing; what it would have said can
be told beforehand.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_sendmail.client import require_acceptance
from twisted_sendmail.message import prepare
from twisted_sendmail.smtp import DeliveryReport, RecipientResult, RecipientStatus, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from email.message import EmailMessage

    from twisted_sendmail.client import Item
    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath


@dataclass(frozen=True)
class SentMessage:
    """One message that would have been sent."""

    #: Who sends, who receives.
    envelope: Envelope
    #: The octets that would have been sent, with CRLF line ends.
    content: bytes
    #: What the caller was told.
    report: DeliveryReport
    #: Where it was to go, when :meth:`StubMailer.submit` was told.
    server: object = None

    @property
    def email(self) -> EmailMessage:
        """The content, parsed by the standard library."""
        return message_from_bytes(self.content, policy=policy.default)


class StubMailer:
    """Give it to the program under test instead of the real one."""

    def __init__(self) -> None:
        #: What was sent, in order; what nobody would have accepted is not here.
        self.sent: list[SentMessage] = []
        #: True after :meth:`aclose`.
        self.closed = False
        self._refusals: dict[str, Reply] = {}
        self._failures: deque[Exception] = deque()

    # -- what the server would have said --------------------------------------

    def refuse(self, address: str, code: int = 550, text: str = "5.1.1 No such user") -> None:
        """From now on this recipient is refused."""
        self._refusals[address] = Reply(code, (text,))

    def fail(self, error: Exception) -> None:
        """The next message fails with *error*; called twice, the next two."""
        self._failures.append(error)

    def clear(self) -> None:
        """Forget everything."""
        self.sent.clear()
        self._refusals.clear()
        self._failures.clear()

    # -- as the real ones -----------------------------------------------------

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
        """Remember one message; the arguments and errors are those of ``submit``."""

        async def send() -> DeliveryReport:
            report = await self._send(
                message,
                server,
                all_or_nothing=all_or_nothing,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                complete=complete,
            )
            return require_acceptance(report)

        return Deferred.fromCoroutine(send())

    def submit(
        self, reactor: Any, server: object, message: Message, **options: Any
    ) -> Deferred[DeliveryReport]:
        """To be called as :func:`twisted_sendmail.submit` is."""
        return self.send(message, server=server, **options)

    def send_many(
        self, messages: Iterable[Item] | AsyncIterable[Item]
    ) -> Deferred[list[DeliveryReport]]:
        """Remember several; a refused one does not stop the next."""

        async def send_many() -> list[DeliveryReport]:
            reports = []
            async for item in _each(messages):
                envelope, message = item if isinstance(item, tuple) else (None, item)
                reports.append(await self._send(message, None, envelope=envelope))
            return reports

        return Deferred.fromCoroutine(send_many())

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    async def _send(
        self, message: Message, server: object, *, all_or_nothing: bool = False, **options: Any
    ) -> DeliveryReport:
        if self._failures:
            raise self._failures.popleft()
        letter = await prepare(message, now=time.time(), **options)
        pieces = []
        try:
            while piece := await letter.read():
                pieces.append(piece)
        finally:
            await letter.close()
        content = b"".join(pieces)
        yes = Reply(250, (f"2.0.0 Ok: queued as STUB{len(self.sent) + 1}",))
        refused = [self._refusals.get(str(r)) for r in letter.envelope.recipients]
        nobody = all(refused) or (all_or_nothing and any(refused))
        outcomes = []
        for recipient, no in zip(letter.envelope.recipients, refused, strict=True):
            if no:
                outcomes.append(RecipientResult(recipient, RecipientStatus.REFUSED, no))
            elif nobody:
                outcomes.append(RecipientResult(recipient, RecipientStatus.UNTOUCHED))
            else:
                outcomes.append(RecipientResult(recipient, RecipientStatus.ACCEPTED, yes))
        report = DeliveryReport(
            letter.envelope,
            tuple(outcomes),
            reply=None if nobody else yes,
            size=len(content),
            message_id=letter.message_id,
        )
        if not nobody:
            self.sent.append(SentMessage(letter.envelope, content, report, server))
        return report


async def _each(messages: Any) -> Any:
    if hasattr(messages, "__aiter__"):
        async for message in messages:
            yield message
    else:
        for message in messages:
            yield message
