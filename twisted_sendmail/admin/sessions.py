"""Who may act on the queue from a browser: whoever knows the token, for a while.

A session is a random name in a cookie; here it is kept as its digest, in memory, bounded
in number and time.  Each has a second secret that every form carries, so that another
site's form does nothing.  Wrong tokens cost time, all comers together: there is one
operator, and everybody who asks comes from the same address.

It reads no header and writes none; that is the site's.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

#: Characters a token needs: shorter ones can be guessed in time.
SHORTEST = 16
#: Seconds a session lasts at the most, and without being used.
LIFETIME, IDLE = 8 * 3600.0, 30 * 60.0
#: Sessions at once; one more, and the one unused for longest ends.
MOST = 32
#: Wrong tokens that may follow each other at once, and seconds until one more may.
PATIENCE, RECOVERY = 5, 10.0


class TooManyTries(Exception):
    """Wrong tokens came too fast: nothing was compared.

    :param wait: seconds until one more is.
    """

    def __init__(self, wait: float) -> None:
        super().__init__("too many wrong tokens")
        self.wait = wait


@dataclass
class Session:
    """Somebody who showed the token."""

    #: What each of his forms has to carry.
    form_secret: str = field(repr=False)
    begun: float
    used: float
    #: What he is to be told on the next page.
    notice: str | None = None


class Sessions:
    """Those who are signed in.

    :param token: the operator's; None, and nobody can be.
    :param now: gives seconds since 1970.
    :raises InvalidInput: for a token that is too short.
    """

    def __init__(self, token: str | None, now: Callable[[], float]) -> None:
        if token is not None and len(token) < SHORTEST:
            raise InvalidInput(
                "the token of the queue page cannot be used",
                detail=f"it has less than {SHORTEST} characters",
                remedy="make one with: openssl rand -hex 16",
            )
        self._token = None if token is None else _digest(token)
        self._now = now
        self._sessions: dict[bytes, Session] = {}
        self._tries = float(PATIENCE)
        self._counted = now()

    @property
    def possible(self) -> bool:
        """Is there a token at all?"""
        return self._token is not None

    def sign_in(self, token: str) -> str | None:
        """Begin a session; gives its name, or None for a wrong token.

        :raises TooManyTries: the token was not looked at.
        """
        self._recover()
        if self._tries < 1:
            raise TooManyTries((1 - self._tries) * RECOVERY)
        if self._token is None or not hmac.compare_digest(self._token, _digest(token)):
            self._tries -= 1
            return None
        name = secrets.token_urlsafe(32)
        now = self._now()
        self._tidy(now)
        while len(self._sessions) >= MOST:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used)]
        self._sessions[_digest(name)] = Session(secrets.token_urlsafe(32), now, now)
        return name

    def find(self, name: str | None) -> Session | None:
        """The session of that *name*, if it still lasts; it is used by this."""
        now = self._now()
        self._tidy(now)
        session = self._sessions.get(_digest(name)) if name else None
        if session is not None:
            session.used = now
        return session

    def sign_out(self, name: str | None) -> None:
        """End it."""
        if name:
            self._sessions.pop(_digest(name), None)

    def genuine(self, session: Session, form_secret: str) -> bool:
        """Does a form come from a page of ours, of this session?"""
        return hmac.compare_digest(_digest(session.form_secret), _digest(form_secret))

    def _tidy(self, now: float) -> None:
        # A clock that was set back must not make a session last longer: then it ends.
        self._sessions = {
            key: session
            for key, session in self._sessions.items()
            if session.begun <= now < session.begun + LIFETIME
            and session.used <= now < session.used + IDLE
        }

    def _recover(self) -> None:
        now = self._now()
        passed, self._counted = max(0.0, now - self._counted), now
        self._tries = min(float(PATIENCE), self._tries + passed / RECOVERY)


def _digest(text: str) -> bytes:
    """Of one length, whatever was given: comparing tells nothing of how long the secret is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
