"""OAUTHBEARER (RFC 7628) and XOAUTH2: a bearer token in one message; the client, and its parser.

XOAUTH2 is older and has no RFC; its form is that of Google's and Microsoft's documents.  A server
that refuses the token may first send the reason as JSON in a challenge.  The client answers with
a message that carries nothing, and then the reply comes (RFC 7628 section 3.2).
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret
from twisted_sendmail.sasl.mechanism import Mechanism, one_too_many
from twisted_sendmail.sasl.scram import escape_identity, unescape_identity
from twisted_sendmail.smtp import InvalidInput

# RFC 7628 section 3.2.2, and "schemes" of XOAUTH2.
_SHOWN_KEYS = ("status", "error", "error_description", "scope", "schemes")
_OAUTHBEARER = re.compile(rb"[ny],(?:a=([^,\x00\x01]*))?,\x01((?:[A-Za-z]+=[^\x00\x01]*\x01)*)\x01")
_XOAUTH2 = re.compile(rb"user=([^\x00\x01]*)\x01((?:[A-Za-z]+=[^\x00\x01]*\x01)*)\x01")
_BEARER = re.compile(rb"(?:^|\x01)auth=Bearer ([!-~]+)\x01", re.IGNORECASE)

#: The challenge by which a server refuses a token, by mechanism: RFC 7628 section 3.2.2, and the
#: form of Google's documents.
BEARER_REFUSALS = {
    "OAUTHBEARER": b'{"status":"invalid_token"}',
    "XOAUTH2": b'{"status":"401","schemes":"Bearer","scope":"mail"}',
}


class Bearer(Mechanism):
    """The client of a mechanism that carries a bearer token.

    :raises InvalidInput: the credentials have no token.
    """

    #: The response to the challenge that is a refusal.
    acknowledgement: ClassVar[bytes]

    def __init__(self, credentials: ResolvedCredentials) -> None:
        if credentials.token is None:
            raise InvalidInput(f"{self.name} needs a token")
        self._token: Secret = credentials.token
        self._refusal: bytes | None = None

    def respond(self, challenge: bytes) -> bytes:
        """Keep the server's reason, and acknowledge it so that the reply comes.

        :raises AuthenticationRejected: at a second challenge.
        """
        if self._refusal is not None:
            raise one_too_many(self.name)
        self._refusal = challenge
        return self.acknowledgement

    @property
    def explanation(self) -> str:
        """The server's reason: its status and the scope it requires."""
        try:
            parsed: object = json.loads(self._refusal or b"")
        except (ValueError, RecursionError):
            return ""
        if not isinstance(parsed, dict):
            return ""
        shown = (key for key in _SHOWN_KEYS if isinstance(parsed.get(key), (str, int)))
        return ", ".join(f"{key} {parsed[key]}" for key in shown)


class OAuthBearer(Bearer):
    """The client of OAUTHBEARER.

    The mechanism has one identity, ``a=``: the authorization identity when one is given, else the
    user name.  Host and port, which section 3.1 makes optional, are not sent.
    """

    name: ClassVar[str] = "OAUTHBEARER"
    acknowledgement: ClassVar[bytes] = b"\x01"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        super().__init__(credentials)
        self._identity = escape_identity(credentials.authzid or credentials.username)

    def start(self) -> bytes:
        """Return the message with the token."""
        return f"n,a={self._identity},\x01auth=Bearer {self._token.reveal()}\x01\x01".encode()


class XOAuth2(Bearer):
    """The client of XOAUTH2.

    :raises InvalidInput: the credentials have no token, or have an authorization identity, which
        XOAUTH2 cannot transmit.
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


def parse_bearer(mechanism: str, message: bytes) -> tuple[str, str]:
    """Parse the client's message of *mechanism*: the user, and the token.

    Each is empty if the client gave none (in OAUTHBEARER, RFC 7628 section 3.1).

    :raises ValueError: the message is malformed.
    """
    found = (_XOAUTH2 if mechanism == XOAuth2.name else _OAUTHBEARER).fullmatch(message)
    if found is None:
        raise ValueError("malformed")
    user = (found[1] or b"").decode("utf-8")
    if mechanism == OAuthBearer.name:
        user = unescape_identity(user)
    token = _BEARER.search(found[2])
    return user, "" if token is None else token[1].decode("ascii")
