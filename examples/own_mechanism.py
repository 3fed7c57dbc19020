"""Plug in a mechanism of one's own: EXTERNAL, where the proof is a TLS client certificate.

A mechanism turns challenges into responses without the network, so this
runs without one: it chooses as a client would and shows what AUTH would say.
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
        """Say whom to act as; empty for the holder of the certificate."""
        return self.authzid.encode()

    def respond(self, challenge: bytes) -> bytes:
        """Refuse: EXTERNAL has no challenge."""
        raise one_too_many(self.name)


def main() -> None:
    """Choose EXTERNAL among what a server offers."""
    mechanisms = {"EXTERNAL": External, **MECHANISMS}
    credentials = ResolvedCredentials("", authzid="newsletter", mechanisms=("EXTERNAL",))
    mechanism = choose({"PLAIN", "EXTERNAL"}, credentials, mechanisms)
    initial_response = mechanism.start() or b""
    print("AUTH", mechanism.name, b64encode(initial_response).decode() or "=")


if __name__ == "__main__":
    main()
