"""What a server session wants of those around it.

A :class:`Question` waits for ``ServerSession.answer``; nothing else is read before
it has one.  The others are told and done.  What there is one of for every message is not
frozen, as that would cost more than all the rest of it; nobody changes it all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_sendmail.smtp.address import ReversePath
    from twisted_sendmail.smtp.command import Verb
    from twisted_sendmail.smtp.envelope import Recipient
    from twisted_sendmail.smtp.mail_parameters import MailParameters


class Event:
    """Something happened."""

    __slots__ = ()


class Question(Event):
    """Something is asked; the answer is a reply."""

    __slots__ = ()


@dataclass(frozen=True)
class HelloSaid(Event):
    """EHLO, HELO or LHLO was said and answered."""

    domain: str
    verb: Verb


@dataclass(frozen=True)
class TLSWanted(Event):
    """220 was said: write what there is to write, then start TLS, then ``tls_started``."""


@dataclass(frozen=True)
class AuthStarted(Question):
    """AUTH: 235, a refusal, or ``ServerSession.challenge``."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:
        return f"AuthStarted(mechanism={self.mechanism!r})"


@dataclass(frozen=True)
class AuthContinued(Question):
    """The answer to a challenge."""

    response: bytes

    def __repr__(self) -> str:
        return "AuthContinued(****)"


@dataclass(frozen=True)
class AuthCancelled(Event):
    """The client broke the exchange off; it has been answered."""


@dataclass(slots=True)
class SenderGiven(Question):
    """MAIL."""

    sender: ReversePath
    parameters: MailParameters


@dataclass(slots=True)
class RecipientGiven(Question):
    """RCPT."""

    recipient: Recipient


@dataclass(slots=True)
class ContentOffered(Question):
    """DATA, or the first BDAT: 354, or a refusal."""


@dataclass(slots=True)
class ContentArrived(Event):
    """Some content, unstuffed."""

    data: bytes

    def __repr__(self) -> str:
        return f"ContentArrived({len(self.data)} octets)"


@dataclass(slots=True)
class ContentEnded(Question):
    """All of the content has arrived: the verdict is asked for.

    In LMTP one for each recipient, in order.
    """

    size: int


@dataclass(frozen=True)
class TransactionAborted(Event):
    """The message so far is void: RSET, EHLO, or a content that was refused."""

    reason: str


@dataclass(frozen=True)
class SessionEnded(Event):
    """Write what there is to write, then close."""

    reason: str
