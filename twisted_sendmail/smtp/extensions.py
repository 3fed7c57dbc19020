"""SMTP extensions as data: EHLO keywords, commands, and the parameters of MAIL and RCPT.

An :class:`Extension` (RFC 5321 section 2.2) declares what a session needs: the keyword in the reply
to EHLO with its text, further parameters of MAIL and RCPT with their parsers and formatters, and
further commands.  :data:`STANDARD_EXTENSIONS` holds those of this package; an application gives its own to
``ServerSettings.extensions``, or to the client::

    LABEL = Extension("XLABEL", mail=(ExtensionParameter("XLABEL"),))
    ServerSettings(extensions=(*EXTENSIONS, LABEL))

    S: 250 XLABEL
    C: MAIL FROM:<a@example.org> XLABEL=news     parameters.others == {"XLABEL": "news"}

A parameter is unknown (555) to a session that has not offered its extension.  Commands that change
the order of commands (STARTTLS, AUTH, BDAT) are part of the sessions, not of this table.

RFC 1870 (SIZE), RFC 6152 and RFC 3030 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (DSN), RFC 4954 section 5
(AUTH), RFC 8689 (REQUIRETLS), RFC 9422 (LIMITS).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from twisted_sendmail.smtp.address import ReversePath
from twisted_sendmail.smtp.arguments import (
    check_callable,
    check_each,
    check_flag,
    check_type,
)
from twisted_sendmail.smtp.commands import KEYWORD, OtherCommand, upper
from twisted_sendmail.smtp.envelope import Recipient
from twisted_sendmail.smtp.errors import InvalidInput
from twisted_sendmail.smtp.limits import MAX_ENVID, MAX_ORCPT
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted_sendmail.smtp.address import ForwardPath
    from twisted_sendmail.smtp.commands import Mail, Rcpt
    from twisted_sendmail.smtp.server_settings import ServerSettings

_XTEXT = re.compile(r"(?:[!-*,-<>-~\u00a1-\U0010ffff]|\+[0-9A-F]{2})*\Z")
# An address of this type has characters as \x{FC} instead of xtext (RFC 6533 section 3).
_UTF8_TYPE = "utf-8;"
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_XCHAR = re.compile(r"((?:\+[0-9A-F]{2})+)")


def xtext(value: str) -> str:
    """Encode a parameter's value (RFC 3461 section 4)."""
    return "".join(
        c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{b:02X}" for b in c.encode())
        for c in value
    )


def unxtext(text: str | None, limit: int = 1000) -> str:
    """Decode a parameter's value (RFC 3461 section 4): ``+3D`` is ``=``.

    :param limit: characters that the value may have.
    :raises ValueError: *text* is None, empty, too long, no xtext, or holds control characters.
    """
    if text is None or not _XTEXT.match(text):
        raise ValueError("no xtext")
    value = _XCHAR.sub(lambda m: bytes.fromhex(m[1].replace("+", "")).decode("utf-8"), text)
    if not value.isprintable() or not 0 < len(value) <= limit:
        raise ValueError("empty, too long, or not printable")
    return value


def _keyword(keyword: str) -> str:
    check_type("a keyword", keyword, str, "text such as XCLIENT")
    if not KEYWORD.match(keyword):
        raise InvalidInput(f"'{keyword[:40]}' is no keyword", detail="it has letters, digits and -")
    return keyword.upper()


def _verb(verb: str) -> str:
    check_type("a verb", verb, str, "text such as XCLIENT")
    return OtherCommand(verb).name


@frozen
class ExtensionParameter:
    """A parameter of MAIL or RCPT.

    :param keyword: in any case.
    :param parse: returns the value of the text after ``=``, None for a keyword alone; a
        ``ValueError`` refuses the command with 501.  Else the value is xtext (RFC 3461 section 4).
    :param format: returns the text for the wire of a value; None writes the keyword alone.
    :param attribute: the attribute of ``MailParameters`` or ``Recipient`` for the value; None:
        it is kept in their ``others``, under the keyword.
    :raises InvalidInput: the keyword cannot be used.
    """

    keyword: str = field(converter=_keyword)
    parse: Callable[[str | None], Any] = unxtext
    format: Callable[[Any], str | None] = xtext
    attribute: str | None = None

    def __attrs_post_init__(self) -> None:
        check_callable("parse", self.parse, "a function of the text after =")
        check_callable("format", self.format, "a function of a value")
        check_type(
            "attribute", self.attribute, (str, NoneType), "the name of an attribute, or None"
        )


@frozen
class ExtensionCommand:
    """A command with one line and one reply.

    :param verb: in any case; none of the package's own commands.
    :param handle: the server's answer: it is called with the connection
        (:class:`~twisted_sendmail.ConnectionInfo`) and the argument, and returns None (250), a
        Reply, or an awaitable of them.  None, for clients: the server replies 502.
    :param restarts: after a positive reply the session starts again, as after XCLIENT: the
        transaction is over, and EHLO is required again.
    :raises InvalidInput: the verb cannot be used.
    """

    verb: str = field(converter=_verb)
    handle: Callable[[Any, str], object] | None = None
    restarts: bool = False

    def __attrs_post_init__(self) -> None:
        if self.handle is not None:
            check_callable("handle", self.handle, "a function of connection and argument, or None")
        check_flag("restarts", self.restarts)


@frozen
class Extension:
    """One extension.

    :param keyword: the EHLO keyword, in any case.
    :param offer: the text after the keyword in the reply to EHLO, or a function of the settings and
        of whether there is TLS that returns the text, None for no offer.
    :param mail: parameters of MAIL.
    :param rcpt: parameters of RCPT.
    :param commands: further commands.
    :raises InvalidInput: the keyword cannot be used.
    """

    keyword: str = field(converter=_keyword)
    offer: str | Callable[[ServerSettings, bool], str | None] = ""
    mail: tuple[ExtensionParameter, ...] = ()
    rcpt: tuple[ExtensionParameter, ...] = ()
    commands: tuple[ExtensionCommand, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.offer, str):
            check_callable("offer", self.offer, "text, or a function of settings and tls")
        for name in ("mail", "rcpt"):
            check_each(
                name, getattr(self, name), ExtensionParameter, "a list of ExtensionParameter"
            )
        check_each("commands", self.commands, ExtensionCommand, "a list of ExtensionCommand")

    def offered(self, settings: ServerSettings, *, tls: bool) -> str | None:
        """Return the text after the keyword in the reply to EHLO; None for no offer."""
        return self.offer if isinstance(self.offer, str) else self.offer(settings, tls)


class ExtensionTable:
    """The extensions of a session, found by parameter and by command.

    :param extensions: each an :class:`Extension`, or the keyword of one of
        :data:`STANDARD_EXTENSIONS`, or another keyword, which is offered without more.
    :raises InvalidInput: two of them have a parameter or a command in common.
    """

    def __init__(self, extensions: Iterable[str | Extension]) -> None:
        found = [
            each
            if isinstance(each, Extension)
            else STANDARD_EXTENSIONS.get(each.upper()) or Extension(each)
            for each in extensions
        ]
        #: By keyword.
        self.extensions = {extension.keyword: extension for extension in found}
        found = list(self.extensions.values())
        #: Keyword of a parameter to keyword of the extension, and the parameter.
        self.mail: Mapping[str, tuple[str, ExtensionParameter]] = _index(
            (e.keyword, p.keyword, p) for e in found for p in e.mail
        )
        self.rcpt: Mapping[str, tuple[str, ExtensionParameter]] = _index(
            (e.keyword, p.keyword, p) for e in found for p in e.rcpt
        )
        #: Verb to keyword of the extension, and the command.
        self.commands: Mapping[str, tuple[str, ExtensionCommand]] = _index(
            (e.keyword, c.verb, c) for e in found for c in e.commands
        )


def _index(given: Iterable[tuple[str, str, Any]]) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    for extension, name, each in given:
        if name in found:
            raise InvalidInput(f"the extensions {found[name][0]} and {extension} both have {name}")
        found[name] = extension, each
    return found


# -- what MAIL and RCPT ask for -------------------------------------------------------------


@frozen
class MailParameters:
    """The parameters of MAIL, as the server has parsed them."""

    #: Announced octets (RFC 1870); None when not given.
    size: int | None = None
    #: ``7BIT``, ``8BITMIME`` or ``BINARYMIME``; None when not given.
    body: str | None = None
    smtputf8: bool = False
    #: ``FULL`` or ``HDRS``.
    ret: str | None = None
    #: Decoded.
    envid: str | None = None
    #: The submitter, as the client claims (RFC 4954 section 5); ``<>`` for nobody known, and for a
    #: value that is no mailbox.
    auth: ReversePath | None = None
    require_tls: bool = False
    #: Values of an application's parameters, by keyword.
    others: Mapping[str, Any] = field(factory=dict)


#: MAIL has no parameter.
NO_PARAMETERS = MailParameters()


def read_mail_parameters(
    command: Mail, table: ExtensionTable, offered: Collection[str]
) -> MailParameters | Reply:
    """Return the parsed parameters of *command*, or the reply that refuses them.

    :param offered: the keywords of the reply to EHLO.
    """
    found = NO_PARAMETERS
    if command.parameters:
        values = _read(command.parameters, table.mail, offered)
        if isinstance(values, Reply):
            return values
        found = MailParameters(**values)
        if found.body == "BINARYMIME" and "BINARYMIME" not in offered:
            return _unknown("BODY=BINARYMIME")
    if not _ascii(command.sender) and not found.smtputf8:
        return Reply(550, ("5.6.7 An address beyond ASCII needs the parameter SMTPUTF8",))
    return found


def read_recipient(
    command: Rcpt, table: ExtensionTable, offered: Collection[str], *, smtputf8: bool
) -> Recipient | Reply:
    """Return the recipient of *command*, or the reply that refuses its parameters."""
    path = command.recipient
    values = _read(command.parameters, table.rcpt, offered) if command.parameters else {}
    if isinstance(values, Reply):
        return values
    if not _ascii(path) and not smtputf8:
        return Reply(553, ("5.6.7 An address beyond ASCII needs SMTPUTF8 at MAIL",))
    try:
        return Recipient(path, **values)
    except InvalidInput:
        return _bad("NOTIFY or ORCPT")


def _read(
    given: Iterable[tuple[str, str | None]],
    table: Mapping[str, tuple[str, ExtensionParameter]],
    offered: Collection[str],
) -> dict[str, Any] | Reply:
    values: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for keyword, text in given:
        extension, parameter = table.get(keyword, ("", None))
        if parameter is None or extension not in offered:
            return _unknown(keyword)
        try:
            value = parameter.parse(text)
        except ValueError:
            return _bad(keyword)
        if parameter.attribute is None:
            others[keyword] = value
        else:
            values[parameter.attribute] = value
    if others:
        values["others"] = others
    return values


def _ascii(path: ReversePath | ForwardPath) -> bool:
    box = path.mailbox
    return box is None or (box.local_part.isascii() and box.domain.isascii())


def _unknown(keyword: str) -> Reply:
    return Reply(555, (f"5.5.4 {keyword[:40]} is not supported here",))


def _bad(keyword: str) -> Reply:
    return Reply(501, (f"5.5.4 The value of {keyword[:40]} cannot be read",))


# -- the extensions of this package ---------------------------------------------------------


def _size(text: str | None) -> int:
    if not text or len(text) > 20 or not (text.isascii() and text.isdigit()):
        raise ValueError("no size")
    return int(text)


def _one_of(*words: str) -> Callable[[str | None], str]:
    def parse(text: str | None) -> str:
        word = upper(text or "")
        if word not in words:
            raise ValueError("another word")
        return word

    return parse


def _alone(text: str | None) -> bool:
    if text is not None:
        raise ValueError("a value where none belongs")
    return True


def _auth(text: str | None) -> ReversePath:
    value = unxtext(text, MAX_ORCPT)
    try:
        return ReversePath.parse(value)
    except InvalidInput:
        # Some servers pass on a login name that is no mailbox.  A server that does not trust the
        # value treats it as <> (RFC 4954 section 5).
        return ReversePath()


def _notify(text: str | None) -> frozenset[str]:
    if not text:
        raise ValueError("no words")
    return frozenset(upper(text).split(","))


def _read_orcpt(text: str | None) -> str:
    value = unxtext(text, MAX_ORCPT)
    if value[:6].lower() == _UTF8_TYPE:
        value = _EMBEDDED.sub(lambda match: chr(int(match[1], 16)), value)
        if not value.isprintable():
            raise ValueError("not printable")
    return value


def _orcpt(value: str) -> str:
    kind, _, address = value.partition(";")
    if f"{kind};".lower() != _UTF8_TYPE:
        return f"{kind};{xtext(address)}"
    characters = (
        c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):02X}}}" for c in address
    )
    return f"{kind};{''.join(characters)}"


def _offer_auth(settings: ServerSettings, tls: bool) -> str | None:  # noqa: FBT001 - see Extension.offer
    return " ".join(settings.offered_mechanisms(tls=tls)) or None


def _offer_limits(settings: ServerSettings, tls: bool) -> str:  # noqa: FBT001 - see Extension.offer
    limits = f"RCPTMAX={settings.max_recipients}"
    if settings.max_messages is not None:
        limits = f"MAILMAX={settings.max_messages} {limits}"
    return limits


def _parameter(
    keyword: str,
    parse: Callable[[str | None], Any],
    form: Callable[[Any], str | None],
    attribute: str | None = None,
) -> ExtensionParameter:
    return ExtensionParameter(keyword, parse, form, attribute or keyword.lower())


#: The extensions of this package by keyword.  STARTTLS, SIZE, AUTH and LIMITS follow from other
#: settings; every server session has them.
STANDARD_EXTENSIONS: Mapping[str, Extension] = {
    extension.keyword: extension
    for extension in (
        Extension("PIPELINING"),
        Extension("ENHANCEDSTATUSCODES"),
        Extension("CHUNKING"),
        Extension("BINARYMIME"),
        Extension(
            "8BITMIME",
            mail=(_parameter("BODY", _one_of("7BIT", "8BITMIME", "BINARYMIME"), str),),
        ),
        Extension("SMTPUTF8", mail=(_parameter("SMTPUTF8", _alone, lambda _: None),)),
        Extension(
            "DSN",
            mail=(
                _parameter("RET", _one_of("FULL", "HDRS"), str),
                _parameter("ENVID", lambda text: unxtext(text, MAX_ENVID), xtext),
            ),
            rcpt=(
                _parameter("NOTIFY", _notify, lambda words: ",".join(sorted(words))),
                _parameter("ORCPT", _read_orcpt, _orcpt),
            ),
        ),
        Extension(
            "REQUIRETLS",
            # RFC 8689 section 2: only inside TLS.
            offer=lambda settings, tls: "" if tls else None,
            mail=(_parameter("REQUIRETLS", _alone, lambda _: None, "require_tls"),),
        ),
        Extension(
            "STARTTLS", offer=lambda settings, tls: "" if settings.starttls and not tls else None
        ),
        Extension(
            "SIZE",
            offer=lambda settings, tls: str(settings.max_size),
            mail=(_parameter("SIZE", _size, str),),
        ),
        Extension(
            "AUTH",
            offer=_offer_auth,
            mail=(_parameter("AUTH", _auth, lambda path: xtext(str(path))),),
        ),
        Extension("LIMITS", offer=_offer_limits),
    )
}
#: Keywords that every server session has, and the settings that they follow from.
DERIVED_EXTENSIONS: Mapping[str, str] = {
    "STARTTLS": "tls and starttls",
    "SIZE": "max_size",
    "AUTH": "accounts and mechanisms",
    "LIMITS": "max_recipients and max_messages",
}
#: The extensions of this package, for a client session.
STANDARD_TABLE = ExtensionTable(STANDARD_EXTENSIONS.values())


def extended_table(extensions: Iterable[Extension]) -> ExtensionTable:
    """Return :data:`STANDARD_TABLE` with *extensions*; one with the same keyword replaces ours."""
    check_each("extensions", extensions, Extension, "a list of Extension objects")
    given = tuple(extensions)
    return ExtensionTable((*STANDARD_EXTENSIONS.values(), *given)) if given else STANDARD_TABLE
