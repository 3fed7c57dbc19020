"""The client's side of a SASL mechanism, and the limits of an exchange.

A mechanism turns challenges into responses and contains nothing of SMTP; ``client/auth`` encodes,
decodes and waits.  One object serves one exchange.  RFC 4422 sections 3 and 5, RFC 4954 section 4.
"""

from __future__ import annotations

import abc
from typing import ClassVar

from twisted_sendmail.smtp import AuthenticationRejected

#: Challenges of one exchange; SCRAM, the longest one here, has two.
MAX_ROUNDS = 8
#: Octets of a challenge in base64 (RFC 4954 section 4, item 8).
MAX_CHALLENGE = 12_288


class Mechanism(abc.ABC):
    """One exchange of one mechanism, the client's side.

    The client calls ``start`` once, ``respond`` for each challenge, and ``succeeded`` when the
    server has replied 235; never two of them at a time.  It may call ``respond`` in a thread.
    """

    #: The name in the EHLO reply and in the AUTH command, in upper case.
    name: ClassVar[str]

    #: True while ``respond`` may compute for long: call it outside the reactor's thread.
    expensive: bool = False
    #: True if the text of a challenge does not matter: it is a prompt, and need not be base64.
    prompted: bool = False

    @abc.abstractmethod
    def start(self) -> bytes | None:
        """Return the initial response, not encoded; None when the server sends first.

        An empty initial response is ``b""``, which RFC 4954 writes as ``=``.
        """

    @abc.abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """Return the response to *challenge*; both are decoded, and may be empty.

        :raises AuthenticationError: the exchange cannot go on; cancel it with ``*``.
        """

    def succeeded(self) -> None:  # noqa: B027 - most mechanisms have nothing to check
        """Check a 235 before it counts.

        :raises ServerNotAuthentic: the server has to prove its identity in this mechanism, and
            has not; do not use the connection.
        """

    @property
    def explanation(self) -> str:
        """The server's reason for a refusal, where the mechanism transmits one.

        It becomes the detail of the error of the refusing reply, unless it quotes the exchange.
        It is the server's text: escape it before it is shown.
        """
        return ""


class OneMessage(Mechanism):
    """A mechanism whose client sends one message, and the server nothing."""

    _repeated = False

    @abc.abstractmethod
    def start(self) -> bytes:
        """Return the message."""

    def respond(self, challenge: bytes) -> bytes:
        """Repeat the message for a server that has ignored the initial response.

        Such a server sends one empty challenge.

        :raises AuthenticationRejected: at any other challenge.
        """
        if challenge or self._repeated:
            raise one_too_many(self.name)
        self._repeated = True
        return self.start()


def one_too_many(name: str) -> AuthenticationRejected:
    """Return the error for a challenge after the last one that mechanism *name* has."""
    return broken_off(name, "the server sent one more challenge than the mechanism has")


def broken_off(name: str, why: str) -> AuthenticationRejected:
    """Return the error for an exchange of mechanism *name* that cannot go on."""
    return AuthenticationRejected(
        f"AUTH {name} broken off", detail=why, phase="AUTH", command=f"AUTH {name}"
    )
