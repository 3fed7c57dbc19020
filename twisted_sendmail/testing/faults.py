"""Faults a test server commits on request: readable to write, free to combine.

::

    faults=[refuse_recipient("x@example.net"), close("dot"), single_bytes()]

A *moment* is where in the conversation a fault happens: the command it answers
(``EHLO``, ``STARTTLS``, ``AUTH``, ``MAIL``, ``RCPT``, ``DATA``, ``BDAT``, ``RSET``,
``NOOP``, ``QUIT``), ``greeting``, ``content`` (while it arrives) or ``dot`` (all of the
content has arrived, by DATA or BDAT).  What is refused at the dot is not kept; when the
connection ends or stalls there, the server has the message, and the client cannot know:
the case every sender has to think about.  ``nth`` chooses the first, second … time of all
connections together; without it the fault happens each time.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from twisted_sendmail.smtp import InvalidInput, Reply
from twisted_sendmail.testing.authority import Authority

MOMENTS = frozenset(
    {
        "greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT",
        "content", "dot", "RSET", "NOOP", "QUIT",
    }
)  # fmt: skip


class Act(enum.Enum):
    """What is done instead of an answer."""

    CLOSE = "close the connection"
    RESET = "reset the connection"
    STALL = "fall silent"


@dataclass(frozen=True)
class Fault:
    """One fault; the functions below make them."""

    at: str = ""
    reply: Reply | None = None
    act: Act | None = None
    #: Octets said instead of the reply.
    instead: bytes | None = None
    #: Octets said behind the reply, in the same segment.
    behind: bytes = b""
    address: str | None = None
    nth: int | None = None
    #: Close when so many octets have been said.
    close_after: int | None = None
    single_bytes: bool = False
    #: Names and age of the certificate, and whether the server's own authority signs it.
    certificate: tuple[Sequence[str], timedelta, bool] | None = None
    #: EHLO keywords not offered.
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at and self.at not in MOMENTS:
            raise InvalidInput(
                f"'{self.at}' is no moment of a conversation",
                remedy=f"choose of {', '.join(sorted(MOMENTS))}",
            )


def _reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise InvalidInput(f"'{text}' is no reply", remedy="write it as 550 5.1.1 No such user")
    return Reply(int(code), (rest,))


def refuse(at: str, reply: str, *, address: str | None = None, nth: int | None = None) -> Fault:
    """Answer with *reply*, such as ``"451 4.3.0 later"``; for *address* only, if given."""
    return Fault(at, reply=_reply(reply), address=address, nth=nth)


def refuse_recipient(
    address: str, reply: str = "550 5.1.1 No such user", *, nth: int | None = None
) -> Fault:
    """Refuse RCPT for this address."""
    return refuse("RCPT", reply, address=address, nth=nth)


def close(at: str, *, nth: int | None = None) -> Fault:
    """Close the connection instead of answering."""
    return Fault(at, act=Act.CLOSE, nth=nth)


def reset(at: str, *, nth: int | None = None) -> Fault:
    """Reset the connection instead of answering."""
    return Fault(at, act=Act.RESET, nth=nth)


def stall(at: str, *, nth: int | None = None) -> Fault:
    """Never answer, and read no more."""
    return Fault(at, act=Act.STALL, nth=nth)


def say(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Say these octets, which may be no reply at all, instead of the answer."""
    return Fault(at, instead=octets, nth=nth)


def inject(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Say these octets right behind the answer: behind ``STARTTLS`` it is the old attack."""
    return Fault(at, behind=octets, nth=nth)


def close_after(octets: int) -> Fault:
    """Close each connection when so many octets have been said on it."""
    return Fault(close_after=octets)


def single_bytes() -> Fault:
    """Say everything octet by octet."""
    return Fault(single_bytes=True)


def without(*keywords: str) -> Fault:
    """Do not offer these EHLO keywords, such as ``STARTTLS``, ``PIPELINING`` or ``AUTH``."""
    return Fault(without=tuple(keyword.upper() for keyword in keywords))


_TOMORROW = timedelta(days=1)


def expired_certificate() -> Fault:
    """Show a certificate that expired yesterday."""
    return Fault(certificate=(("localhost", "127.0.0.1"), -_TOMORROW, True))


def certificate_for(*names: str) -> Fault:
    """Show a certificate for other names; for none, when none is given."""
    return Fault(certificate=(names, _TOMORROW, True))


def unknown_authority() -> Fault:
    """Show a certificate signed by an authority that the client was not given."""
    return Fault(certificate=(("localhost", "127.0.0.1"), _TOMORROW, False))


class FaultPlan:
    """The faults of one server, and how far they have got.

    :param faults: in any order; of two at the same moment the first wins.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self._times: Counter[int] = Counter()
        sizes = [f.close_after for f in self.faults if f.close_after is not None]
        #: Octets after which to close; None: never.
        self.close_after = min(sizes, default=None)
        #: Octet by octet?
        self.single_bytes = any(f.single_bytes for f in self.faults)
        #: EHLO keywords not to offer.
        self.without = frozenset(word for f in self.faults for word in f.without)

    def take(self, moment: str, address: str | None = None) -> Fault | None:
        """The fault that is due now."""
        due: Fault | None = None
        for number, fault in enumerate(self.faults):
            if fault.at != moment:
                continue
            if fault.address is not None and fault.address != address:
                continue
            self._times[number] += 1
            if due is None and fault.nth in {None, self._times[number]}:
                due = fault
        return due

    def certificate(self, authority: Authority) -> bytes:
        """Certificate and key to show, as one PEM text."""
        for fault in self.faults:
            if fault.certificate is not None:
                names, age, known = fault.certificate
                now = datetime.now(timezone.utc)
                signer = authority if known else Authority("an authority nobody knows")
                return signer.issue(names, not_before=now - timedelta(days=30), not_after=now + age)
        return authority.issue()
