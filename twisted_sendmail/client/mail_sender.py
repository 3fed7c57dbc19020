"""``MailSender``: the type of an object that sends mail, for the annotations of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath


class MailSender(Protocol):
    """An object with the ``send`` of a mailer.

    :class:`~twisted_sendmail.Mailer`, :class:`~twisted_sendmail.MailerService`,
    :class:`~twisted_sendmail.RelayService` and
    :class:`~twisted_sendmail.testing.stub.StubMailer` are such objects: a program that is written
    for a ``MailSender`` works with each, and its tests with the stub.
    """

    def send(
        self,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        complete: bool = True,
    ) -> Deferred[Any]:
        """Send one message; the parameters are those of :func:`~twisted_sendmail.submit`.

        :returns: fires when responsibility for the message was taken over: with a
            :class:`~twisted_sendmail.DeliveryReport` by a server, or with a
            :class:`~twisted_sendmail.Queued` by a relay's queue.
        :raises SendmailError: it was not.

        Cancelling is that of the object's own ``send``.
        """
