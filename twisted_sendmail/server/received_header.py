"""The Received field that the server adds to a message (RFC 5321 section 4.4).

It names the recipient only if there is one: the others are not shown to a recipient (section 7.2).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted_sendmail.local_users import uid_text
from twisted_sendmail.received import (
    ReceivedField,
    TraceHost,
    TraceTLS,
    clause,
    folded,
    received_field,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.server.connection_info import ConnectionInfo
    from twisted_sendmail.smtp import Recipient

_BREAKS = re.compile(r'[ ;()"\\]').search


class ReceivedFields:
    """Makes the fields of one connection."""

    def __init__(self, connection: ConnectionInfo) -> None:
        self._connection = connection
        # The beginning is the same for all messages, as long as the facts in the key are.
        self._key: tuple[object, ...] = ()
        self._begun = ("", 0)

    def field(
        self, message_id: str, recipients: Sequence[Recipient], second: int, *, smtputf8: bool
    ) -> bytes:
        """Return the field, ended by CRLF.

        :param message_id: the server's name for the message.
        :param second: the time of receipt, since 1970.
        """
        connection = self._connection
        key = (connection.hello, connection.verb, connection.tls, connection.user, smtputf8)
        if key != self._key:
            self._begun = folded(_clauses(connection, smtputf8=smtputf8))
            self._key = key
        clauses = [clause("id", message_id)]
        if len(recipients) == 1:
            box = recipients[0].path.mailbox
            only = box.wire if box is not None and box.domain.isascii() else str(recipients[0])
            # A quoted local part may hold characters that break the field.
            if not _BREAKS(only):
                clauses.append(f"for <{only}>")
        return received_field(clauses, second, self._begun)


def _clauses(connection: ConnectionInfo, *, smtputf8: bool) -> list[str]:
    hello, tls = connection.hello, connection.tls
    client = None
    if hello is not None:
        # An address literal of an unknown kind may hold characters that break the field.
        name = "unknown" if _BREAKS(hello) else hello
        if connection.local is not None:
            client = TraceHost(name, comments=(f"invoked by {uid_text(connection.local.uid)}",))
        else:
            host: str | None = getattr(connection.peer, "host", None)
            client = TraceHost(name, address=host.partition("%")[0] if host else None)
    return ReceivedField(
        from_=client,
        by=TraceHost(connection.name),
        with_=connection.protocol(smtputf8=smtputf8),
        tls=TraceTLS(tls.version, tls.cipher) if tls else None,
    ).clauses()
