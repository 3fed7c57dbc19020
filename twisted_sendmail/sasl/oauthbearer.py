"""OAUTHBEARER: a bearer token (RFC 7628).

The mechanism has one identity, ``a=``: the authorization identity when one is
given, else the user name.  Host and port, which section 3.1 leaves free, are not sent.
"""

from __future__ import annotations

from typing import ClassVar

from twisted_sendmail.sasl.bearer import Bearer
from twisted_sendmail.sasl.credentials import ResolvedCredentials
from twisted_sendmail.sasl.scram import escape_identity

__all__ = ["OAuthBearer"]


class OAuthBearer(Bearer):
    """The client of OAUTHBEARER.

    :raises InvalidInput: the credentials have no token.
    """

    name: ClassVar[str] = "OAUTHBEARER"
    acknowledgement: ClassVar[bytes] = b"\x01"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        super().__init__(credentials)
        self._identity = escape_identity(credentials.authzid or credentials.username)

    def start(self) -> bytes:
        """Return the message with the token."""
        return f"n,a={self._identity},\x01auth=Bearer {self._token.reveal()}\x01\x01".encode()
