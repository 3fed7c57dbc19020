"""Our Received field: what we know of how a message came in.

RFC 5321 section 4.4.  With several recipients none is named, so that no one learns
of the others (section 7.2).
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.message.received import clause, field_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.ingress.receiver import Connection
    from twisted_sendmail.smtp.envelope import Recipient
    from twisted_sendmail.smtp.tls_facts import TLSFacts

_BREAKS = re.compile(r'[ ;()"\\]').search


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
    clauses = [
        *_of_connection(
            connection.hello,
            getattr(connection.peer, "host", None),
            connection.name,
            connection.protocol(smtputf8=smtputf8),
            connection.tls,
        ),
        clause("id", message_id),
    ]
    if len(recipients) == 1:
        only = str(recipients[0])
        # A quoted local part may hold what would break the field.
        if not _BREAKS(only):
            clauses.append(clause("for", f"<{only}>"))
    return field_of(clauses, now)


@lru_cache(maxsize=4)
def moment(second: int) -> datetime:
    """A second since 1970, in UTC: much mail comes in the same one."""
    return datetime.fromtimestamp(second, timezone.utc)


@lru_cache(maxsize=256)
def _of_connection(
    hello: str | None, peer: str | None, name: str, protocol: str, tls: TLSFacts | None
) -> tuple[str, ...]:
    """What is the same for every message of a connection."""
    clauses = []
    if hello is not None:
        # An address literal of a kind to come may hold what would break the field.
        clauses.append(clause("from", "unknown" if _BREAKS(hello) else hello, _literal(peer)))
    clauses.append(clause("by", name))
    clauses.append(clause("with", protocol, f"{tls.version} {tls.cipher}" if tls else None))
    return tuple(clauses)


def _literal(host: str | None) -> str | None:
    if host is None:
        return None
    return f"[IPv6:{host.partition('%')[0]}]" if ":" in host else f"[{host}]"
