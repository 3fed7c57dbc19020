"""Addresses of SMTP: mailboxes, reverse-paths, forward-paths.

The grammar is that of RFC 5321 section 4.1.2 with the additions of RFC 6531 (SMTPUTF8). An address is
parsed or refused, never repaired into another one; display names and comments belong to the header
and are refused here. A source route (RFC 5321 appendix C) and the final dot of a domain are parsed
and dropped.

Beyond the grammar, an underscore is accepted in a domain: host names of containers have it.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.smtp.errors import InvalidAddress
from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.limits import MAX_DOMAIN, MAX_PATH

if TYPE_CHECKING:
    from collections.abc import Callable

# Non-ASCII that may appear (RFC 6531 section 3.3), less what is invisible, breaks
# lines, or is not a character at all.
_UTF8 = "\u00a1-\u00ac\u00ae-\u061b\u061d-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205f\u2070-\ud7ff\ue000-\ufdcf\ufdf0-\ufefe\uff00-\ufff8\U00010000-\U0010ffff"
_LITERAL = r"\[[!-Z^-~]+\]"


class _Grammar:
    """The expressions, with *more* characters than those of ASCII, compiled when they are needed."""

    def __init__(self, more: str) -> None:
        atext = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{more}-]"
        self._dot_string = rf"{atext}+(?:\.{atext}+)*"
        self._quoted = rf'"(?:[ !#-\[\]-~{more}]|\\[ -~])*"'
        label = rf"[A-Za-z0-9_{more}](?:[A-Za-z0-9_{more}-]*[A-Za-z0-9_{more}])?"
        self._domain = rf"{label}(?:\.{label})*"

    @cached_property
    def dot_string(self) -> re.Pattern[str]:
        return re.compile(self._dot_string + r"\Z")

    @cached_property
    def mailbox(self) -> re.Pattern[str]:
        local_part = rf"{self._dot_string}|{self._quoted}"
        return re.compile(rf"({local_part})@(?:({self._domain})\.?|({_LITERAL}))\Z")

    @cached_property
    def domain(self) -> re.Pattern[str]:
        return re.compile(self._domain + r"\Z")

    @cached_property
    def source_route(self) -> re.Pattern[str]:
        return re.compile(rf"@{self._domain}(?:,@{self._domain})*:")


_ASCII = _Grammar("")


# Its expressions take up to a fortieth of a second each to compile: most programs never need one.
_INTERNATIONAL = _Grammar(_UTF8)


def _grammar(text: str) -> _Grammar:
    return _ASCII if text.isascii() else _INTERNATIONAL


_GENERAL_LITERAL_RE = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+\Z")


#: The remedy for an address that is no text.
_GIVE = "give text such as jane@example.org"


def _bad(text: object, why: str, remedy: str = "") -> InvalidAddress:
    shown = printable(text if isinstance(text, (str, bytes)) else repr(text), limit=100)
    return InvalidAddress(f"address '{shown}' cannot be used", detail=why, remedy=remedy)


@attrs.frozen(init=False)
class Mailbox:
    """``local-part@domain``.

    :param local_part: its meaning, without the quotes of a quoted string.
    :param domain: a domain name as written (perhaps with U-labels), or an address literal in
        brackets.
    :raises InvalidAddress: they do not fit the grammar. No mailbox can carry a command onto the wire.

    Usually made by :meth:`parse`.
    """

    local_part: str
    domain: str
    #: The mailbox as it stands between ``<`` and ``>``: quoted if necessary, with A-labels.
    wire: str = attrs.field(eq=False, repr=False)

    def __init__(self, local_part: str, domain: str) -> None:
        for part in (local_part, domain):
            if not isinstance(part, str):
                raise _bad(part, f"it is {type(part).__name__}, not str", _GIVE)
        whole = f"{local_part}@{domain}"
        match = _grammar(whole).mailbox.match(whole)
        if match is None or match[1] != local_part or domain[-1:] == "." or local_part[:1] == '"':
            whole = f"{_quoted(local_part)}@{domain}"
            if domain[-1:] == "." or not _grammar(whole).mailbox.match(whole):
                raise _bad(f"{local_part}@{domain}", "it does not fit RFC 5321 section 4.1.2")
        self._set(local_part, domain, whole)

    def _set(self, local_part: str, domain: str, whole: str) -> None:
        """Set the attributes; *whole* fits the grammar, its local part is quoted if necessary."""
        if not local_part.isprintable():
            raise _bad(local_part, "it holds control characters")
        if len(whole.encode()) > MAX_PATH:
            raise _bad(str(local_part), f"it is longer than {MAX_PATH} octets")
        if domain[:1] == "[":
            _check_literal(domain)
        wire = whole[: len(whole) - len(domain)] + ascii_domain(domain)
        self.__attrs_init__(local_part, domain, wire)

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Parse ``user@example.org``, ``"a b"@example.org``, ``user@[192.0.2.1]``.

        :raises InvalidAddress: *text* is anything else.
        """
        if not isinstance(text, str):
            raise _bad(text, f"it is {type(text).__name__}, not str", _GIVE)
        match = _grammar(text).mailbox.match(text)
        if match is None:
            raise _bad(text, _why(text), _remedy(text))
        local, domain = match[1], match[2] or match[3]
        if local[:1] == '"':
            return cls(re.sub(r"\\(.)", r"\1", local[1:-1]), domain)
        mailbox = cls.__new__(cls)
        mailbox._set(local, domain, f"{local}@{domain}")  # noqa: SLF001 - of the same class
        return mailbox

    @property
    def needs_smtputf8(self) -> bool:
        """True if the local part is not ASCII; a domain always has an ASCII form."""
        return not self.local_part.isascii()

    @property
    def ascii_domain(self) -> str:
        """The domain as A-labels (RFC 5891), or the literal."""
        return ascii_domain(self.domain)

    @property
    def key(self) -> tuple[str, str]:
        """The mailbox for comparisons: only the domain ignores case (RFC 5321 section 2.4)."""
        return self.local_part, self.ascii_domain.lower()

    @property
    def folded(self) -> str:
        """The address in lower case; no one has two mailboxes whose addresses differ in case only."""
        return self.wire.casefold()

    def __str__(self) -> str:
        if self.domain.isascii():
            return self.wire
        return f"{_quoted(self.local_part)}@{self.domain}"


def _why(text: str) -> str:
    if not text.strip():
        return "it is empty"
    if not text.isprintable():
        return "it holds control or invisible characters"
    if "@" not in text:
        return "it has no @"
    return "it does not fit RFC 5321 section 4.1.2"


def _remedy(text: str) -> str:
    if "<" in text or "(" in text:
        return "give the bare address, without a display name or comment"
    several = "give several addresses as a list, in a header with a comma between them"
    words = re.findall(r"[^\s,;]+", text)
    if "," in text or any(_grammar(word).mailbox.match(word) for word in words[:-1]):
        return several
    local, at, domain = text.rpartition("@")
    quoted = f"{_quoted(local)}@{domain}"
    if at and _grammar(quoted).mailbox.match(quoted):
        # Not written for the user: a server would deliver to it, and it may be a slip.
        remedy = (
            f"if that is the name of the mailbox, put it in quotes: {printable(quoted, limit=100)}"
        )
        if " " in local:
            return f"leave out a space or a display name; {several}; {remedy}"
        return remedy
    return "write it as user@example.org"


def _quoted(local_part: str) -> str:
    return local_part if _grammar(local_part).dot_string.match(local_part) else quoted(local_part)


def quoted(text: str) -> str:
    """Return *text* as a quoted string (RFC 5321 section 4.1.2, RFC 5322 section 3.2.4)."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def ascii_domain(domain: str) -> str:
    """Return a domain name in A-labels (RFC 5890), or a literal unchanged.

    :raises InvalidAddress: there is no such form.
    """
    if domain.isascii():
        if len(domain) > MAX_DOMAIN:
            raise _bad(domain, f"its domain is longer than {MAX_DOMAIN} octets")
        return domain
    return _idna(domain)


@lru_cache(maxsize=1024)
def _idna(domain: str) -> str:
    # Most domains are ASCII, and a short program does not need the tables.
    import unicodedata

    import idna

    try:
        # Only case and composition are folded: a look-alike must not become another domain.
        folded = unicodedata.normalize("NFC", domain.lower())
        if any(_is_like_ascii(character) for character in domain):
            raise _bad(domain, "a character in its domain stands for an ASCII one")
        return idna.encode(folded, strict=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as e:
        raise _bad(domain, f"the domain has no IDNA form: {printable(str(e))}") from None


def _is_like_ascii(character: str) -> bool:
    """Return True for a character that is folded to an ASCII one, as the Kelvin sign is to k."""
    import unicodedata

    if character.isascii():
        return False
    return unicodedata.normalize("NFC", character.lower()).isascii()


def _check_literal(literal: str) -> None:
    """Check an address literal (RFC 5321 section 4.1.3)."""
    import ipaddress

    inner = literal[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise ValueError  # a scope has no meaning on another machine
            ipaddress.IPv6Address(inner[5:])
        elif ":" in inner:
            if not _GENERAL_LITERAL_RE.match(inner):
                raise ValueError
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise _bad(
            literal, "it is no address literal", "write [192.0.2.1] or [IPv6:2001:db8::1]"
        ) from None


def domain_name(text: str) -> str:
    """Check a domain name or address literal, as in EHLO; return its ASCII form.

    A trailing dot is dropped (the host names of some systems have one).

    :raises InvalidAddress: *text* is neither.
    """
    name = text.removesuffix(".")
    if _grammar(name).domain.match(name):
        return ascii_domain(name)
    if re.fullmatch(_LITERAL, name):
        _check_literal(name)
        return name
    raise _bad(text, "it is neither a domain name nor an address literal")


def _unwrapped(text: str) -> str:
    """Return the inside of ``<…>`` without a source route, or *text* itself."""
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
        route = _grammar(text).source_route.match(text) if text.startswith("@") else None
        if route:
            text = text[route.end() :]
    return text


# Each message needs these attributes, and ``parse`` keeps the paths of most messages.
def _derived(compute: Callable[[Any], object]) -> Any:
    """Return an attribute that is computed when the path is made."""
    return attrs.field(
        default=attrs.Factory(compute, takes_self=True), init=False, eq=False, repr=False
    )


def _needs_smtputf8(path: ReversePath | ForwardPath) -> bool:
    return path.mailbox is not None and path.mailbox.needs_smtputf8


@attrs.frozen
class ReversePath:
    """The address for bounces: a mailbox, or none (``<>``, the null reverse-path)."""

    mailbox: Mailbox | None = None
    #: ``<user@example.org>`` or ``<>``.
    wire: str = _derived(lambda path: f"<{path.mailbox.wire}>" if path.mailbox else "<>")
    #: True if the local part is not ASCII.
    needs_smtputf8: bool = _derived(_needs_smtputf8)

    @classmethod
    def parse(cls, text: str) -> ReversePath:
        """Parse ``user@example.org``, ``<user@example.org>``, ``<>`` or the empty string.

        :raises InvalidAddress: *text* is anything else.
        """
        return _reverse_path(text) if isinstance(text, str) else cls(Mailbox.parse(text))

    def __str__(self) -> str:
        return str(self.mailbox) if self.mailbox else "<>"


@attrs.frozen
class ForwardPath:
    """A recipient: a mailbox, or ``Postmaster`` without a domain (RFC 5321 section 4.1.1.3)."""

    mailbox: Mailbox | None
    #: ``<user@example.org>`` or ``<Postmaster>``.
    wire: str = _derived(lambda path: f"<{path.mailbox.wire}>" if path.mailbox else "<Postmaster>")
    #: True if the local part is not ASCII.
    needs_smtputf8: bool = _derived(_needs_smtputf8)

    @classmethod
    def parse(cls, text: str) -> ForwardPath:
        """Parse ``user@example.org``, ``<user@example.org>`` or ``Postmaster``.

        :raises InvalidAddress: *text* is anything else.
        """
        return _forward_path(text) if isinstance(text, str) else cls(Mailbox.parse(text))

    def __str__(self) -> str:
        return str(self.mailbox) if self.mailbox else "Postmaster"


# A program sends from and to the same addresses again and again.


@lru_cache(maxsize=4096)
def _reverse_path(text: str) -> ReversePath:
    return ReversePath(None if text in ("", "<>") else Mailbox.parse(_unwrapped(text)))


@lru_cache(maxsize=4096)
def _forward_path(text: str) -> ForwardPath:
    inner = _unwrapped(text)
    if len(inner) == 10 and inner.lower() == "postmaster":
        return ForwardPath(None)
    return ForwardPath(Mailbox.parse(inner))
