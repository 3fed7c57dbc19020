"""``twisted-sendmail check``: connect to a server as ``send`` does, show what it offers, send no mail.

Of a domain or an address, the servers are looked up first. A finding is *wrong* if it keeps mail from being
submitted, and *weak* if a careful operator would correct it. At the end are the settings to use.
RFC 8314 (TLS), RFC 6409 sections 4 and 7 (the extensions of a submission server), RFC 6186 (SRV).
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from attrs import evolve

from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.options import (
    CONNECTION_OPTIONS,
    LOGIN_OPTIONS,
    PASSWORD_VARIABLE,
    SERVER_VARIABLE,
    TRUST_OPTIONS,
    account_of,
    add_server_options,
    server_of,
    with_account_and_url,
)
from twisted_sendmail.cli.output import (
    as_json,
    error_json,
    print_error,
    print_note,
    print_result,
    tls_json,
)
from twisted_sendmail.cli.react import react
from twisted_sendmail.cli.survey import DANESurvey, Survey, survey, survey_host, system_resolver
from twisted_sendmail.client import (
    Cancelled,
    ProbeResult,
    SubmissionServer,
    TLSARecords,
    TLSPolicy,
    find_servers,
    is_address,
)
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_result
from twisted_sendmail.sasl import MECHANISMS
from twisted_sendmail.smtp import (
    Capabilities,
    CertificateRejected,
    SendmailError,
    TLSFacts,
    full_url,
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
    parser.usage = "%(prog)s [OPTIONS] [URL | DOMAIN | ADDRESS]"
    parser.description = (
        "Connect as `send` would (TLS, and AUTH if a user is given), show the server and its "
        "extensions, report what is weak or wrong, and the settings to use. Of a domain or an "
        "address, the servers are looked up in DNS. No mail is sent. Exit status 0 if the "
        "server can be used."
    )
    parser.add_argument(
        "server",
        metavar="URL",
        nargs="?",
        help="smtps://HOST, smtp+starttls://HOST[:PORT], HOST:PORT, submission:DOMAIN, also with "
        f"USER@; or a domain, an address, or a host; else the variable {SERVER_VARIABLE}",
    )
    add_server_options(parser)
    output = parser.add_argument_group("output")
    add_options_of(
        output,
        """
        --json              print the result as one JSON object
        --verbose           show the dialogue on stderr, without secrets
        """,
    )


class _Name(NamedTuple):
    """A domain or a host, or an address, as it was given."""

    host: str
    user: str | None


def execute(args: Namespace) -> int:
    """Check the server; the exit status."""
    try:
        account = account_of(args)
        name = None if account is not None else _name(args)
        # DNS decides which server the user belongs to.
        given = args if name is None else _without_login(args, name.host)
        given = with_account_and_url(given, account)
        server = server_of(given, _watch(args), remedy="give its URL")
    except (SendmailError, CommandError) as e:
        return _failed(args, e)
    if name is None:
        return react(lambda reactor: _check(given, reactor, server))
    return react(lambda reactor: _check_name(args, reactor, server, name))


def _failed(args: Namespace, e: SendmailError | CommandError) -> int:
    print_error(str(e))
    status = e.status if isinstance(e, CommandError) else status_of_result(None, e)
    if args.json:
        error = {"usable": False, "exit_status": int(status), "error": error_json(e)}
        print_result(as_json(error))
    return status


def _watch(args: Namespace) -> Callable[[str], None] | None:
    return print_note if args.verbose else None


def _name(args: Namespace) -> _Name | None:
    """Return what was given, if it may be a domain or an address; None: a server, or an IP address."""
    given = args.server if args.server is not None else os.environ.get(SERVER_VARIABLE, "")
    user, _, host = given.rpartition("@")
    if (
        args.tls is not None
        or not {":", "?"}.isdisjoint(full_url(given))
        or "." not in host
        or is_address(host)
    ):
        return None
    return _Name(host, user or None)


def _without_login(args: Namespace, host: str) -> Namespace:
    return Namespace(**{**vars(args), **dict.fromkeys(LOGIN_OPTIONS), "user": None, "server": host})


def _as(args: Namespace, server: str, user: str | None) -> Namespace:
    """Return *args* for *server*; *user* logs in, unless an option names one, if there is a password or token."""
    login = PASSWORD_VARIABLE in os.environ or any(
        getattr(args, name, None) is not None for name in LOGIN_OPTIONS
    )
    named = args.user if args.user is not None or not login else user
    given = Namespace(**{**vars(args), "user": named, "server": server})
    return with_account_and_url(given, None)


async def _check(args: Namespace, reactor: Any, server: SubmissionServer) -> int:
    return _show(args, await survey(reactor, server))


async def _check_name(args: Namespace, reactor: Any, server: SubmissionServer, name: _Name) -> int:
    """Check the servers that DNS names for a domain, or else the host of that name."""
    resolver = server.resolver or system_resolver()
    error: SendmailError | None = None
    named = False
    if resolver is not None:
        try:
            named = bool(await find_servers(reactor, evolve(server, resolver=resolver)))
        except Cancelled as e:
            return _failed(args, e)
        except SendmailError as e:
            error = e
    # A user at a mail domain logs in with the address (RFC 6186 section 4), one of a host with the name.
    address = name.user and f"{name.user}@{name.host}"
    try:
        if named:
            given, user = _as(args, f"submission:{name.host}", address), address
        else:
            given, user = _as(args, name.host, name.user), name.user
        server = server_of(given, _watch(args), remedy="")
    except (SendmailError, CommandError) as e:
        return _failed(args, e)
    found = await (survey(reactor, server) if named else survey_host(reactor, server, error))
    return _show(given, found, user)


def _show(args: Namespace, found: Survey, user: str | None = None) -> int:
    seen = found.seen
    status = status_of_result(None, seen.error)
    judged = findings(found, datetime.now(timezone.utc))
    if user is not None and seen.error is None and not seen.authenticated:
        judged.insert(0, Finding(OK, f"the login as {user} was not tried: give --password-file"))
    settings = _settings(args, found, user)
    if args.json:
        print_result(as_json(_json(found, judged, settings, status)))
    else:
        for line in _lines(found, judged, settings):
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


def _lines(found: Survey, judged: list[Finding], settings: dict[str, Any]) -> Iterator[_Line]:
    for candidate in found.candidates:
        proved = ", validated" if candidate.validated else ""
        yield _line("named by DNS", f"{candidate.server} ({candidate.service}{proved})")
    yield from _connection(found.seen)
    if found.dane is not None and found.dane.records is not None:
        yield from _tlsa(found.dane, found.dane.records)
    yield from _capabilities_shown(found.seen)
    yield []
    for finding in judged:
        style = _STYLES[finding.level]
        yield [(f"{finding.level:<{_LABEL_WIDTH}} ", style), (printable(finding.text, 1024), "")]
    if settings:
        yield []
    for number, (key, value) in enumerate(settings.items()):
        yield _line("settings" if number == 0 else "", f"{key} = {_toml(value)}")


def _connection(seen: ProbeResult) -> Iterator[_Line]:
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


def _capabilities_shown(seen: ProbeResult) -> Iterator[_Line]:
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


def _tlsa(dane: DANESurvey, records: TLSARecords) -> Iterator[_Line]:
    state = "validated by DNSSEC" if records.validated else "not validated"
    yield _line("TLSA", f"{records.name}, {state}{'' if records.records else ': no record'}")
    for record in records.records[:_MAX_RECORDS]:
        note = (
            "matches" if str(record) == dane.matched else "" if record.usable else "cannot be used"
        )
        yield _line("", f"{record}  {note}".rstrip())


def _toml(value: object) -> str:
    # Texts, lists of texts and booleans are written alike.
    return json.dumps(value, ensure_ascii=False)


def _keywords(capabilities: Capabilities) -> str:
    words = [f"{k} {capabilities[k]}".strip() for k in capabilities]
    return "; ".join(words) or "nothing"


def _json(
    found: Survey, judged: list[Finding], settings: dict[str, Any], status: ExitStatus
) -> dict[str, Any]:
    seen = found.seen
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
        "findings": [finding._asdict() for finding in judged],
        "error": None if seen.error is None else error_json(seen.error),
        "domain": found.domain,
        "named_by_dns": [
            {"server": str(each.server), "service": each.service, "validated": each.validated}
            for each in found.candidates
        ],
        "dane": _dane_json(found.dane),
        "settings": settings,
    }


def _dane_json(dane: DANESurvey | None) -> dict[str, Any] | None:
    if dane is None:
        return None
    records = dane.records
    return {
        "name": None if records is None else records.name,
        "validated": records is not None and records.validated,
        "records": [] if records is None else [str(each) for each in records.records],
        "usable": [] if records is None else [str(each) for each in records.usable],
        "matched": dane.matched,
        "error": None if dane.error is None else error_json(dane.error),
    }


# -- settings ---------------------------------------------------------------------


def _settings(args: Namespace, found: Survey, user: str | None) -> dict[str, Any]:
    """Return the keys of an account, or of a smarthost of the relay, with which the server can be used.

    Empty if it cannot be used.
    """
    seen, dane = found.seen, found.dane
    by_dane = dane is not None and dane.matched is not None
    if seen.error is not None and not (by_dane and isinstance(seen.error, CertificateRejected)):
        return {}
    settings: dict[str, Any] = {"url": str(seen.server)}
    credentials = seen.server.credentials
    user = args.user or user or (credentials.username if credentials is not None else None)
    if user:
        settings["user"] = user
    login = _login_settings(args)
    offered = set(seen.offered.auth)
    if credentials is None and not login and offered and offered <= {"XOAUTH2", "OAUTHBEARER"}:
        login["oauth-client-id"] = "…"
    settings |= login
    if args.mechanism:
        settings["mechanisms"] = args.mechanism
    for name in CONNECTION_OPTIONS:
        value = getattr(args, name)
        if value is not None and not (by_dane and name in TRUST_OPTIONS):
            settings[name.replace("_", "-")] = value
    if seen.server.trust.name is not None:
        settings["server-name"] = seen.server.trust.name
    if by_dane:
        settings |= {"dane": True, "name-servers": args.name_server}
    return settings


def _login_settings(args: Namespace) -> dict[str, Any]:
    """Return the keys that name the login, and no secret: a prompt and a password in an account have none."""
    given = {name: getattr(args, name, None) for name in LOGIN_OPTIONS}
    login = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    if "password-command" in login:
        login["password-shell"] = login.pop("password-command")
    if not login and args.secret is not None:
        key, value = args.secret
        login = {} if key == "password" else {key: value}
    if login and args.bearer:
        login["bearer"] = True
    return login


# -- findings ---------------------------------------------------------------------

#: TLSA records that are shown.
_MAX_RECORDS = 20
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


def findings(survey: Survey, now: datetime) -> list[Finding]:
    """Return the findings about an examined server, the worst last."""
    seen = survey.seen
    found = [
        *_servers(survey),
        *_tls(seen, now),
        *_dane(survey),
        *_auth(seen),
        *_capabilities(seen),
    ]
    if seen.error is not None:
        found.append(Finding(WRONG, str(seen.error)))
        found += _to_trust(survey)
    return sorted(found, key=lambda finding: (OK, WEAK, WRONG).index(finding.level))


def _servers(survey: Survey) -> Iterator[Finding]:
    domain, error = survey.domain, survey.lookup_error
    if survey.candidates and all(each.service != "_submissions" for each in survey.candidates):
        yield Finding(
            WEAK,
            f"no record _submissions._tcp.{domain}: clients that prefer implicit TLS (RFC 8314) do not "
            "find a server with it",
        )
    if error is not None and survey.seen.error is not error:
        usable = survey.seen.error is None
        yield Finding(
            OK if usable else WEAK, f"the host {domain} was tried: {error.what}: {error.detail}"
        )
        if survey.seen.host is None:
            yield Finding(
                WRONG,
                f"no server of {domain} was found; if you have the name of its server, check smtps://NAME",
            )
    if survey.candidates and survey.seen.error is None:
        yield Finding(
            OK, f"the URL submission:{domain} can be used, too, and follows changes in DNS"
        )
    for other in survey.others:
        if other.error is None:
            yield Finding(OK, f"{other.server} can be used, too")
        elif other.host is None:
            # A host need not have both; without any it cannot be used.
            judged = OK if survey.seen.error is None else WRONG
            yield Finding(judged, f"{other.server} cannot be used: {other.error}")
        else:
            yield Finding(WEAK, f"{other.server} cannot be used: {other.error}")


def _dane(survey: Survey) -> Iterator[Finding]:
    dane = survey.dane
    if dane is None:
        return
    if dane.records is None:
        yield Finding(WEAK, f"TLSA records: {dane.error}")
        return
    advice = _advice(survey, dane.records)
    if dane.matched is None:
        yield from _dane_unmatched(survey, dane, dane.records, advice)
        return
    yield Finding(OK, f"the TLSA record {dane.matched} matches: DANE can be used")
    if dane.matched.startswith("3 0 "):
        yield Finding(
            WEAK,
            "a TLSA record 3 0 has to be replaced with each certificate, one 3 1 with each key only: "
            + advice,
        )


def _dane_unmatched(
    survey: Survey, dane: DANESurvey, records: TLSARecords, advice: str
) -> Iterator[Finding]:
    error = None if dane.seen is None else dane.seen.error
    if not records.validated:
        if records.records:
            yield Finding(
                WEAK,
                "the TLSA records do not count: the name server has not validated them by DNSSEC",
            )
    elif not records.records:
        yield Finding(OK, f"no TLSA record, so DANE cannot be used; to allow it, {advice}")
    elif not records.usable:
        yield Finding(WEAK, f"no TLSA record can be used for SMTP (RFC 7672): {advice}")
    elif error is not None and dane.seen is not survey.seen:
        yield Finding(WEAK, f"clients that use DANE refuse the server: {error}; {advice}")


def _tls(seen: ProbeResult, now: datetime) -> Iterator[Finding]:
    tls = seen.tls
    if tls is None:
        if seen.error is None:
            yield Finding(
                WEAK, "no TLS: everybody on the network path can read and change the mail"
            )
        return
    pins = {
        "fingerprint": "its fingerprint",
        "public-key": "its public key",
        "dane-ee": f"a TLSA record of {tls.identity}",
        "dane-ta": f"a TLSA record and the name {tls.identity}",
    }
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
        # Only a certificate that is pinned, or in a TLSA record, may have expired.
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


def _to_trust(survey: Survey) -> Iterator[Finding]:
    """Tell how a certificate that was rejected can be trusted."""
    seen, dane = survey.seen, survey.dane
    shown = seen.presented
    if not isinstance(seen.error, CertificateRejected) or shown is None or not shown.fingerprint:
        return
    if not seen.server.trust.dane:
        yield Finding(
            WRONG,
            "to trust this certificate, once you have checked by other means that it is the server's: "
            f"--fingerprint {shown.fingerprint}",
        )
    elif dane is not None and dane.records is not None:
        yield Finding(WRONG, f"if the certificate is the server's, {_advice(survey, dane.records)}")


def _advice(survey: Survey, records: TLSARecords) -> str:
    shown = survey.seen.presented
    key = shown.public_key if shown else None
    return f"publish {records.name}. IN TLSA 3 1 1 {key or 'and its SHA-256'}"
