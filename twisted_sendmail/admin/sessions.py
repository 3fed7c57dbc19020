"""Sessions of people who signed in to the queue page with the operator's token.

A session is a random name in a cookie; only its digest is kept, in memory, bounded in number and
time. Each session has a second secret that every form carries, so that forms of other sites are
refused. Wrong tokens are limited for all clients together: there is one operator, and all
clients of a proxy have the same address.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_sendmail.smtp import InvalidInput
from twisted_sendmail.token_bucket import TokenBucket

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

#: Characters that a token needs; a shorter one can be guessed.
MIN_TOKEN_LENGTH = 16
#: Seconds that a session lasts, and that it lasts without being used.
SESSION_LIFETIME, SESSION_IDLE = 8 * 3600.0, 30 * 60.0
#: Sessions at a time; a new one ends the one that was unused for longest.
MAX_SESSIONS = 32
#: Wrong tokens in a row, and seconds until one more is allowed.
MAX_WRONG_TOKENS, WRONG_TOKEN_SECONDS = 5, 10.0


class TooManyTokens(Exception):
    """Wrong tokens came too fast, so the token was not compared.

    :param wait: seconds until one is compared again.
    """

    def __init__(self, wait: float) -> None:
        super().__init__("too many wrong tokens")
        self.wait = wait


@define
class AdminSession:
    """One session."""

    #: Carried by each form.
    form_secret: str = field(repr=False)
    begun: float
    used: float
    #: Shown on the next page.
    notice: str | None = None


class Sessions:
    """All sessions.

    :param token: the operator's; None: signing in is not possible.
    :param clock: the wall clock.
    :raises InvalidInput: the token is too short.
    """

    def __init__(self, token: str | None, clock: IReactorTime) -> None:
        if token is not None and len(token) < MIN_TOKEN_LENGTH:
            raise InvalidInput(
                "the token of the queue page cannot be used",
                detail=f"the token has less than {MIN_TOKEN_LENGTH} characters",
                remedy="make one with: openssl rand -hex 16",
            )
        self._token = None if token is None else _digest(token)
        self._clock = clock
        self._sessions: dict[bytes, AdminSession] = {}
        # Wrong tokens that may still come.
        self._allowed = TokenBucket(clock, 1 / WRONG_TOKEN_SECONDS, MAX_WRONG_TOKENS)

    @property
    def possible(self) -> bool:
        """True if there is a token."""
        return self._token is not None

    def sign_in(self, token: str) -> str | None:
        """Begin a session; return its name, or None for a wrong token.

        :raises TooManyTokens: the token was not compared.
        """
        if not self._allowed.take():
            raise TooManyTokens(self._allowed.seconds_to_next())
        if self._token is None or not hmac.compare_digest(self._token, _digest(token)):
            return None
        self._allowed.give_back()
        now = self._clock.seconds()
        name = secrets.token_urlsafe(32)
        self._remove_ended(now)
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used)]
        self._sessions[_digest(name)] = AdminSession(secrets.token_urlsafe(32), now, now)
        return name

    def find(self, name: str | None) -> AdminSession | None:
        """Return the session *name*, if it still lasts, and note that it is used."""
        now = self._clock.seconds()
        self._remove_ended(now)
        session = self._sessions.get(_digest(name)) if name else None
        if session is not None:
            session.used = now
        return session

    def sign_out(self, name: str | None) -> None:
        """End the session *name*."""
        if name:
            self._sessions.pop(_digest(name), None)

    def owns_form(self, session: AdminSession, form_secret: str) -> bool:
        """Return True if a form with this secret is from a page of the session."""
        return hmac.compare_digest(_digest(session.form_secret), _digest(form_secret))

    def _remove_ended(self, now: float) -> None:
        # A session of the future ends: a clock that was set back must not make it last longer.
        self._sessions = {
            key: session
            for key, session in self._sessions.items()
            if session.begun <= now < session.begun + SESSION_LIFETIME
            and session.used <= now < session.used + SESSION_IDLE
        }


def _digest(text: str) -> bytes:
    # Digests have equal lengths, so that the comparison does not show the length of the secret.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
