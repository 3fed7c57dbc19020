"""What a test server has seen: the messages it took, and the sessions it had.

Content is kept as it was received, dot-stuffing taken off, nothing added.  Secrets
are not kept: the dialogue has them masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

from twisted_sendmail.server import Receiver
from twisted_sendmail.smtp import MailParameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

    from twisted_sendmail.server import Answer, ConnectionInfo, Verdict
    from twisted_sendmail.smtp import Recipient, ReversePath, TLSFacts


@dataclass(frozen=True)
class ReceivedMessage:
    """One message, as it was received."""

    #: The reverse-path; ``str()`` of it is the address, or ``<>``.
    sender: ReversePath
    #: Each with ``path``, ``notify`` and ``orcpt``; ``str()`` of it is the address.
    recipients: tuple[Recipient, ...]
    #: What MAIL said besides the sender: ``size``, ``body``, ``smtputf8``, ``ret`` …
    parameters: MailParameters
    #: The octets.
    content: bytes
    #: Who had authenticated; None for nobody.
    user: str | None
    #: The TLS session; None in clear.
    tls: TLSFacts | None
    #: The name given in EHLO.
    hello: str | None
    #: As it was told in the 250.
    id: str

    @property
    def email(self) -> EmailMessage:
        """The content, parsed by the standard library."""
        return message_from_bytes(self.content, policy=policy.default)

    def __str__(self) -> str:
        to = ", ".join(map(str, self.recipients))
        return f"{self.id}: {self.sender} to {to}, {len(self.content)} octets"


class SessionRecord:
    """One connection; it can be looked at while it lasts, and after."""

    def __init__(self, connection: ConnectionInfo) -> None:
        self._connection = connection
        #: True from the moment the connection was gone.
        self.closed = False

    @property
    def dialogue(self) -> list[str]:
        """``C: EHLO …``, ``S: 250-…`` and ``-- …`` in order, secrets masked."""
        return list(self._connection.transcript)

    @property
    def tls(self) -> TLSFacts | None:
        """The TLS session; None in clear."""
        return self._connection.tls

    @property
    def user(self) -> str | None:
        """Who authenticated; None for nobody."""
        return self._connection.user

    @property
    def hello(self) -> str | None:
        """The name given in EHLO."""
        return self._connection.hello

    def __repr__(self) -> str:
        how = self.tls.version if self.tls else "in clear"
        return f"<SessionRecord of {self.user or 'nobody'}, {how}, {'closed' if self.closed else 'open'}>"


@dataclass
class RecordingReceiver(Receiver):
    """Keeps every message whole, in memory, and hands it over when it is complete."""

    keep: Callable[[ReceivedMessage], None]
    _sender: ReversePath | None = field(default=None, init=False)
    _parameters: MailParameters = field(default_factory=MailParameters, init=False)
    _recipients: list[Recipient] = field(default_factory=list, init=False)
    _content: list[bytes] = field(default_factory=list, init=False)

    def sender(self, sender: ReversePath, parameters: MailParameters) -> Answer:
        """Anyone may send."""
        self._sender, self._parameters = sender, parameters
        return None

    def recipient(self, recipient: Recipient) -> Answer:
        """Anyone may receive."""
        self._recipients.append(recipient)
        return None

    def write(self, data: bytes) -> Answer:
        """Keep it."""
        self._content.append(data)
        return None

    def commit(self) -> Verdict:
        """Hand it over."""
        if self._sender is not None:
            connection = self.connection
            self.keep(
                ReceivedMessage(
                    self._sender,
                    tuple(self._recipients),
                    self._parameters,
                    b"".join(self._content),
                    connection.user,
                    connection.tls,
                    connection.hello,
                    self.id,
                )
            )
        return None
