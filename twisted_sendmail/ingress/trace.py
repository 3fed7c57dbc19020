"""Our Received field: what we know of how a message came in.

RFC 5321 section 4.4.  With several recipients none is named, so that no one learns
of the others (section 7.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.message.received import Received

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from twisted_sendmail.ingress.receiver import Connection
    from twisted_sendmail.smtp.envelope import Recipient

_BREAKS = frozenset(' ;()"\\')


def received_field(
    connection: Connection,
    message_id: str,
    recipients: Sequence[Recipient],
    now: datetime,
    *,
    smtputf8: bool = False,
) -> bytes:
    """The field, ended by CRLF.

    :param message_id: our name for the message.
    :param now: with its time zone.
    """
    tls = connection.tls
    hello = connection.hello
    only = str(recipients[0]) if len(recipients) == 1 else None
    return Received(
        # An address literal of a kind to come may hold what would break the field.
        from_=None if hello is None else "unknown" if _BREAKS & set(hello) else hello,
        from_comment=_literal(connection),
        by=connection.name,
        with_=connection.protocol(smtputf8=smtputf8),
        with_comment=f"{tls.version} {tls.cipher}" if tls else None,
        id=message_id,
        # So may a quoted local part.
        for_=only if only and not _BREAKS & set(only) else None,
        date=now,
    ).to_bytes()


def _literal(connection: Connection) -> str | None:
    host: str | None = getattr(connection.peer, "host", None)
    if host is None:
        return None
    return f"[IPv6:{host.partition('%')[0]}]" if ":" in host else f"[{host}]"
