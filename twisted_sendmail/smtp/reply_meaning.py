"""The meaning of a refusal: what the reply is about, and whether the same may work later.

The client, the relay and the commands all decide by this module, and by nothing else.

RFC 5321 sections 4.2.1 and 4.5.3.1.10, RFC 4954 section 6.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from twisted_sendmail.smtp.reply import Reply

#: The server does not accept the client's credentials, whatever the command was.
_SENDER_UNKNOWN = frozenset({530, 534, 535, 538})
#: Enhanced status "too many recipients", without its class (RFC 3463 section 3.6).
_TOO_MANY_RECIPIENTS = (5, 3)
#: "Other or undefined status", as telling as no code.
_NO_DETAIL = (0, 0)


class ReplySubject(enum.Enum):
    """The subject of a refusal."""

    #: The session: the server closes the connection (421).
    CONNECTION = "connection"
    #: The client: the server requires other credentials, or none were given.
    CREDENTIALS = "credentials"
    #: The order of the commands (503): the reply does not concern the message.
    COMMAND = "command"
    #: The message, or its sender.
    MESSAGE = "message"
    #: One recipient.
    RECIPIENT = "recipient"
    #: The number of recipients: the server takes this one in a transaction with fewer.
    TOO_MANY_RECIPIENTS = "too many recipients"


class ReplyMeaning(NamedTuple):
    """Classification of one refusal."""

    subject: ReplySubject
    #: The same may be accepted later.
    transient: bool


def classify_reply(
    reply: Reply, *, to_rcpt: bool = False, accepted_before: bool = False
) -> ReplyMeaning:
    """Return the subject of the refusal *reply*, and whether it is transient.

    :param to_rcpt: it answered RCPT, not MAIL, DATA or the content.
    :param accepted_before: an earlier recipient of the same transaction was accepted.
    """
    code = reply.code
    if code == 421:
        return ReplyMeaning(ReplySubject.CONNECTION, transient=True)
    if code in _SENDER_UNKNOWN:
        return ReplyMeaning(ReplySubject.CREDENTIALS, transient=False)
    if code == 503:
        return ReplyMeaning(ReplySubject.COMMAND, transient=False)
    transient = not reply.permanent
    if not to_rcpt:
        return ReplyMeaning(ReplySubject.MESSAGE, transient)
    status = reply.enhanced
    detail = _NO_DETAIL if status is None else (status.subject, status.detail)
    if detail == _NO_DETAIL:
        # Servers before RFC 5321 reply 552, which also means "mailbox full"; but hardly so after
        # another recipient was accepted.
        too_many = code == 552 and accepted_before
    else:
        too_many = detail == _TOO_MANY_RECIPIENTS
    if too_many:
        return ReplyMeaning(ReplySubject.TOO_MANY_RECIPIENTS, transient=True)
    return ReplyMeaning(ReplySubject.RECIPIENT, transient)
