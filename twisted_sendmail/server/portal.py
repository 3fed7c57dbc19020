"""Users known to a ``twisted.cred`` portal.

PLAIN and LOGIN show the password, which is what a portal's checkers want; SCRAM does
not, so it is not offered.  The avatar is the connection's until it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from zope.interface import Interface

from twisted_sendmail.server.authentication import FAILED, AuthRefused, Avatar

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.cred.portal import Portal

    from twisted_sendmail.server.scram import ScramKeys


class IMailUser(Interface):
    """What a realm is asked for: one who may send mail.  It needs no method."""


class PortalAccounts:
    """Implements :class:`~twisted_sendmail.server.authentication.Accounts`.

    :param portal: its checkers take ``IUsernamePassword``.
    :param interface: the interface the realm is asked for.
    :param encode: how names and passwords are given to the checkers, which want bytes.
    """

    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")

    def __init__(
        self,
        portal: Portal,
        interface: type[Interface] = IMailUser,
        encode: Callable[[str], bytes] = lambda text: text.encode("utf-8"),
    ) -> None:
        self._portal = portal
        self._interface = interface
        self._encode = encode

    async def check(self, user: str, password: str) -> Avatar | None:
        """Log in.

        :raises AuthRefused: when the portal says no.
        """
        credentials = UsernamePassword(self._encode(user), self._encode(password))
        try:
            _, avatar, logout = await self._portal.login(credentials, None, self._interface)
        except (LoginFailed, UnauthorizedLogin):
            raise AuthRefused(FAILED) from None
        return Avatar(avatar, logout)

    async def scram_keys(self, user: str) -> ScramKeys:
        """A portal has none."""
        raise AuthRefused(FAILED)
