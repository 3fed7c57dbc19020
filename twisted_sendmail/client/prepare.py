"""Prepare a message to be sent: the first step of every way of sending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.message import PreparedMessage, prepare
from twisted_sendmail.off_reactor import off_reactor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath


async def prepare_message(
    reactor: Any,
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    complete: bool = True,
    fix_header: bool = True,
) -> PreparedMessage:
    """Call :func:`~twisted_sendmail.message.prepared.prepare`; files are read in a thread.

    :raises InvalidInput: the message cannot be sent as it is.
    :raises Cancelled: the caller cancelled; nothing was sent.
    """
    try:
        return await prepare(
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            complete=complete,
            fix_header=fix_header,
            now=reactor.seconds(),
            run_blocking=lambda work: off_reactor(reactor, work),
        )
    except CancelledError:
        raise Cancelled("cancelled while the message was read") from None
