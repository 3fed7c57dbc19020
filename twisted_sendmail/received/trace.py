"""The route of a message as its Received fields show it: hops, delays, and what does not fit.

Every server puts its field before those of the servers before it, so the oldest is the last one of
the header. A field is a statement of the server in ``by``, and all fields below the first one that
a server of one's own wrote may be forged: the route is a statement of the header, not a proof.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from twisted_sendmail.message import Header
from twisted_sendmail.received.field import ReceivedField, TraceHost, parse_date
from twisted_sendmail.smtp import MAX_HEADER, Canonicalizer, Repair

if TYPE_CHECKING:
    from collections.abc import Sequence


class HopLink(enum.Enum):
    """The client of a hop, compared with the server of the hop before it."""

    #: There is no hop before it.
    FIRST = "first"
    #: A name or the address is the same.
    SAME_HOST = "same host"
    #: The names have the same domain: another host of the same organisation.
    SAME_DOMAIN = "same domain"
    #: The field names no client, or the server itself: the message moved inside the host.
    INTERNAL = "internal"
    #: The hop before it does not name its server.
    UNKNOWN = "unknown"
    #: No field shows how the message came from one host to the other.
    MISSING = "missing"


class TraceProblem(enum.Enum):
    """The kinds of findings."""

    #: A field is dated before the one of the hop before it.
    CLOCK_SKEW = "clock skew"
    #: The message came back to a server, for the same recipient or more than once.
    LOOP = "loop"
    #: No field shows how the message came from one host to the next.
    MISSING_LINK = "missing link"
    #: A field has no date that can be read.
    NO_DATE = "no date"


@frozen
class TraceFinding:
    """Something in the route that a person should look at."""

    problem: TraceProblem
    #: Numbers of the hops, the oldest first.
    hops: tuple[int, ...]
    #: One sentence, which holds names from the header as they are there.
    text: str


@frozen
class Hop:
    """One Received field, and its place in the route."""

    #: Counted from 1, the oldest hop.
    number: int
    field: ReceivedField
    link: HopLink
    #: The server: that of the field or, in a field without one, that of the hop before it.
    host: TraceHost | None
    #: Seconds since the hop before it that has a date or, at the first, since the Date field;
    #: negative if clocks differ. None: a date is missing.
    delay: float | None
    #: Name and unfolded value of the other trace fields between this field and that of the next
    #: hop, which the host added: ``Authentication-Results``, ``Delivered-To``, ``Resent-From`` …
    notes: tuple[tuple[str, str], ...] = ()


@frozen
class Trace:
    """The route of a message."""

    #: The oldest first.
    hops: tuple[Hop, ...]
    #: The Date field, when the message was written.
    written: datetime | None = None
    findings: tuple[TraceFinding, ...] = ()

    @classmethod
    def parse(cls, message: bytes | str) -> Trace:
        """Parse the header of a message; raises nothing.

        :param message: a message or its header, with any kind of line ends. Octets after
            ``MAX_HEADER`` (1 MiB) are not read. A header of that length may take seconds: call it
            in a thread if others write the messages and a reactor runs.
        """
        octets = _octets(message) if isinstance(message, str) else message
        fields: list[ReceivedField] = []
        notes: list[list[tuple[str, str]]] = []
        pending: list[tuple[str, str]] = []
        written: str | None = None
        for name, value, folded in _fields(octets):
            if name == "received":
                fields.append(ReceivedField.parse(folded))
                notes.append(pending)
                pending = []
            elif name in _NOTED or name.startswith("resent-"):
                pending.append((name, value))
            elif name == "date" and written is None:
                written = value
        date = parse_date(written)[0] if written is not None else None
        trace = cls.of(reversed(fields), written=date)
        noted = zip(trace.hops, reversed(notes), strict=True)
        return evolve(trace, hops=tuple(evolve(hop, notes=tuple(found)) for hop, found in noted))

    @classmethod
    def of(cls, fields: Iterable[ReceivedField], *, written: datetime | None = None) -> Trace:
        """Return the route of parsed fields.

        :param fields: the oldest first: the last one of a header.
        :param written: the date of the message; aware.
        """
        hops: list[Hop] = []
        host: TraceHost | None = None
        last = written
        for number, field in enumerate(fields, 1):
            link = _link(field, host) if number > 1 else HopLink.FIRST
            delay = None
            if field.date is not None:
                delay = (field.date - last).total_seconds() if last is not None else None
                last = field.date
            # A field without "by" was written where the one before it was.
            host = field.by or (host if link is HopLink.INTERNAL else None)
            hops.append(Hop(number, field, link, host, delay))
        return cls(tuple(hops), written, tuple(_findings(hops)))

    @property
    def duration(self) -> float | None:
        """Seconds from the Date field, or else the first dated hop, to the last dated hop."""
        dates = [hop.field.date for hop in self.hops if hop.field.date is not None]
        if self.written is not None:
            dates.insert(0, self.written)
        return (dates[-1] - dates[0]).total_seconds() if len(dates) > 1 else None


#: Fields that servers add to a message beside Received.
_NOTED = {
    "arc-authentication-results",
    "authentication-results",
    "delivered-to",
    "envelope-to",
    "received-spf",
    "return-path",
    "x-original-to",
}


def _octets(message: str) -> bytes:
    try:
        return message.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that represents no octet
        return message.encode("utf-8", "surrogatepass")


def _fields(octets: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value and the folded value of the fields in a header."""
    canonical = Canonicalizer(Repair.REPAIR)
    header = octets[: MAX_HEADER + 2].lstrip(b"\r\n")
    header = canonical.feed(header) + canonical.finish()
    for field in Header.parse(header.partition(b"\r\n\r\n")[0] + b"\r\n").fields:
        # A line that is no field, such as ">From " of a mailbox file, does not end the header here.
        if field.name:
            yield field.name, field.value, field.folded_value


# -- links ------------------------------------------------------------------------

_LOCAL = frozenset({"localhost", "localhost.localdomain", "127.0.0.1", "::1", "[127.0.0.1]"})


def _link(field: ReceivedField, before: TraceHost | None) -> HopLink:
    client = field.from_
    if client is None:
        return HopLink.INTERNAL
    if before is not None and client.names & before.names:
        return HopLink.SAME_HOST
    own = field.by.names if field.by is not None else frozenset()
    local = client.names & _LOCAL or client.names & own or "local" in _words(client)
    if local or (client.address is None and "." not in client.name):
        return HopLink.INTERNAL
    if before is None:
        return HopLink.UNKNOWN
    if before.names & _LOCAL:
        return HopLink.INTERNAL
    if _domains(client) & _domains(before):
        return HopLink.SAME_DOMAIN
    return HopLink.MISSING


def _words(host: TraceHost) -> set[str]:
    """Return the words of comments such as ``(host [local])`` and of the name ``[unix socket]``."""
    return {word.strip("[]") for text in (host.name, *host.comments) for word in text.split()}


def _domains(host: TraceHost) -> set[str]:
    """Return the domains under which the host's names are registered, as far as names tell."""
    found = set()
    for name in host.names:
        labels = name.split(".")
        # A country's second level is short, as in "co.uk".
        count = 3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
        if len(labels) >= count and not labels[-1].rstrip("]").isdigit() and ":" not in name:
            found.add(".".join(labels[-count:]))
    return found


# -- findings ---------------------------------------------------------------------


def _findings(hops: Sequence[Hop]) -> Iterator[TraceFinding]:
    dated: Hop | None = None
    for at, hop in enumerate(hops):
        if hop.field.date is None:
            yield TraceFinding(
                TraceProblem.NO_DATE,
                (hop.number,),
                f"hop {hop.number} has no date that can be read",
            )
        elif hop.delay is not None and hop.delay < 0:
            yield _skew(hop, dated)
        if hop.link is HopLink.MISSING:
            before, client = hops[at - 1].host, hop.field.from_
            yield TraceFinding(
                TraceProblem.MISSING_LINK,
                (hop.number - 1, hop.number),
                f"no field shows how the message came from {before} to {client}",
            )
        dated = hop if hop.field.date is not None else dated
    yield from _loops(hops)


def _skew(hop: Hop, before: Hop | None) -> TraceFinding:
    seconds = -(hop.delay or 0)
    host = hop.host or "its server"
    if before is None:
        return TraceFinding(
            TraceProblem.CLOCK_SKEW,
            (hop.number,),
            f"hop {hop.number} is dated {seconds:.0f} s before the message was written: the clock of "
            f"the sender is ahead, or that of {host} is behind",
        )
    return TraceFinding(
        TraceProblem.CLOCK_SKEW,
        (before.number, hop.number),
        f"hop {hop.number} is dated {seconds:.0f} s before hop {before.number}: the clock of "
        f"{before.host or 'its server'} is ahead, or that of {host} is behind",
    )


def _loops(hops: Sequence[Hop]) -> Iterator[TraceFinding]:
    """Find servers to which the message came back after it was at another one.

    Mail comes back once through a mailing list or a filter; to the same recipient, or twice, it
    is a loop.
    """
    visits: dict[str, list[Hop]] = {}
    current = ""
    for hop in hops:
        key = hop.host.key if hop.host is not None else ""
        # A content filter on the host itself is no other server.
        if not key or key in _LOCAL:
            continue
        if key != current:
            visits.setdefault(key, []).append(hop)
        current = key
    for found in visits.values():
        recipients = [(hop.field.for_ or "").lower() for hop in found]
        known = [address for address in recipients if address]
        if len(found) > 2 or len(known) > len(set(known)):
            yield TraceFinding(
                TraceProblem.LOOP,
                tuple(hop.number for hop in found),
                f"the message came to {found[0].host} {len(found)} times",
            )
