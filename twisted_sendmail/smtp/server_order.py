"""Why a command cannot be obeyed now, whatever anybody may think of what it asks.

Order (``server_table``), TLS first, AUTH first, and what was not offered; as one
function of the session's standing.

RFC 5321 section 4.1.4, RFC 2033 (LHLO), RFC 3207 section 4, RFC 4954 sections 4 and 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.smtp.command import Auth, Hello, Mail, Verb
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_table import TABLE, ServerState

if TYPE_CHECKING:
    from twisted_sendmail.smtp.command_parser import ServerCommand
    from twisted_sendmail.smtp.server_settings import ServerSettings


# Nothing but their order is to be asked of these.
_ONLY_ORDER = frozenset({Verb.RCPT, Verb.DATA, Verb.RSET, Verb.NOOP, Verb.QUIT})


class Standing(NamedTuple):
    """Where a session stands."""

    state: ServerState
    tls: bool
    authenticated: bool
    #: EHLO or LHLO was said, not HELO.
    esmtp: bool


def objection(settings: ServerSettings, standing: Standing, command: ServerCommand) -> Reply | None:
    """The refusal of *command*, or None when it is in order."""
    verb = command.verb
    if verb in _ONLY_ORDER and (standing.state, verb) in TABLE:
        return None
    text: str | None = None
    if verb is Verb.STARTTLS:
        text = _against_starttls(settings, standing)
    elif verb is Verb.AUTH:
        text = _against_auth(settings, standing)
    elif isinstance(command, Hello) and (verb is Verb.LHLO) is not settings.lmtp:
        text = f"500 5.5.1 Say {'LHLO' if settings.lmtp else 'EHLO'} here"
    elif verb in {Verb.BDAT, Verb.BDAT_LAST} and "CHUNKING" not in settings.extensions:
        text = "502 5.5.1 CHUNKING is not offered"
    if text is None and (standing.state, verb) not in TABLE:
        text = f"503 5.5.1 {verb.value} is out of order: the session is {standing.state.value}"
    if text is None and isinstance(command, Mail):
        text = _against_mail(settings, standing)
    if (
        text is None
        and isinstance(command, Auth)
        and command.mechanism not in (settings.mechanisms or ())
    ):
        text = "504 5.5.4 That mechanism is not offered"
    return None if text is None else Reply(int(text[:3]), (text[4:],))


def _against_starttls(settings: ServerSettings, standing: Standing) -> str | None:
    if standing.tls:
        return "503 5.5.1 TLS is on already"
    if not settings.starttls:
        return "502 5.5.1 STARTTLS is not offered"
    return None if standing.esmtp else "503 5.5.1 Say EHLO before STARTTLS"


def _against_auth(settings: ServerSettings, standing: Standing) -> str | None:
    if standing.authenticated:
        return "503 5.5.1 Already authenticated"
    if not settings.mechanisms:
        return "502 5.5.1 AUTH is not offered"
    if not standing.tls and not settings.clear_auth:
        return f"538 5.7.11 {_encryption_required(settings)}"
    return None if standing.esmtp else "503 5.5.1 Say EHLO before AUTH"


def _against_mail(settings: ServerSettings, standing: Standing) -> str | None:
    if settings.require_tls and not standing.tls:
        return f"530 5.7.0 {_encryption_required(settings)}"
    if settings.require_auth and not standing.authenticated:
        return "530 5.7.0 Authentication is required"
    return None


def _encryption_required(settings: ServerSettings) -> str:
    # STARTTLS is no remedy where only implicit TLS is spoken.
    return f"Encryption is required{': say STARTTLS first' if settings.starttls else ''}"
