"""``twisted-sendmail check``: connect to a server as ``send`` does, show what it offers, send no mail.

A finding is *wrong* if it keeps mail from being submitted, and *weak* if a careful operator would
correct it. RFC 8314 (TLS), RFC 6409 sections 4 and 7 (the extensions of a submission server).
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from twisted_sendmail.cli.options import SERVER_VARIABLE, account_of, add_server_options, server_of
from twisted_sendmail.cli.output import (
    as_json,
    error_json,
    print_error,
    print_note,
    print_result,
    tls_json,
)
from twisted_sendmail.cli.react import react
from twisted_sendmail.client import ProbeResult, SubmissionServer, TLSPolicy, probe_server
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_result
from twisted_sendmail.sasl import MECHANISMS
from twisted_sendmail.smtp import (
    Capabilities,
    CertificateRejected,
    SendmailError,
    TLSFacts,
    printable,
)

OK, WEAK, WRONG = "ok", "weak", "wrong"
_STYLES = {OK: "green", WEAK: "yellow", WRONG: "bold red"}
_LABEL_WIDTH = 13
#: Texts, each with its style.
_Line: TypeAlias = list[tuple[str, str]]
#: A certificate that expires sooner should have been renewed.
RENEWAL = timedelta(days=14)


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.usage = "%(prog)s [OPTIONS] [URL]"
    parser.description = (
        "Connect as `send` would (TLS, and AUTH if a user is given), show the server and its "
        "extensions, and report what is weak or wrong. No mail is sent. Exit status 0 if the "
        "server can be used."
    )
    parser.add_argument(
        "server",
        metavar="URL",
        nargs="?",
        help="smtps://HOST, smtp+starttls://HOST[:PORT], HOST[:PORT], or submission:DOMAIN, also "
        f"with USER@; else the variable {SERVER_VARIABLE}",
    )
    add_server_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    output.add_argument(
        "--verbose", action="store_true", help="show the dialogue on stderr, without secrets"
    )


def execute(args: Namespace) -> int:
    """Check the server; the exit status."""
    try:
        watch = print_note if args.verbose else None
        server = server_of(args, account_of(args), watch, remedy="give its URL")
    except (SendmailError, CommandError) as e:
        print_error(str(e))
        status = e.status if isinstance(e, CommandError) else status_of_result(None, e)
        if args.json:
            error = {"usable": False, "exit_status": int(status), "error": error_json(e)}
            print_result(as_json(error))
        return status
    return react(lambda reactor: _check(args, reactor, server))


async def _check(args: Namespace, reactor: Any, server: SubmissionServer) -> int:
    seen = await probe_server(reactor, server)
    status = status_of_result(None, seen.error)
    found = findings(seen, datetime.now(timezone.utc))
    if args.json:
        print_result(as_json(_json(seen, found, status)))
    else:
        for line in _lines(seen, found):
            _print_line(line)
    # On a terminal the findings hold the error already.
    if seen.error is not None and (args.json or not sys.stdout.isatty()):
        print_error(str(seen.error))
    return status


# -- output -----------------------------------------------------------------------


def _print_line(line: _Line) -> None:
    if not sys.stdout.isatty():
        print_result("".join(text for text, _ in line))
        return
    # Loaded for a terminal only: it takes a fifth of the time of this command.
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(Text.assemble(*line), end="")
    print_result(captured.get())


def _lines(seen: ProbeResult, found: list[Finding]) -> Iterator[_Line]:
    yield _line("server", str(seen.server))
    if seen.host is not None:
        yield _line("connected to", seen.host)
    greeting = seen.offered.greeting or seen.in_clear.greeting
    if greeting:
        yield _line("greeting", greeting)
    if seen.tls is not None:
        yield _line("TLS", _session(seen.tls))
    certificate = seen.tls or seen.presented
    if certificate is not None:
        yield from _certificate(certificate)
    if any(seen.in_clear):
        yield _line("in clear", _keywords(seen.in_clear))
    if seen.tls is not None:
        yield _line("inside TLS", _keywords(seen.offered))
    if any(seen.offered):
        yield from _login(seen.offered.auth)
        size = seen.offered.size
        yield _line("size limit", f"{size} octets" if size else "none")
        limits = ", ".join(f"{name} {value}" for name, value in seen.offered.limits.items())
        if limits:
            yield _line("limits", limits)
    yield []
    for finding in found:
        style = _STYLES[finding.level]
        yield [(f"{finding.level:<{_LABEL_WIDTH}} ", style), (printable(finding.text, 1024), "")]


def _line(label: str, text: str) -> _Line:
    return [(f"{label:<{_LABEL_WIDTH}} ", "bold"), (printable(text, 1024), "")]


def _login(offered: tuple[str, ...]) -> Iterator[_Line]:
    yield _line("AUTH", " ".join(offered) or "none")
    best = next((name for name in MECHANISMS if name in offered), None)
    if best is not None:
        yield _line("best login", best)


def _session(tls: TLSFacts) -> str:
    parts = [f"{tls.version}, {tls.cipher}, {tls.cipher_bits} bits"]
    if tls.group:
        parts.append(f"key exchange {tls.group}")
    if tls.channel_binding:
        parts.append(f"channel binding {tls.channel_binding}")
    return ", ".join(parts)


def _certificate(tls: TLSFacts) -> Iterator[_Line]:
    yield _line("certificate", tls.subject or "without a subject")
    yield _line("  issued by", tls.issuer or "nobody")
    if tls.chain:
        yield _line("  chain", "; ".join(tls.chain))
    yield _line("  names", ", ".join(tls.names) or "none")
    if tls.not_before is not None and tls.not_after is not None:
        yield _line("  valid", f"{tls.not_before:%Y-%m-%d} to {tls.not_after:%Y-%m-%d}")
    yield _line("  SHA-256", tls.fingerprint or "")
    yield _line("  public key", tls.public_key or "unknown")


def _keywords(capabilities: Capabilities) -> str:
    words = [f"{k} {capabilities[k]}".strip() for k in capabilities]
    return "; ".join(words) or "nothing"


def _json(seen: ProbeResult, found: list[Finding], status: ExitStatus) -> dict[str, Any]:
    return {
        "usable": seen.error is None,
        "exit_status": int(status),
        "server": str(seen.server),
        "host": seen.host,
        "greeting": seen.offered.greeting or seen.in_clear.greeting or None,
        "tls": tls_json(seen.tls),
        "presented": tls_json(seen.presented),
        "in_clear": {k: seen.in_clear[k] for k in seen.in_clear},
        "offered": {k: seen.offered[k] for k in seen.offered},
        "auth": list(seen.offered.auth),
        "size": seen.offered.size,
        "limits": dict(seen.offered.limits),
        "authenticated": seen.authenticated,
        "findings": [finding._asdict() for finding in found],
        "error": None if seen.error is None else error_json(seen.error),
    }


# -- findings ---------------------------------------------------------------------

_WANTED = {
    "PIPELINING": "each command costs a round trip",
    "8BITMIME": "text that is not ASCII has to be encoded",
    "ENHANCEDSTATUSCODES": "refusals are less exact",
    "SIZE": "a message that is too large is refused only after it was sent",
}
_PASSWORD_MECHANISMS = frozenset({"PLAIN", "LOGIN"})


class Finding(NamedTuple):
    """One sentence about a server, and its level: ok, weak or wrong."""

    level: str
    text: str


def findings(seen: ProbeResult, now: datetime) -> list[Finding]:
    """The findings about an examined server, the worst last."""
    found = [*_tls(seen, now), *_auth(seen), *_capabilities(seen)]
    if seen.error is not None:
        found.append(Finding(WRONG, str(seen.error)))
        found += _pinning(seen)
    return sorted(found, key=lambda finding: (OK, WEAK, WRONG).index(finding.level))


def _tls(seen: ProbeResult, now: datetime) -> Iterator[Finding]:
    tls = seen.tls
    if tls is None:
        if seen.error is None:
            yield Finding(
                WEAK, "no TLS: everybody on the network path can read and change the mail"
            )
        return
    pins = {"fingerprint": "its fingerprint", "public-key": "its public key"}
    how = pins.get(tls.verified_by, f"the name {tls.identity}")
    yield Finding(OK, f"{tls.version} with {tls.cipher}; the certificate is verified by {how}")
    if tls.version == "TLSv1.2":
        yield Finding(WEAK, "TLS 1.2 is the best version offered; TLS 1.3 saves a round trip")
    if tls.cipher_bits < 128:
        yield Finding(WEAK, f"the cipher has only {tls.cipher_bits} bits")
    if seen.server.tls is TLSPolicy.OPPORTUNISTIC:
        yield Finding(WEAK, "opportunistic TLS: an attacker on the network path can remove it")
    yield from _dates(tls, now)


def _dates(tls: TLSFacts, now: datetime) -> Iterator[Finding]:
    if tls.not_after is None:
        return
    left = tls.not_after - now
    day = f"{tls.not_after:%Y-%m-%d}"
    if left < timedelta(0):
        # Only a pinned certificate may have expired.
        yield Finding(WEAK, f"the certificate has expired on {day}")
    elif left < RENEWAL:
        soon = f"in {left.days} days" if left.days else "within a day"
        yield Finding(WEAK, f"the certificate expires {soon}, on {day}")
    else:
        yield Finding(OK, f"the certificate is valid for {left.days} more days")


def _auth(seen: ProbeResult) -> Iterator[Finding]:
    if seen.tls is not None and seen.in_clear.auth:
        yield Finding(
            WEAK, "AUTH is offered in clear: careless clients will send their passwords without TLS"
        )
    if seen.authenticated:
        yield Finding(OK, "AUTH succeeded")
    offered = seen.offered.auth
    if not offered:
        if seen.tls is not None:
            yield Finding(
                WEAK,
                "no AUTH is offered: the server accepts mail by network address, or from anybody",
            )
        return
    if seen.tls is None:
        yield Finding(WEAK, "AUTH is offered in clear; this client sends no password without TLS")
    elif _PASSWORD_MECHANISMS.issuperset(offered):
        yield Finding(
            OK,
            f"AUTH {' '.join(offered)}: the server receives the password, which is usual inside TLS",
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
        yield Finding(WEAK, "STARTTLS is offered inside TLS, where it is not allowed")
    lost = [k for k in seen.in_clear if k not in offered and k not in {"STARTTLS", "AUTH"}]
    if lost:
        yield Finding(WEAK, f"offered in clear, but not inside TLS: {printable(' '.join(lost))}")


def _pinning(seen: ProbeResult) -> Iterator[Finding]:
    shown = seen.presented
    if isinstance(seen.error, CertificateRejected) and shown is not None and shown.fingerprint:
        yield Finding(
            WRONG,
            "to trust this certificate, once you have checked by other means that it is the server's: "
            f"--fingerprint {shown.fingerprint}",
        )
