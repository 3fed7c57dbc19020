"""The meaning of a refusal: what the reply is about, and whether the same may work later.

The client, the relay and the commands decide by this module what to do after a refusal.  The class
of the exception that reports it follows in ``errors.refusal``, and its exit status in
``exit_status``.

RFC 5321 sections 4.2.1, 4.2.4 and 4.5.3.1.10, RFC 4954 section 6.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.smtp.reply import Reply

#: The server does not accept the client's credentials, whatever the command was.
_SENDER_UNKNOWN = frozenset({530, 534, 535, 538})
#: The server does not implement the command (500, 502) or a parameter (504, 555), or the commands are
#: out of order (503).
_ABOUT_COMMAND = frozenset({500, 502, 503, 504, 555})
#: Replies to EHLO of a server that may accept HELO (RFC 5321 section 4.1.4).
EHLO_UNKNOWN = frozenset({500, 501, 502, 504})
#: Replies to BDAT of a server that does not implement the command, though it offers CHUNKING.
UNKNOWN_COMMAND = frozenset({500, 502})
_UNKNOWN_PARAMETER = frozenset({504, 555})
#: Parameters without which a message is delivered as well.  Not BODY, SMTPUTF8, REQUIRETLS, AUTH
#: and NOTIFY: without them content is damaged, or a wish of the sender is ignored.
_OPTIONAL_PARAMETERS = frozenset({"SIZE", "RET", "ENVID", "ORCPT"})
#: Enhanced status "too many recipients", without its class (RFC 3463 section 3.6).
_TOO_MANY_RECIPIENTS = (5, 3)
#: "Other or undefined status": no more than the reply code.
_NO_DETAIL = (0, 0)


class ReplySubject(enum.Enum):
    """The subject of a refusal."""

    #: The session: the server closes the connection (421).
    CONNECTION = "connection"
    #: The client: the server requires other credentials, or none were given.
    CREDENTIALS = "credentials"
    #: The command, a parameter, or the order of the commands: the reply does not concern the message.
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
    if code in _ABOUT_COMMAND:
        return ReplyMeaning(ReplySubject.COMMAND, transient=False)
    transient = not reply.permanent
    if not to_rcpt:
        return ReplyMeaning(ReplySubject.MESSAGE, transient)
    status = reply.enhanced
    detail = _NO_DETAIL if status is None else (status.subject, status.detail)
    if detail == _TOO_MANY_RECIPIENTS:
        # Servers also use 5.5.3 as a general refusal, with another code than 552: then they mean
        # the number only if others were accepted.
        too_many = transient or code == 552 or accepted_before
    else:
        # Servers before RFC 5321 reply 552, which also means "mailbox full"; but hardly so after
        # another recipient was accepted.
        too_many = code == 552 and detail == _NO_DETAIL and accepted_before
    if too_many:
        return ReplyMeaning(ReplySubject.TOO_MANY_RECIPIENTS, transient=True)
    return ReplyMeaning(ReplySubject.RECIPIENT, transient)


def refused_parameters(reply: Reply, parameters: Iterable[str]) -> frozenset[str]:
    """Return the parameters that may be left out where *reply* refused MAIL or RCPT.

    These are the optional ones that the reply names, or all of them if it names none.

    :param parameters: the keywords of the parameters that the command had.
    """
    if reply.code not in _UNKNOWN_PARAMETER:
        return frozenset()
    optional = _OPTIONAL_PARAMETERS.intersection(parameters)
    words = frozenset(re.findall(r"[A-Z]+", reply.text.upper()))
    return optional & words or optional
