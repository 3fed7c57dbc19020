"""The facts that ``check`` prints: the servers that DNS names, a session with each, TLSA records.

RFC 6186 and RFC 8314 (servers of a mail domain), RFC 7672 (DANE).
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import gatherResults

from twisted_sendmail.client import (
    Cancelled,
    Candidate,
    DNSResolver,
    ProbeResult,
    SubmissionServer,
    TLSARecords,
    TLSPolicy,
    find_servers,
    find_tlsa,
    probe_server,
)
from twisted_sendmail.smtp import SendmailError


@frozen
class DANESurvey:
    """The TLSA records of a server, and a session that trusts the server by them."""

    #: None: they could not be looked up.
    records: TLSARecords | None
    #: Why they could not be looked up.
    error: SendmailError | None = None
    #: None: no record counts.
    seen: ProbeResult | None = None

    @property
    def matched(self) -> str | None:
        """The record that the server matches."""
        tls = None if self.seen is None else self.seen.tls
        return None if tls is None else tls.tlsa


@frozen
class Survey:
    """All that was found out about a server, or about those of a mail domain."""

    #: The session with the server to use.
    seen: ProbeResult
    #: The mail domain that was asked for.
    domain: str | None = None
    #: The servers that DNS names for it, in the order in which to try them.
    candidates: tuple[Candidate, ...] = ()
    #: Why DNS names none.
    lookup_error: SendmailError | None = None
    #: Sessions with the same host on another port.
    others: tuple[ProbeResult, ...] = ()
    #: None: no name server was named, or there was no TLS.
    dane: DANESurvey | None = None


async def survey(reactor: Any, server: SubmissionServer) -> Survey:
    """Look at one server, or at those that DNS names for a mail domain."""
    candidates: tuple[Candidate, ...] = ()
    if server.discover:
        try:
            candidates = tuple(await find_servers(reactor, server))
        except SendmailError as e:
            return Survey(ProbeResult(server, e), server.host, lookup_error=e)
    seen = await probe_server(reactor, server)
    domain = server.host if server.discover else None
    dane = await _dane(reactor, server, seen)
    return Survey(seen, domain, candidates, dane=dane)


async def survey_host(
    reactor: Any, server: SubmissionServer, lookup_error: SendmailError | None
) -> Survey:
    """Look at a host by implicit TLS and by STARTTLS, on their usual ports.

    :param lookup_error: why DNS names no server for its name.
    """
    asked = [evolve(server, port=465, tls=TLSPolicy.IMPLICIT), server]
    results = await gatherResults([probe_server(reactor, each) for each in asked])
    # The first that can be used, or else the first that was reached.
    ordered = sorted(results, key=lambda seen: (seen.error is not None, seen.host is None))
    dane = await _dane(reactor, server, ordered[0])
    return Survey(ordered[0], server.host, (), lookup_error, tuple(ordered[1:]), dane)


async def _dane(reactor: Any, server: SubmissionServer, seen: ProbeResult) -> DANESurvey | None:
    """Look up the TLSA records, with the name server that was named, and try them."""
    resolver, host = server.resolver, server.trust.name or seen.server.host
    unreached = seen.presented is None and not server.trust.dane
    if resolver is None or seen.server.discover or unreached or isinstance(seen.error, Cancelled):
        return None
    try:
        records = await find_tlsa(reactor, resolver, host, seen.server.port)
    except SendmailError as e:
        return DANESurvey(None, e)
    if server.trust.dane:
        return DANESurvey(records, seen=seen)
    if not (records.validated and records.usable):
        return DANESurvey(records)
    trust = evolve(
        server.trust,
        ca_file=None,
        ca_directory=None,
        fingerprint=None,
        public_key=None,
        other_names=(),
        dane=True,
    )
    trusting = evolve(seen.server, trust=trust, credentials=None, resolver=resolver)
    return DANESurvey(records, seen=await probe_server(reactor, trusting))


def system_resolver() -> DNSResolver | None:
    """Return a resolver that queries the name servers of the system; None without the extra ``dns``."""
    try:
        return DNSResolver()
    except ImportError:
        return None
