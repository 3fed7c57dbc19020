"""The one place that decides what of a secret may be shown: nothing.

Two rules, in this order:

1. By place.  Every octet of a SASL exchange is replaced by :data:`MASK`, in both
   directions: initial response, challenges, responses, the text of the 235.  Of a
   refusal of AUTH the text stays, for it says what to do (``534 5.7.9 Application-specific
   password required``), unless it quotes the exchange.
2. By content.  Any other reply that quotes a secret loses its text.  Text is never
   cut or patched: the rest of it could tell what is missing.

A text quotes a secret when it holds it as it is, in base64 (standard or for URLs, also
inside longer base64), in hexadecimal or percent-encoded, in capital or small letters.
A refusal of AUTH also quotes when it shares eight octets in a row with such a form.
Secrets of less than four characters are looked for as words only, for they are in
every text; so a refusal of AUTH with one of these always loses its text.

Used by the sessions of both sides (transcripts, replies, errors), by SASL (what a
server explains) and for URLs.  RFC 4954, RFC 4616, RFC 5802, RFC 7628, RFC 3986.
"""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Stands for what is not shown.
MASK = "****"
#: Characters of a secret that is looked for as a word only.
SHORT = 3
#: Octets in a row that are taken for a quotation of the exchange.
FRAGMENT = 8
#: Octets of a refusal of AUTH that are searched; a longer one is not shown.
MAX_SEARCHED = 2048

_BEARER = re.compile(rb"auth=Bearer ([!-~]+)")
_SEPARATORS = re.compile(rb"[\x01,]")
_ATTRIBUTE = re.compile(rb"[a-z]=")


class Challenge(Reply):
    """A 334 for the mechanism alone: its text is in :attr:`lines`, and in nothing it shows."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.code} {MASK}"

    __repr__ = __str__


class Redaction:
    """What may not be shown of one connection."""

    __slots__ = (
        "_challenges",
        "_forms",
        "_mechanism",
        "_number",
        "_responses",
        "_short",
        "_words",
    )

    def __init__(self) -> None:
        # Forms in small letters: of the connection's secrets, and of the last exchange.
        self._forms: list[bytes] = []
        self._responses: list[bytes] = []
        self._challenges: list[bytes] = []
        # Short secrets, as patterns.
        self._words: list[re.Pattern[bytes]] = []
        self._short = False
        self._mechanism = ""
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._forms or self._words)

    def conceal(self, secret: str | bytes) -> None:
        """Show *secret* no more."""
        octets = secret.encode("utf-8", "replace") if isinstance(secret, str) else secret
        if not octets:
            return
        if len(octets) > SHORT:
            self._add(_forms(octets))
            return
        self._short = True
        words = [_word(form) for form in _forms(octets)]
        self._words += [word for word in words if word not in self._words]

    def _add(self, forms: Iterable[bytes]) -> None:
        """Search for *forms*, but not for one that another is a part of."""
        kept: list[bytes] = []
        for form in sorted({*self._forms, *forms}, key=len):
            if not any(other in form for other in kept):
                kept.append(form)
        self._forms = kept

    # -- the exchange ---------------------------------------------------------

    def begin(self, mechanism: str, initial: bytes | None) -> None:
        """AUTH is sent, with its initial response."""
        self._mechanism, self._number = mechanism, 0
        self._responses.clear()
        self._challenges.clear()
        if initial is not None:
            self.response(initial)

    def response(self, response: bytes) -> None:
        """A response is sent, not encoded."""
        self._number += 1
        if not response.strip(b"\1"):
            return
        for secret in () if self._is_user_name else _secrets(response):
            self.conceal(secret)
        encoded = b64encode(response)
        if len(encoded) > 2 * SHORT:
            self._add((encoded.rstrip(b"=").lower(),))
        self._responses += _all_forms(encoded)
        if not self._is_user_name:
            self._responses += _all_forms(*_attributes(response))

    @property
    def _is_user_name(self) -> bool:
        """Is this response no secret?"""
        return self._mechanism == "LOGIN" and self._number == 1

    def challenge(self, text: bytes, decoded: bytes = b"") -> None:
        """A challenge is sent: as it is on the wire, and decoded where that is known."""
        self._challenges += _all_forms(text)
        if self._mechanism != "LOGIN":  # whose challenges are words for a person
            self._challenges += _all_forms(*_attributes(decoded))

    def in_exchange(self, reply: Reply) -> Reply:
        """What may be shown of a reply to AUTH, to a response or to ``*``."""
        if reply.code < 400:
            return self._bare(reply)
        text = "".join(reply.lines)
        return self._bare(reply) if self._holds(text, self._responses, self._challenges) else reply

    def explanation(self, text: str) -> str:
        """What a challenge says about the refusal; empty when it quotes what we sent."""
        return "" if self._holds(text, self._responses) else text

    def _holds(self, shown: str, *exchange: list[bytes]) -> bool:
        text = _searched(shown)
        if self._short or len(text) > MAX_SEARCHED or self.concerns(text):
            return True
        fragments = {text[i : i + FRAGMENT] for i in range(len(text) - FRAGMENT + 1)}
        for form in chain(self._forms, *exchange):
            if len(form) < FRAGMENT:
                if _word(form).search(text):
                    return True
            elif any(fragment in form for fragment in fragments):
                return True
        return False

    # -- all that follows -----------------------------------------------------

    def concerns(self, octets: bytes) -> bool:
        """Is a secret quoted in *octets*?"""
        octets = octets.lower()
        for form in self._forms:
            if form in octets:
                return True
        return bool(self._words) and any(word.search(octets) for word in self._words)

    def reply(self, reply: Reply) -> Reply:
        """What may be shown of any other reply."""
        if reply.code == 334 or self.concerns(_searched("".join(reply.lines))):
            return self._bare(reply)
        if len(reply.lines) == 1 or not any(self._quotes(line) for line in reply.lines):
            return reply
        return Reply(reply.code, tuple(MASK if self._quotes(x) else x for x in reply.lines))

    def text(self, text: str) -> str:
        """What may be shown of *text*."""
        return MASK if self._quotes(text) else text

    def _quotes(self, text: str) -> bool:
        return self.concerns(_searched(text))

    def _bare(self, reply: Reply) -> Reply:
        """The code, and the enhanced status code where it tells nothing."""
        status = str(reply.enhanced or "")
        shown = f"{status} {MASK}" if status and not self._quotes(status) else MASK
        return Reply(reply.code, (shown,))


def _searched(text: str) -> bytes:
    return text.encode("utf-8", "replace").lower()


def _all_forms(*parts: bytes) -> Iterator[bytes]:
    for part in parts:
        if part:
            yield from _forms(part)


def _word(form: bytes) -> re.Pattern[bytes]:
    """*form*, with no letter or digit before and after it."""
    before = rb"(?<![0-9A-Za-z])" if form[:1].isalnum() else b""
    after = rb"(?![0-9A-Za-z])" if form[-1:].isalnum() else b""
    return re.compile(before + re.escape(form) + after)


def _forms(octets: bytes) -> Iterator[bytes]:
    """*octets* as a server may write them, in small letters."""
    yield octets.lower()
    yield b64encode(octets).rstrip(b"=").lower()
    yield from _inside_base64(octets)
    yield octets.hex().encode()
    yield quote_from_bytes(octets, safe="").encode().lower()
    yield quote_from_bytes(octets, safe="/:@!$&'()*+,;=").encode().lower()


def _inside_base64(octets: bytes) -> Iterator[bytes]:
    """What of base64 is the same whatever is before and after *octets* in it."""
    for before in range(3):
        encoded = b64encode(b"\0" * before + octets)
        # A character holds six bits: those with a bit of something else may be any.
        start, end = -(-before * 8 // 6), (before + len(octets)) * 8 // 6
        core = encoded[start:end]
        if len(core) >= FRAGMENT - 2:
            yield core.lower()
            if b"+" in core or b"/" in core:
                yield core.replace(b"+", b"-").replace(b"/", b"_").lower()


def _secrets(response: bytes) -> list[bytes]:
    """The secrets in a *response* that are to be concealed until the connection ends."""
    bearer: list[bytes] = _BEARER.findall(response)
    # PLAIN: authorization identity, user, password (RFC 4616).
    return bearer or [response.rpartition(b"\0")[2]]


def _attributes(message: bytes) -> Iterator[bytes]:
    """The values in a SASL message, without those that are identities."""
    if b"\0" in message:
        yield message.rpartition(b"\0")[2]
        return
    for part in _SEPARATORS.split(message):
        if part[:2] in {b"n=", b"a="} or part in {b"n", b"y"} or part.startswith(b"user="):
            continue
        yield part[2:] if _ATTRIBUTE.match(part) else part


# -- URLs ---------------------------------------------------------------------

# Whatever a reader or Unicode's normalization takes for the end of the user and password.
_AT = re.compile("@|%40|\uff20|\ufe6b", re.IGNORECASE)
_URL_SCHEME = re.compile(
    r"\s*(?:(smtps?|smtp\+[a-z]+|submissions?)(:/*)|([a-z][a-z0-9+.-]*)(://+))", re.IGNORECASE
)
_URL_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*)(:[0-9]{1,5}(?![^/]))?")


def shown_url(url: str) -> str:
    """As much of *url* as cannot be a password, however it is misspelt: scheme, host, port.

    All before the last ``@`` is taken for user and password, and all after the host for
    something that may not be shown.
    """
    scheme = _URL_SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    start = 0
    for at in _AT.finditer(rest):
        start = at.end()
    host = _URL_HOST.match(rest, start)
    shown = ("…@" if start else "") + (_host(host) if host else "")
    if host is None or host.end() < len(rest):
        shown += "…"
    return printable((scheme[0].lstrip() if scheme else "") + shown, 100)


def may_hold_url(text: str) -> bool:
    """May there be a URL in *text*, or what is left of one?"""
    return _URL_SCHEME.search(text) is not None or _AT.search(text) is not None


def shown_argument(text: str) -> str:
    """*text* to be shown where something else than a URL was expected."""
    return shown_url(text) if may_hold_url(text) else printable(text, 200)


def _host(match: re.Match[str]) -> str:
    name, port = match[1], match[2] or ""
    if name.startswith("["):
        try:
            ip_address(name[1:-1])
        except ValueError:
            return "…"
    return name + port
