"""``twisted-sendmail check``: look at a server as a client sees it, and send nothing."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.text import Text

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus, status_of
from twisted_sendmail.cli.findings import OK, WEAK, WRONG, Finding, findings
from twisted_sendmail.cli.result import as_json, error_json, tls_json
from twisted_sendmail.cli.running import run
from twisted_sendmail.cli.server_options import VARIABLE, add_server_options, server_of
from twisted_sendmail.cli.terminal import complain, note, say
from twisted_sendmail.client import ProbeResult, SubmissionServer, probe_server
from twisted_sendmail.smtp import Capabilities, SendmailError, TLSFacts, printable

HELP = "look at a server, and send nothing"

_STYLES = {OK: "green", WEAK: "yellow", WRONG: "bold red"}
_WIDTH = 13


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.usage = "%(prog)s [OPTIONS] [URL]"
    parser.description = (
        "Connect as `send` would (TLS, and AUTH if a user is given), show what the server is and "
        "offers, and say what is weak or wrong. No mail is sent. Exit status 0 if it can be used."
    )
    parser.add_argument(
        "server",
        metavar="URL",
        nargs="?",
        help="smtps://HOST, smtp+starttls://HOST[:PORT] or HOST[:PORT]; else the variable "
        f"{VARIABLE}",
    )
    add_server_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    output.add_argument(
        "--verbose", action="store_true", help="show the dialogue on stderr, without secrets"
    )


def execute(args: Namespace) -> int:
    """Check; the exit status."""
    try:
        server = server_of(args, args.server, note if args.verbose else None)
    except (SendmailError, Complaint) as e:
        complain(str(e))
        status = e.status if isinstance(e, Complaint) else status_of(None, e)
        if args.json:
            say(as_json({"usable": False, "exit_status": int(status), "error": error_json(e)}))
        return status
    return run(lambda reactor: _work(args, reactor, server))


async def _work(args: Namespace, reactor: Any, server: SubmissionServer) -> int:
    seen = await probe_server(reactor, server)
    status = status_of(None, seen.error)
    found = findings(seen, datetime.now(timezone.utc))
    if args.json:
        say(as_json(_json(seen, found, status)))
    else:
        for line in _lines(seen, found):
            _show(line)
    # On a terminal it has just been read.
    if seen.error is not None and (args.json or not sys.stdout.isatty()):
        complain(str(seen.error))
    return status


def _show(line: Text) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(line, end="")
    say(captured.get())


def _lines(seen: ProbeResult, found: list[Finding]) -> Iterator[Text]:
    yield _line("server", str(seen.server))
    if seen.host is not None:
        yield _line("connected to", seen.host)
    greeting = seen.offered.greeting or seen.in_clear.greeting
    if greeting:
        yield _line("calls itself", greeting)
    if seen.tls is not None:
        yield _line("TLS", f"{seen.tls.version}, {seen.tls.cipher}, {seen.tls.cipher_bits} bits")
    certificate = seen.tls or seen.presented
    if certificate is not None:
        yield from _certificate(certificate)
    if any(seen.in_clear):
        yield _line("in clear", _keywords(seen.in_clear))
    if seen.tls is not None:
        yield _line("inside TLS", _keywords(seen.offered))
    if any(seen.offered):
        yield _line("AUTH", " ".join(seen.offered.auth) or "none")
        size = seen.offered.size
        yield _line("size limit", f"{size} octets" if size else "none told")
        limits = ", ".join(f"{name} {value}" for name, value in seen.offered.limits.items())
        if limits:
            yield _line("limits", limits)
    yield Text("")
    for finding in found:
        style = _STYLES[finding.level]
        yield Text.assemble((f"{finding.level:<{_WIDTH}} ", style), printable(finding.text, 1024))


def _line(label: str, text: str) -> Text:
    return Text.assemble((f"{label:<{_WIDTH}} ", "bold"), printable(text, 1024))


def _certificate(tls: TLSFacts) -> Iterator[Text]:
    yield _line("certificate", tls.subject or "without a subject")
    yield _line("  issued by", tls.issuer or "nobody")
    yield _line("  names", ", ".join(tls.names) or "none")
    if tls.not_before is not None and tls.not_after is not None:
        yield _line("  valid", f"{tls.not_before:%Y-%m-%d} to {tls.not_after:%Y-%m-%d}")
    yield _line("  SHA-256", tls.fingerprint or "")


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
