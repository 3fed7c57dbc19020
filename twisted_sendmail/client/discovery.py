"""The submission servers of a mail domain, by its SRV records: the URL ``submission:example.org``.

``_submissions._tcp`` (implicit TLS) comes before ``_submission._tcp`` (STARTTLS); the target ``.``
means that there is none.  An attacker who forges the answer could name another server, so its
certificate counts only in one of these ways:

- it is valid for the mail domain, by DNS-ID or SRV-ID (RFC 6186 section 6);
- the target lies in the mail domain, and it is valid for the target;
- DNSSEC has validated the answer, and it is valid for the target, or the target's TLSA records (DANE)
  decide;
- the caller's ``TLSTrust`` has the name or the fingerprint.

RFC 6186, RFC 8314 section 5.1 (order), RFC 2782 (priority and weight), RFC 4985 (SRV-ID).
"""

from __future__ import annotations

import random
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from twisted_sendmail.client.dns_lookup import DNSResolver, look_up
from twisted_sendmail.client.tls import TLSPolicy
from twisted_sendmail.smtp import ConnectFailed, DANEUnavailable, InvalidInput, domain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted_sendmail.client.server_config import SubmissionServer

#: Servers of a domain that are tried at the most; an answer of DNS may hold thousands.
MAX_SERVERS = 20
#: Services of RFC 8314 and RFC 6186, in the order in which they are tried.
SERVICES = (("_submissions", TLSPolicy.IMPLICIT), ("_submission", TLSPolicy.STARTTLS))


@frozen
class Candidate:
    """A server that the records of a mail domain name."""

    #: With host and port of the target, and the names that its certificate may have.
    server: SubmissionServer
    #: The service, such as ``_submissions``.
    service: str
    #: The certificate must be valid for the mail domain: the name of the target is not proved.
    target_unproved: bool
    #: DNSSEC has validated the record.
    validated: bool


async def find_servers(
    reactor: Any, server: SubmissionServer, choose: Callable[[], float] = random.random
) -> list[Candidate]:
    """Return the servers of a mail domain, in the order in which to try them.

    :param server: its ``host`` is the mail domain, and its other settings are those of each candidate.
    :param choose: returns a number from 0 to less than 1, for the weights of RFC 2782.
    :raises ConnectFailed: the domain names no server, or DNS does not answer.
    """
    resolver = server.resolver or DNSResolver()
    domain = server.host
    found: list[Candidate] = []
    refused: list[str] = []
    for service, tls in SERVICES:
        name = f"{service}._tcp.{domain}"
        answer = await look_up(reactor, resolver, name, "SRV")
        if any(_target(record) == "" for record in answer.records):
            refused.append(name)
        usable = [record for record in answer.records if _target(record) and record.port]
        if usable and server.trust.dane and not answer.validated:
            # RFC 7673 section 3.1: the records of a target that is not proved prove nothing.
            raise DANEUnavailable(
                f"DANE needs the records of {name}",
                phase="connect",
                detail="the name server has not validated them by DNSSEC",
                remedy="write the server itself, as smtps://host, if its own zone is signed",
            )
        found += [
            _candidate(
                server, service, str(_target(record)), record.port, tls, validated=answer.validated
            )
            for record in islice(by_priority(usable, choose), MAX_SERVERS - len(found))
        ]
    if found:
        return found
    detail = f"it has no record _submissions._tcp.{domain} or _submission._tcp.{domain}"
    if refused:
        detail = f"its record {refused[0]} says that there is none"
    raise ConnectFailed(
        f"{domain} names no submission server",
        phase="connect",
        detail=detail,
        remedy="write the server itself, as smtps://host",
    )


def _candidate(
    server: SubmissionServer, service: str, host: str, port: int, tls: TLSPolicy, *, validated: bool
) -> Candidate:
    domain, trust = server.host.lower(), server.trust
    proved = validated or host == domain or host.endswith(f".{domain}")
    if trust.name is None and not trust.pinned:
        trust = evolve(
            trust,
            name=None if proved else domain,
            other_names=(domain, f"{service}.{domain}"),
        )
        unproved = not proved
    else:
        unproved = False
    found = evolve(server, host=host, port=port, tls=tls, trust=trust, discover=False)
    return Candidate(found, service, unproved, validated)


def _target(record: Any) -> str | None:
    """Return the host that an SRV record names, empty for the root; None: it is no host name."""
    target = str(record.target).rstrip(".").lower()
    try:
        return domain_name(target) if target else ""
    except InvalidInput:
        return None


def by_priority(records: Iterable[Any], choose: Callable[[], float]) -> Iterator[Any]:
    """Yield SRV records by priority, and at random by weight within one (RFC 2782)."""
    # Records of weight 0 come first, so that they have a small chance (RFC 2782).
    ordered = sorted(records, key=lambda record: (record.priority, record.weight))
    for _, group in groupby(ordered, key=lambda record: record.priority):
        left = list(group)
        while left:
            at = int(choose() * (sum(record.weight for record in left) + 1))
            number = 0
            while number < len(left) - 1 and at > left[number].weight:
                at -= left[number].weight
                number += 1
            yield left.pop(number)
