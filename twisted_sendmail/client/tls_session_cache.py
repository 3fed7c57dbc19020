"""TLS sessions, kept for the next connection to the same server.

A resumed handshake transfers no certificate and no signature, and costs half.  A session is used
only for the trust, the name and the port for which its server was verified, and for an hour at most;
``tls`` verifies the certificate of the session again, which may have expired.

RFC 8446 sections 2.2 and 4.6.1, RFC 5077.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Hashable

    from OpenSSL import SSL
    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.smtp import TLSFacts

#: Seconds after the full handshake for which a session is resumed.
MAX_SESSION_AGE = 3600.0
#: Servers whose session is kept.
MAX_SESSIONS = 64


@frozen(cache_hash=True)
class SessionKey:
    """Connections with equal keys may resume each other's sessions."""

    #: Tells the age of a session; another reactor's clock may count from another moment.
    clock: IReactorTime
    #: The ``TLSTrust`` that the server was verified with.
    trust: Hashable
    #: The server's name, in lower case.
    name: str
    #: None for an endpoint without one.
    port: int | None
    #: The TLSA records that the server was verified with (DANE).
    tlsa: Hashable = None


@frozen
class CachedSession:
    """A session, and the facts that were verified in its full handshake."""

    session: SSL.Session
    context: SSL.Context
    facts: TLSFacts
    #: When the certificate chain was verified, in seconds of the key's clock.
    verified_at: float


class TLSSessionCache:
    """The newest session of each server."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, CachedSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey, context: SSL.Context) -> CachedSession | None:
        """Return the session to offer in a handshake with *context*; None for a full handshake."""
        cached = self._sessions.get(key)
        if cached is None:
            return None
        expires = cached.facts.not_after
        # With another context, the files of CAs or keys were replaced.
        fresh = (
            cached.context is context
            and 0 <= key.clock.seconds() - cached.verified_at < MAX_SESSION_AGE
        )
        if fresh and expires is not None and dt.datetime.now(dt.timezone.utc) < expires:
            return cached
        self.discard(key)
        return None

    def put(self, key: SessionKey, cached: CachedSession) -> None:
        """Keep *cached*; the session that was put longest ago is dropped when there are too many."""
        self._sessions[key] = cached
        self._sessions.move_to_end(key)
        while len(self._sessions) > MAX_SESSIONS:
            _ = self._sessions.popitem(last=False)

    def discard(self, key: SessionKey) -> None:
        """Let the next connection do a full handshake."""
        _ = self._sessions.pop(key, None)

    def clear(self) -> None:
        """Let every next connection do a full handshake."""
        self._sessions.clear()


#: The sessions of this process.
TLS_SESSIONS = TLSSessionCache()
