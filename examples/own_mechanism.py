"""Add a SASL mechanism: ANONYMOUS, which names the client and proves nothing.

A mechanism turns challenges into responses and needs no network: the program chooses a mechanism as a client
does, and prints the AUTH command.
"""

from __future__ import annotations

from base64 import b64encode
from typing import ClassVar

from twisted_sendmail.sasl import MECHANISMS, Mechanism, ResolvedCredentials, choose, one_too_many


class Anonymous(Mechanism):
    """ANONYMOUS (RFC 4505)."""

    name: ClassVar[str] = "ANONYMOUS"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self.trace = credentials.username

    def start(self) -> bytes:
        """Return the trace information: a name that means something to the server."""
        return self.trace.encode()

    def respond(self, challenge: bytes) -> bytes:
        """Raise an error: ANONYMOUS has no challenge."""
        raise one_too_many(self.name)


def main() -> None:
    """Choose ANONYMOUS from the mechanisms of a server."""
    mechanisms = {"ANONYMOUS": Anonymous, **MECHANISMS}
    credentials = ResolvedCredentials("newsletter", mechanisms=("ANONYMOUS",))
    mechanism = choose({"PLAIN", "ANONYMOUS"}, credentials, mechanisms)
    initial_response = mechanism.start() or b""
    print("AUTH", mechanism.name, b64encode(initial_response).decode() or "=")


if __name__ == "__main__":
    main()
