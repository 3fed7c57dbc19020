"""Prepare a message to be sent: the first step of every way of sending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.client.off_reactor import off_reactor
from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.message import PreparedMessage, prepare, prepare_small
from twisted_sendmail.smtp import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import AnyRecipient, ReversePath


async def prepare_message(
    reactor: Any,
    message: Message,
    *,
    sender: str | ReversePath | None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None,
    envelope: Envelope | None,
    complete: bool,
) -> PreparedMessage:
    """Read the header of *message*, find its envelope and complete it; files are read in a thread.

    :raises InvalidInput: the message cannot be sent as it is.
    :raises Cancelled: the caller cancelled; nothing was sent.
    """
    if envelope is None and sender is not None and recipients is not None:
        envelope, sender, recipients = Envelope(sender, recipients), None, None
    if envelope is not None and sender is None and recipients is None:
        small = prepare_small(message, envelope, now=reactor.seconds(), complete=complete)
        if small is not None:
            return small
    try:
        return await prepare(
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            complete=complete,
            now=reactor.seconds(),
            run_blocking=lambda work: off_reactor(reactor, work),
        )
    except CancelledError:
        raise Cancelled("cancelled while the message was read") from None
