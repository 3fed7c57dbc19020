"""What happens to mail: the interface an application implements to receive it.

One :class:`Receiver` is made for each message.  Its methods are called in the order
``sender``, ``recipient`` (once each), ``write`` (any number), and at the end either
``commit`` or ``abort``, exactly one of them, exactly once.  The client is told 250
only after ``commit`` has succeeded.

Every method may return its result, a Deferred or a coroutine.  ``None`` means yes; a
:class:`~twisted_sendmail.smtp.reply.Reply` with 4yz or 5yz is a refusal; an exception
is our own trouble, logged, and told as 451.  While one is pending the client is not
read: that is the back-pressure.

RFC 5321 sections 3.3 and 4.2.5; RFC 2033 section 4.2 (several verdicts).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import MailParameters, Reply, Verb

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from twisted_sendmail.smtp import Recipient, ReversePath, TLSFacts, Transcript

Answer = Reply | None | Awaitable[Reply | None]
Verdict = Reply | Sequence[Reply] | None | Awaitable[Reply | Sequence[Reply] | None]


@dataclass
class ConnectionInfo:
    """What is known of the one who sends; it grows as the session goes on."""

    #: Our name, as the greeting has it.
    name: str
    #: Where from.
    peer: IAddress
    #: Where to.
    host: IAddress
    #: The dialogue so far, without secrets.
    transcript: Transcript
    #: The name given in EHLO, HELO or LHLO; None before.
    hello: str | None = None
    #: How it was given; None before.
    verb: Verb | None = None
    #: The TLS session; None in clear.
    tls: TLSFacts | None = None
    #: Who authenticated; None for nobody.
    user: str | None = None
    #: What a ``twisted.cred`` realm gave for that user.
    avatar: object = None

    def protocol(self, *, smtputf8: bool = False) -> str:
        """``SMTP``, ``ESMTPSA``, ``LMTPS``, ``UTF8SMTPSA`` …: how mail is coming in.

        RFC 3848, RFC 6531 section 4.3.
        """
        verb = self.verb
        if verb is None or verb is Verb.HELO:
            return "SMTP"
        name = "LMTP" if verb is Verb.LHLO else "SMTP" if smtputf8 else "ESMTP"
        name = f"UTF8{name}" if smtputf8 else name
        return name + ("S" if self.tls else "") + ("A" if self.user is not None else "")


@dataclass
class Receiver:
    """Accepts everything and keeps nothing: inherit, and override what matters.

    :param connection: who sends.
    """

    connection: ConnectionInfo
    #: Our name for the message, told in the 250 and in the Received field.
    id: str = field(default_factory=lambda: secrets.token_hex(6).upper(), init=False)

    def sender(self, sender: ReversePath, parameters: MailParameters) -> Answer:
        """MAIL: may this sender send, with these parameters?"""
        return None

    def recipient(self, recipient: Recipient) -> Answer:
        """RCPT: may this one have it?  A refused one is forgotten."""
        return None

    def write(self, data: bytes) -> Answer:
        """Some content, as it is to be kept: CRLF line ends, not dot-stuffed.

        A refusal ends it: the client gets to know it when it has sent all.
        """
        return None

    def write_last(self, data: bytes) -> Answer:
        """The same as ``write``, which it calls, where it is known that nothing comes behind.

        It is not called for every message; but no ``write`` follows it.
        """
        return self.write(data)

    def commit(self) -> Verdict:
        """All of it has arrived: keep it.  From the 250 on it is ours to answer for.

        A Reply may be a success too, to say more than ``Ok``.  In LMTP, one for all or
        one for each accepted recipient, in order.
        """
        return None

    def abort(self) -> Awaitable[None] | None:
        """It will not come: throw away what there is."""
        return None
