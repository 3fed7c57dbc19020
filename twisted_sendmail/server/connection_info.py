"""``ConnectionInfo``: the facts about a connection, for receivers, accounts and trace fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_sendmail.server.networks import client_origin
from twisted_sendmail.smtp import Verb

if TYPE_CHECKING:
    from collections.abc import Hashable

    from twisted.internet.interfaces import IAddress

    from twisted_sendmail.local_users import LocalPeer
    from twisted_sendmail.smtp import TLSFacts, Transcript


@define(eq=False)
class ConnectionInfo:
    """The facts about one connection; they grow as the session goes on."""

    #: The server's name, as in the greeting.
    name: str
    #: The client's address.
    peer: IAddress
    #: The server's address.
    host: IAddress
    #: The dialogue so far, without secrets.
    transcript: Transcript
    #: The user at the other end of a Unix socket; None: it is another kind of connection.
    local: LocalPeer | None = None
    #: The name given in EHLO, HELO or LHLO; None before.
    hello: str | None = None
    #: The verb it was given by; None before.
    verb: Verb | None = None
    #: The TLS session; None in clear text.
    tls: TLSFacts | None = None
    #: The authenticated user; None before AUTH.
    user: str | None = None
    #: The avatar that a ``twisted.cred`` realm returned for the user.
    avatar: object = None

    @property
    def origin(self) -> Hashable:
        """The unit for which connections are counted: a user of this machine, or a network."""
        return client_origin(self.peer, self.local)

    def protocol(self, *, smtputf8: bool = False) -> str:
        """Return the ``with`` of a Received field: ``SMTP``, ``ESMTPSA``, ``LMTPS``, ``UTF8SMTPSA`` and so on.

        RFC 3848, RFC 6531 section 4.3.
        """
        verb = self.verb
        if verb is None or verb is Verb.HELO:
            return "SMTP"
        name = "LMTP" if verb is Verb.LHLO else "SMTP" if smtputf8 else "ESMTP"
        name = f"UTF8{name}" if smtputf8 else name
        return name + ("S" if self.tls else "") + ("A" if self.user is not None else "")
