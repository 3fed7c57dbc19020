"""What every SASL mechanism is to the client, and the limits of an exchange.

The client of RFC 4954 encodes, decodes, waits and gives up; a mechanism turns
challenges into responses and knows nothing of SMTP.  One object serves one exchange.

This module holds no mechanism.  RFC 4422 sections 3 and 5, RFC 4954 section 4.
"""

from __future__ import annotations

import abc
from typing import ClassVar

from twisted_sendmail.smtp import AuthenticationRejected

__all__ = ["MAX_CHALLENGE", "MAX_ROUNDS", "Mechanism", "one_too_many"]

#: Challenges in one exchange at the most; SCRAM, the longest one here, has two.
MAX_ROUNDS = 8

#: Octets of a challenge at the most, in base64 (RFC 4954 section 4, item 8).
MAX_CHALLENGE = 12_288


class Mechanism(abc.ABC):
    """One exchange of one mechanism, from the client's side.

    The client calls ``start`` once, ``respond`` for each challenge, and ``succeeded``
    when the server has said 235; never two of them at a time.  It may call
    ``respond`` in another thread.
    """

    #: The name in the EHLO reply and in the AUTH command, in upper case.
    name: ClassVar[str]

    #: True while ``respond`` may compute for long: call it off the reactor's thread.
    expensive: bool = False

    @abc.abstractmethod
    def start(self) -> bytes | None:
        """Return the initial response, not encoded; None when the server speaks first.

        An empty initial response is ``b""``, which RFC 4954 writes as ``=``.
        """

    @abc.abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """Return the response to *challenge*; both are decoded octets, and may be empty.

        :param challenge: what the server said, any octets.
        :raises AuthenticationError: the exchange cannot go on; cancel it with ``*``.
        """

    def succeeded(self) -> None:  # noqa: B027 - most mechanisms have nothing to look at
        """Look at a 235 before it is believed.

        :raises ServerNotAuthentic: the mechanism has the server prove itself, and
            it has not; do not use the connection.
        """

    @property
    def explanation(self) -> str:
        """Why the server refuses, where the mechanism has room for it.

        It goes with the refusing reply as the detail of its error, unless it quotes
        the exchange.  It is the server's text: escape it where it is shown.
        """
        return ""


def one_too_many(name: str) -> AuthenticationRejected:
    """Return the error for a challenge behind the last one mechanism *name* has."""
    return AuthenticationRejected(
        f"AUTH {name} broken off",
        detail="the server sent one more challenge than the mechanism has",
        phase="AUTH",
        command=f"AUTH {name}",
    )
