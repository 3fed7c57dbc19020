"""XOAUTH2: a bearer token, in the form older than RFC 7628 that large providers speak.

There is no RFC; the form is that of Google's and Microsoft's documents.
"""

from __future__ import annotations

from typing import ClassVar

from twisted_sendmail.sasl.bearer import Bearer
from twisted_sendmail.sasl.credentials import ResolvedCredentials
from twisted_sendmail.smtp import InvalidInput

__all__ = ["XOAuth2"]


class XOAuth2(Bearer):
    """The client of XOAUTH2.

    :raises InvalidInput: the credentials have no token, or an authorization
        identity, for which XOAUTH2 has no place.
    """

    name: ClassVar[str] = "XOAUTH2"
    acknowledgement: ClassVar[bytes] = b""

    def __init__(self, credentials: ResolvedCredentials) -> None:
        super().__init__(credentials)
        if credentials.authzid:
            raise InvalidInput(f"{self.name} has no place for an authorization identity")
        self._username = credentials.username

    def start(self) -> bytes:
        """Return the message with the token."""
        return f"user={self._username}\x01auth=Bearer {self._token.reveal()}\x01\x01".encode()
