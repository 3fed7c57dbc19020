"""TLS sessions, kept for the next connection to the same server.

A resumed handshake needs no certificate and no signature, so it costs half.  And so
nobody judges in it: what is kept here comes from a handshake in which the server was
judged, is offered only where the very same would be asked of it (the same trust, name
and port), and not for long, because the chain above the certificate is not looked at
again.  ``tls_session`` holds the certificate against the policy all the same.

RFC 8446 section 2.2 and 4.6.1, RFC 5077.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from OpenSSL import SSL
    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.client.tls_policy import TLSTrust
    from twisted_sendmail.smtp import TLSFacts

#: Seconds from the handshake in which the server was judged.
AGE = 3600.0
#: Servers whose session is kept.
SERVERS = 64


@dataclass(frozen=True)
class Kept:
    """A session, and what was found when its server was judged."""

    session: SSL.Session
    context: SSL.Context
    facts: TLSFacts
    #: When that was, by the clock of the connection.
    judged_at: float


#: The newest session of each server, the one that was kept last at the end.
_KEPT: OrderedDict[Hashable, Kept] = OrderedDict()


class Resumption:
    """The session of one server.

    :param clock: tells how old a session is.
    :param trust: what proves the server.
    :param name: the name it must prove.
    :param port: the server's, None for another way to connect.
    """

    def __init__(self, clock: IReactorTime, trust: TLSTrust, name: str, port: int | None) -> None:
        self._clock = clock
        #: Whose sessions these are: equal for those that may resume each other's.
        self.key = (clock, trust, name.lower(), port)

    @property
    def now(self) -> float:
        """By the clock of the connection."""
        return self._clock.seconds()

    def offered(self, context: SSL.Context) -> Kept | None:
        """The session to offer in a handshake with *context*; None for a full handshake."""
        kept = _KEPT.get(self.key)
        if kept is None:
            return None
        ends = kept.facts.not_after
        # Another context: the files of CAs or keys were replaced.
        fresh = kept.context is context and 0 <= self.now - kept.judged_at < AGE
        if fresh and ends is not None and dt.datetime.now(dt.timezone.utc) < ends:
            return kept
        self.forget()
        return None

    def keep(self, kept: Kept) -> None:
        """Offer this one next time; the oldest goes when there are too many."""
        _KEPT[self.key] = kept
        _KEPT.move_to_end(self.key)
        while len(_KEPT) > SERVERS:
            _ = _KEPT.popitem(last=False)

    def forget(self) -> None:
        """Begin with a full handshake next time."""
        _ = _KEPT.pop(self.key, None)


def forget_all() -> None:
    """Begin with a full handshake everywhere."""
    _KEPT.clear()
