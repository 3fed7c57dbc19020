"""What XOAUTH2 and OAUTHBEARER share: a token in one message, and a refusal in JSON.

A server that refuses the token may first say why, in a challenge; the client answers
with a message that says nothing, and only then comes the reply.  RFC 7628 section 3.2.
"""

from __future__ import annotations

import json
from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret
from twisted_sendmail.sasl.mechanism import Mechanism, one_too_many
from twisted_sendmail.smtp import InvalidInput

__all__ = ["Bearer"]

# RFC 7628 section 3.2.2, and "schemes" of XOAUTH2.
_WORTH_SAYING = ("status", "error", "error_description", "scope", "schemes")


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
        """Keep what the server has against the token, and let it go on to its reply.

        :raises AuthenticationRejected: at a second challenge.
        """
        if self._refusal is not None:
            raise one_too_many(self.name)
        self._refusal = challenge
        return self.acknowledgement

    @property
    def explanation(self) -> str:
        """What the server has against the token: its status and the scope it wants."""
        return _explained(self._refusal or b"")


def _explained(refusal: bytes) -> str:
    try:
        parsed: object = json.loads(refusal)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(parsed, dict):
        return ""
    said = [
        f"{key} {parsed[key]}" for key in _WORTH_SAYING if isinstance(parsed.get(key), (str, int))
    ]
    return ", ".join(said)
