"""Add a SASL mechanism: EXTERNAL, where the TLS client certificate authenticates the user.

A mechanism turns challenges into responses and needs no network: the program chooses a mechanism as a client
does, and prints the AUTH command.
"""

from __future__ import annotations

from base64 import b64encode
from typing import ClassVar

from twisted_sendmail.sasl import MECHANISMS, Mechanism, ResolvedCredentials, choose, one_too_many


class External(Mechanism):
    """EXTERNAL (RFC 4422 appendix A)."""

    name: ClassVar[str] = "EXTERNAL"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self.authzid = credentials.authzid

    def start(self) -> bytes:
        """Return the user to act as; empty for the owner of the certificate."""
        return self.authzid.encode()

    def respond(self, challenge: bytes) -> bytes:
        """Raise an error: EXTERNAL has no challenge."""
        raise one_too_many(self.name)


def main() -> None:
    """Choose EXTERNAL from the mechanisms of a server."""
    mechanisms = {"EXTERNAL": External, **MECHANISMS}
    credentials = ResolvedCredentials("", authzid="newsletter", mechanisms=("EXTERNAL",))
    mechanism = choose({"PLAIN", "EXTERNAL"}, credentials, mechanisms)
    initial_response = mechanism.start() or b""
    print("AUTH", mechanism.name, b64encode(initial_response).decode() or "=")


if __name__ == "__main__":
    main()
