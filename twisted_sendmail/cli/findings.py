"""What is good, weak or wrong about a server that was examined.

A function from what was seen to sentences; it asks nobody.  *Wrong* is what keeps
mail from being submitted; *weak* is what a careful operator would mend.

RFC 8314 (TLS), RFC 6409 section 4 and 7 (what a submission server has).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from twisted_sendmail.client import ProbeResult, TLSPolicy
from twisted_sendmail.smtp import CertificateRejected, TLSFacts, printable

OK, WEAK, WRONG = "ok", "weak", "wrong"
#: A certificate that ends sooner should have been renewed.
RENEWAL = timedelta(days=14)

_WANTED = {
    "PIPELINING": "each command costs a round trip",
    "8BITMIME": "text that is not ASCII has to be encoded",
    "ENHANCEDSTATUSCODES": "refusals are told less exactly",
    "SIZE": "a message that is too large is known only after it was sent",
}
_IN_CLEAR = frozenset({"PLAIN", "LOGIN"})


class Finding(NamedTuple):
    """One sentence, and how bad it is."""

    level: str
    text: str


def findings(seen: ProbeResult, now: datetime) -> list[Finding]:
    """Judge what was *seen*, the worst last."""
    found = [*_tls(seen, now), *_auth(seen), *_capabilities(seen)]
    if seen.error is not None:
        found.append(Finding(WRONG, str(seen.error)))
        found += _pinning(seen)
    return sorted(found, key=lambda finding: (OK, WEAK, WRONG).index(finding.level))


def _tls(seen: ProbeResult, now: datetime) -> Iterator[Finding]:
    tls = seen.tls
    if tls is None:
        if seen.error is None:
            yield Finding(WEAK, "no TLS: everybody on the way can read and change the mail")
        return
    how = "its fingerprint" if tls.verified_by == "fingerprint" else f"the name {tls.identity}"
    yield Finding(OK, f"{tls.version} with {tls.cipher}; the server proved itself by {how}")
    if tls.version == "TLSv1.2":
        yield Finding(WEAK, "TLS 1.2 is the best it can; TLS 1.3 is a round trip faster")
    if tls.cipher_bits < 128:
        yield Finding(WEAK, f"the cipher has {tls.cipher_bits} bits only")
    if seen.server.tls is TLSPolicy.OPPORTUNISTIC:
        yield Finding(
            WEAK, "opportunistic TLS: who can tamper with the connection can take it away"
        )
    yield from _dates(tls, now)


def _dates(tls: TLSFacts, now: datetime) -> Iterator[Finding]:
    if tls.not_after is None:
        return
    left = tls.not_after - now
    day = f"{tls.not_after:%Y-%m-%d}"
    if left < timedelta(0):
        # Only a pinned certificate gets here.
        yield Finding(WEAK, f"the certificate has expired on {day}")
    elif left < RENEWAL:
        soon = f"in {left.days} days" if left.days else "within a day"
        yield Finding(WEAK, f"the certificate expires {soon}, on {day}")
    else:
        yield Finding(OK, f"the certificate is good for {left.days} more days")


def _auth(seen: ProbeResult) -> Iterator[Finding]:
    if seen.tls is not None and seen.in_clear.auth:
        yield Finding(
            WEAK, "AUTH is offered in clear: careless clients will send their password there"
        )
    if seen.authenticated:
        yield Finding(OK, "AUTH succeeded")
    offered = seen.offered.auth
    if not offered:
        if seen.tls is not None:
            yield Finding(
                WEAK, "no AUTH is offered: it takes mail from networks it knows, or from anybody"
            )
        return
    if seen.tls is None:
        yield Finding(WEAK, "AUTH is offered in clear; no password is sent there")
    elif _IN_CLEAR.issuperset(offered):
        yield Finding(
            OK, f"AUTH {' '.join(offered)}: the server sees the password, which is usual inside TLS"
        )
    else:
        yield Finding(OK, f"AUTH {' '.join(offered)}")


def _capabilities(seen: ProbeResult) -> Iterator[Finding]:
    offered = seen.offered
    if not any(offered):
        return
    for keyword, without in _WANTED.items():
        if keyword not in offered:
            yield Finding(WEAK, f"no {keyword}: {without}")
    if seen.tls is None:
        return
    if "STARTTLS" in offered:
        yield Finding(WEAK, "STARTTLS is offered inside TLS, where it makes no sense")
    lost = [k for k in seen.in_clear if k not in offered and k not in {"STARTTLS", "AUTH"}]
    if lost:
        yield Finding(WEAK, f"offered in clear, and not inside TLS: {printable(' '.join(lost))}")


def _pinning(seen: ProbeResult) -> Iterator[Finding]:
    shown = seen.presented
    if isinstance(seen.error, CertificateRejected) and shown is not None and shown.fingerprint:
        yield Finding(
            WRONG,
            "if you know by another way that this certificate is the server's: "
            f"--fingerprint {shown.fingerprint}",
        )
