"""``many``: several messages over one connection, one after the other.

A refused message does not stop the next.  A connection that dies is replaced, and
the message it died under is sent again only where the server cannot have it.

RFC 5321 section 4.1.4 (several transactions in a session).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union

from twisted.internet.defer import CancelledError, Deferred

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.deadline import within
from twisted_sendmail.client.delivery import deliver
from twisted_sendmail.client.prepared_message import prepared
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.submit import told_first
from twisted_sendmail.client.verdict import may_go_again
from twisted_sendmail.smtp import (
    DeliveryReport,
    Envelope,
    InvalidInput,
    InvalidMessage,
    RecipientResult,
    RecipientStatus,
    SendmailError,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import Message, PreparedMessage

#: A message whose header says who sends and receives it, or an envelope and a message.
Item = Union["Message", "tuple[Envelope, Message]"]


def many(
    reactor: Any,
    server: str | SubmissionServer,
    messages: Iterable[Item] | AsyncIterable[Item],
    *,
    all_or_nothing: bool = False,
    complete: bool = True,
) -> Deferred[list[DeliveryReport]]:
    """Send several messages over one connection.

    :param reactor: connects and keeps time.
    :param server: a URL or a :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :param messages: messages, or pairs of an :class:`~twisted_sendmail.smtp.envelope.Envelope`
        and a message; pulled one at a time.
    :param all_or_nothing: each message to all of its recipients, or to none.
    :param complete: add ``Date`` and ``Message-ID`` where missing, remove ``Bcc``.
    :returns: fires with a report for each message, in order.  A report says in
        ``outcomes`` what became of each recipient, and in ``error`` why somebody has no
        verdict, or why the message could not be sent at all.
    :raises SendmailError: no connection could be made ready for the first message.
    :raises Exception: what *messages* itself raises.

    ``timeouts.total`` holds for each message.  Cancelling closes the connection and
    fails with a :class:`~twisted_sendmail.client.connection.Cancelled`, whose ``reports``
    are those of the messages begun.
    """
    sequence = _Sequence(reactor, server, all_or_nothing=all_or_nothing, complete=complete)
    return told_first(Deferred.fromCoroutine(sequence.run(messages)), sequence.leave)


class _Sequence:
    """The state of one call: its connection, and the reports so far."""

    def __init__(
        self, reactor: Any, server: str | SubmissionServer, *, all_or_nothing: bool, complete: bool
    ) -> None:
        self._reactor = reactor
        self._given = server
        self._all_or_nothing = all_or_nothing
        self._complete = complete
        self._protocol: SubmissionProtocol | None = None
        self._reports: list[DeliveryReport] = []
        # Why no connection can be had any more: asked once, not once a message.
        self._gone: SendmailError | None = None
        self._envelope: Envelope | None = None

    async def run(self, messages: Iterable[Item] | AsyncIterable[Item]) -> list[DeliveryReport]:
        server = SubmissionServer.of(self._given)
        try:
            async for item in each(messages):
                self._reports.append(await self._report(server, item))
        except CancelledError as error:
            cancelled = error if isinstance(error, Cancelled) else Cancelled("cancelled")
            if cancelled.report is not None:
                self._reports.append(replace(cancelled.report, error=cancelled))
            cancelled.reports = tuple(self._reports)
            raise cancelled from None
        return self._reports

    def leave(self) -> None:
        """The results are told: end the session."""
        if self._protocol is not None:
            self._protocol.leave()

    async def _report(self, server: SubmissionServer, item: Item) -> DeliveryReport:
        self._envelope = None
        seconds = server.timeouts.total
        try:
            return await within(
                self._reactor, seconds, self._one(server, item), f"a message to {server}"
            )
        except Cancelled:
            raise
        except SendmailError as error:
            bad_message = isinstance(error, InvalidInput) and error is not self._gone
            if self._protocol is None and not bad_message:
                raise  # there never was a connection
            return (
                replace(error.report, error=error)
                if error.report
                else unsent(self._envelope, error)
            )
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - what one message raises must not stop the next
            return unsent(self._envelope, unreadable(error))

    async def _one(self, server: SubmissionServer, item: Item) -> DeliveryReport:
        self._envelope, message = item if isinstance(item, tuple) else (None, item)
        letter = await prepared(
            self._reactor,
            message,
            sender=None,
            recipients=None,
            envelope=self._envelope,
            complete=self._complete,
        )
        self._envelope = letter.envelope
        try:
            reused = self._protocol is not None and self._protocol.usable
            report = await self._transact(server, letter)
            if reused and may_go_again(report, letter):
                # A connection that had served before may have been dead already.  What
                # the server cannot have is sent once more, over another one.
                letter.rewind()
                report = await self._transact(server, letter)
        finally:
            await letter.close()
        return report

    async def _transact(self, server: SubmissionServer, letter: PreparedMessage) -> DeliveryReport:
        if self._gone is not None:
            return unsent(letter.envelope, self._gone)
        protocol = self._protocol
        if protocol is None or not protocol.usable:
            self.leave()
            try:
                protocol = await open_session(self._reactor, server)
            except SendmailError as error:
                if not isinstance(error, Cancelled):
                    self._gone = error
                raise
            self._protocol = protocol
        return await deliver(protocol, letter, all_or_nothing=self._all_or_nothing)


async def each(messages: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    """The items of an iterable of either kind.

    :raises InvalidMessage: it is none.
    """
    if hasattr(messages, "__aiter__"):
        async for item in messages:
            yield item
    else:
        for item in checked(messages):
            yield item


def checked(messages: Iterable[Item]) -> Iterable[Item]:
    """*messages*, if they are some.

    :raises InvalidMessage: it is one message, or none at all.
    """
    if isinstance(messages, (str, bytes)) or not hasattr(messages, "__iter__"):
        msg = f"messages cannot be {type(messages).__name__}"
        raise InvalidMessage(msg, remedy="give a list of messages, or use submit() for one")
    return messages


def unsent(envelope: Envelope | None, error: SendmailError) -> DeliveryReport:
    """The report of a message that no server has seen."""
    outcomes = (
        tuple(RecipientResult(r, RecipientStatus.UNTOUCHED) for r in envelope.recipients)
        if envelope
        else ()
    )
    return DeliveryReport(
        envelope, outcomes, host=error.host, tls=error.tls, transcript=error.transcript, error=error
    )


def unreadable(error: Exception) -> InvalidMessage:
    """The error of a message whose own source failed."""
    wrapped = InvalidMessage(
        "the message could not be read", detail=f"{type(error).__name__}: {printable(str(error))}"
    )
    wrapped.__cause__ = error
    return wrapped
