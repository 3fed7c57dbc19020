"""Scripted faults of a test server, in any combination.

::

    faults=[refuse_recipient("x@example.net"), close("dot"), single_bytes()]

A fault happens at a *moment*: a command (``EHLO``, ``STARTTLS``, ``AUTH``, ``MAIL``, ``RCPT``,
``DATA``, ``BDAT``, ``RSET``, ``NOOP``, ``QUIT``), ``greeting``, ``content`` (while it is received) or
``dot`` (the whole content has been received, by DATA or BDAT). A message that is refused at the
dot is not recorded. If the connection ends or stalls at the dot, the server has accepted the
message and the client is in doubt. ``nth`` selects the first, second … time, over all
connections; without it the fault happens each time.
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


class FaultAction(enum.Enum):
    """An action in place of a reply."""

    CLOSE = "close the connection"
    RESET = "reset the connection"
    STALL = "stop replying and reading"


@dataclass(frozen=True)
class Fault:
    """One fault, made by the functions below."""

    at: str = ""
    reply: Reply | None = None
    action: FaultAction | None = None
    #: Octets in place of the reply.
    instead: bytes | None = None
    #: Octets after the reply, in the same segment.
    injected: bytes = b""
    address: str | None = None
    nth: int | None = None
    #: Octets after which the connection is closed.
    close_after: int | None = None
    single_bytes: bool = False
    #: Names of the certificate, time until it expires, and whether the server's authority signs it.
    certificate: tuple[Sequence[str], timedelta, bool] | None = None
    #: EHLO keywords that are not offered.
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at and self.at not in MOMENTS:
            raise InvalidInput(
                f"'{self.at}' is not a moment of a session",
                remedy=f"use one of {', '.join(sorted(MOMENTS))}",
            )


def _reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise InvalidInput(f"'{text}' is not a reply", remedy="write it as 550 5.1.1 No such user")
    return Reply(int(code), (rest,))


def refuse(at: str, reply: str, *, address: str | None = None, nth: int | None = None) -> Fault:
    """Send *reply*, such as ``"451 4.3.0 Try later"``; for *address* only, if given."""
    return Fault(at, reply=_reply(reply), address=address, nth=nth)


def refuse_recipient(
    address: str, reply: str = "550 5.1.1 No such user", *, nth: int | None = None
) -> Fault:
    """Refuse this recipient."""
    return refuse("RCPT", reply, address=address, nth=nth)


def close(at: str, *, nth: int | None = None) -> Fault:
    """Close the connection in place of the reply."""
    return Fault(at, action=FaultAction.CLOSE, nth=nth)


def reset(at: str, *, nth: int | None = None) -> Fault:
    """Reset the connection in place of the reply."""
    return Fault(at, action=FaultAction.RESET, nth=nth)


def stall(at: str, *, nth: int | None = None) -> Fault:
    """Send no reply, and read no more."""
    return Fault(at, action=FaultAction.STALL, nth=nth)


def send(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Send *octets* in place of the reply."""
    return Fault(at, instead=octets, nth=nth)


def inject(at: str, octets: bytes, *, nth: int | None = None) -> Fault:
    """Send *octets* directly after the reply, as an attacker does after the one to ``STARTTLS``."""
    return Fault(at, injected=octets, nth=nth)


def close_after(octets: int) -> Fault:
    """Close each connection after the server has sent so many octets."""
    return Fault(close_after=octets)


def single_bytes() -> Fault:
    """Send everything octet by octet."""
    return Fault(single_bytes=True)


def without(*keywords: str) -> Fault:
    """Do not offer these EHLO keywords, such as ``STARTTLS``, ``PIPELINING`` or ``AUTH``."""
    return Fault(without=tuple(keyword.upper() for keyword in keywords))


_TOMORROW = timedelta(days=1)


def expired_certificate() -> Fault:
    """Use a certificate that expired yesterday."""
    return Fault(certificate=(("localhost", "127.0.0.1"), -_TOMORROW, True))


def certificate_for(*names: str) -> Fault:
    """Use a certificate for other names; for no name, if none is given."""
    return Fault(certificate=(names, _TOMORROW, True))


def unknown_authority() -> Fault:
    """Use a certificate of another authority than ``ca_file``."""
    return Fault(certificate=(("localhost", "127.0.0.1"), _TOMORROW, False))


class FaultPlan:
    """The faults of one server, and how often each moment has come.

    :param faults: the first one counts of two that are due at the same time.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self._times: Counter[int] = Counter()
        sizes = [f.close_after for f in self.faults if f.close_after is not None]
        #: Octets after which connections are closed; None: never.
        self.close_after = min(sizes, default=None)
        #: Send octet by octet.
        self.single_bytes = any(f.single_bytes for f in self.faults)
        #: EHLO keywords that are not offered.
        self.without = frozenset(word for f in self.faults for word in f.without)

    def take(self, moment: str, address: str | None = None) -> Fault | None:
        """Return the fault that is due now, and count the moment."""
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
        """Return certificate and key as one PEM text."""
        for fault in self.faults:
            if fault.certificate is not None:
                names, age, known = fault.certificate
                now = datetime.now(timezone.utc)
                signer = authority if known else Authority("unknown authority")
                return signer.issue(names, not_before=now - timedelta(days=30), not_after=now + age)
        return authority.issue()
