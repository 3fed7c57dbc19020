"""Redaction: the one place that removes secrets from everything that is shown.

Two rules, in this order:

1. By place. Every octet of a SASL exchange is replaced by :data:`MASK`, in both directions: initial
   response, challenges, responses, the text of the 235. The text of a refusal of AUTH stays, because
   it tells what to do (``534 5.7.9 Application-specific password required``), unless it quotes the
   exchange.
2. By content. Any other reply that quotes a secret loses its whole text, because the rest of the text
   could tell the secret.

A text quotes a secret if it holds the secret itself, or its form in base64 (standard or for URLs,
also inside longer base64), in hexadecimal or percent-encoded, in upper or lower case. A refusal of
AUTH quotes the exchange also if it shares eight consecutive octets with such a form. Secrets of less
than four characters occur in every text, and are searched as words only; a refusal of AUTH with such
a secret always loses its text.

The sessions of both sides use it (transcripts, replies, errors), and so do SASL (explanations of a
server) and URLs. RFC 4954, RFC 4616, RFC 5802, RFC 7628, RFC 3986.
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

#: Replaces a text that is not shown.
MASK = "****"
#: Characters of a secret that is searched as a word only.
MAX_SHORT_SECRET = 3
#: Consecutive octets that count as a quotation of the exchange.
FRAGMENT = 8
#: Octets of a refusal of AUTH that is searched; a longer one is not shown.
MAX_SEARCHED = 2048

_BEARER = re.compile(rb"auth=Bearer ([!-~]+)")
_SEPARATORS = re.compile(rb"[\x01,]")
_ATTRIBUTE = re.compile(rb"[a-z]=")


def shown_line(verb: str, *, argument: bool) -> str:
    """Return what may be shown of a client's line whose argument may be a secret.

    :param verb: a verb that the server has; empty if the line has none, and may be a password
        that was sent by mistake.
    :param argument: the line has more than the verb.
    """
    if not verb:
        return "(no command)"
    return f"{verb} {MASK}" if argument else verb


class Challenge(Reply):
    """A 334, for the mechanism only: :attr:`lines` holds its text, ``str()`` and ``repr()`` do not."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.code} {MASK}"

    __repr__ = __str__


class Redaction:
    """The secrets of one connection."""

    __slots__ = (
        "_challenges",
        "_concealed",
        "_forms",
        "_mechanism",
        "_number",
        "_responses",
        "_short",
        "_words",
    )

    def __init__(self) -> None:
        # The connection's secrets, and their forms in lower case.
        self._concealed: set[bytes] = set()
        self._forms: list[bytes] = []
        # Parts of the last exchange; their forms are made when AUTH is refused.
        self._responses: list[bytes] = []
        self._challenges: list[bytes] = []
        # Short secrets, as patterns.
        self._words: list[re.Pattern[bytes]] = []
        self._short = False
        self._mechanism = ""
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._forms or self._words)

    def conceal(self, secret: str | bytes, forms: Iterable[bytes] | None = None) -> None:
        """Do not show *secret* from now on.

        :param forms: its :func:`quoted_forms`, if they were made already.
        """
        octets = secret.encode("utf-8", "replace") if isinstance(secret, str) else secret
        if not octets or octets in self._concealed:
            return
        self._concealed.add(octets)
        forms = quoted_forms(octets) if forms is None else forms
        if len(octets) > MAX_SHORT_SECRET:
            self._add(forms)
            return
        self._short = True
        words = [_word(form) for form in forms]
        self._words += [word for word in words if word not in self._words]

    def _add(self, forms: Iterable[bytes]) -> None:
        """Add *forms* to the search."""
        self._forms = list(dict.fromkeys((*self._forms, *forms)))

    # -- the exchange ---------------------------------------------------------

    def begin(self, mechanism: str, initial: bytes | None) -> None:
        """Note an AUTH command, with its initial response."""
        self._mechanism, self._number = mechanism, 0
        self._responses.clear()
        self._challenges.clear()
        if initial is not None:
            self.response(initial)

    def response(self, response: bytes) -> None:
        """Note a response, not encoded."""
        self._number += 1
        if not response.strip(b"\1"):
            return
        private = self._without_user_name(response)
        for secret in _secrets(private) if private else ():
            self.conceal(secret)
        encoded = b64encode(response)
        if len(encoded) > 2 * MAX_SHORT_SECRET:
            self._add((encoded.rstrip(b"=").lower(),))
        self._responses.append(encoded)
        if private:
            self._responses += _attributes(private)

    def _without_user_name(self, response: bytes) -> bytes:
        """Return *response* without a user name that stands in it as it is, which is no secret."""
        if self._mechanism == "EXTERNAL" or (self._mechanism == "LOGIN" and self._number == 1):
            return b""
        return response.rpartition(b" ")[2] if self._mechanism == "CRAM-MD5" else response

    def challenge(self, text: bytes, decoded: bytes = b"") -> None:
        """Note a challenge: its octets on the wire, and decoded if known."""
        self._challenges.append(text)
        if self._mechanism == "CRAM-MD5":
            # <1896.697170952@mail.example.org>: the name of the server is no secret (RFC 2195).
            decoded = decoded.partition(b"@")[0]
        if self._mechanism != "LOGIN":  # whose challenges are words for a person
            self._challenges += _attributes(decoded)

    def in_exchange(self, reply: Reply) -> Reply:
        """Return what may be shown of a reply to AUTH, to a response or to ``*``."""
        if reply.code < 400:
            return self._bare(reply)
        text = "".join(reply.lines)
        return self._bare(reply) if self._holds(text, self._responses, self._challenges) else reply

    def explanation(self, text: str) -> str:
        """Return the explanation in a challenge; empty if it quotes what was sent."""
        return "" if self._holds(text, self._responses) else text

    def _holds(self, shown: str, *exchange: list[bytes]) -> bool:
        text = _searched(shown)
        if self._short or len(text) > MAX_SEARCHED or self.concerns(text):
            return True
        fragments = {text[i : i + FRAGMENT] for i in range(len(text) - FRAGMENT + 1)}
        forms = (quoted_forms(part) for part in chain.from_iterable(exchange) if part)
        for form in chain(self._forms, chain.from_iterable(forms)):
            if len(form) < FRAGMENT:
                if _word(form).search(text):
                    return True
            elif any(fragment in form for fragment in fragments):
                return True
        return False

    # -- all that follows -----------------------------------------------------

    def concerns(self, octets: bytes) -> bool:
        """Return True if *octets* quotes a secret."""
        octets = octets.lower()
        if any(map(octets.__contains__, self._forms)):
            return True
        return bool(self._words) and any(word.search(octets) for word in self._words)

    def reply(self, reply: Reply) -> Reply:
        """Return what may be shown of any other reply."""
        if reply.code == 334 or self.concerns(_searched("".join(reply.lines))):
            return self._bare(reply)
        if len(reply.lines) == 1 or not any(self._quotes(line) for line in reply.lines):
            return reply
        return Reply(reply.code, tuple(MASK if self._quotes(x) else x for x in reply.lines))

    def text(self, text: str) -> str:
        """Return what may be shown of *text*."""
        return MASK if self._quotes(text) else text

    def _quotes(self, text: str) -> bool:
        return self.concerns(_searched(text))

    def _bare(self, reply: Reply) -> Reply:
        """Return the code, and the enhanced status code unless it quotes a secret."""
        status = str(reply.enhanced or "")
        shown = f"{status} {MASK}" if status and not self._quotes(status) else MASK
        return Reply(reply.code, (shown,))


def _searched(text: str) -> bytes:
    return text.encode("utf-8", "replace").lower()


def _word(form: bytes) -> re.Pattern[bytes]:
    """Return a pattern for *form* without a letter or digit before and after it."""
    before = rb"(?<![0-9A-Za-z])" if form[:1].isalnum() else b""
    after = rb"(?![0-9A-Za-z])" if form[-1:].isalnum() else b""
    return re.compile(before + re.escape(form) + after)


def quoted_forms(octets: bytes) -> list[bytes]:
    """Return the forms in which a server may write *octets*, in lower case."""
    return [
        octets.lower(),
        b64encode(octets).rstrip(b"=").lower(),
        *_inside_base64(octets),
        octets.hex().encode(),
        quote_from_bytes(octets, safe="").encode().lower(),
        quote_from_bytes(octets, safe="/:@!$&'()*+,;=").encode().lower(),
    ]


def _inside_base64(octets: bytes) -> list[bytes]:
    """Return the part of base64 that does not depend on the octets before and after *octets*."""
    found = []
    for before in range(3):
        encoded = b64encode(b"\0" * before + octets)
        # A character holds six bits; characters with a bit of other octets are not known.
        start, end = -(-before * 8 // 6), (before + len(octets)) * 8 // 6
        core = encoded[start:end]
        if len(core) >= FRAGMENT - 2:
            found.append(core.lower())
            if b"+" in core or b"/" in core:
                found.append(core.replace(b"+", b"-").replace(b"/", b"_").lower())
    return found


def _secrets(response: bytes) -> list[bytes]:
    """Return the secrets in a *response* that are concealed until the connection ends."""
    bearer: list[bytes] = _BEARER.findall(response)
    # PLAIN: authorization identity, user, password (RFC 4616).
    return bearer or [response.rpartition(b"\0")[2]]


def _attributes(message: bytes) -> Iterator[bytes]:
    """Yield the values in a SASL message, without identities."""
    if b"\0" in message:
        yield message.rpartition(b"\0")[2]
        return
    for part in _SEPARATORS.split(message):
        if part[:2] in {b"n=", b"a="} or part in {b"n", b"y"} or part.startswith(b"user="):
            continue
        yield part[2:] if _ATTRIBUTE.match(part) else part


# -- URLs ---------------------------------------------------------------------

# Everything that a reader or Unicode's normalization takes for the end of user and password.
_AT = re.compile("@|%40|\uff20|\ufe6b", re.IGNORECASE)
_URL_SCHEME = re.compile(
    r"\s*(?:(smtps?|smtp\+[a-z]+|submissions?)(:/*)|([a-z][a-z0-9+.-]*)(://+))", re.IGNORECASE
)
_URL_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*)(:[0-9]{1,5}(?![^/]))?")


def shown_url(url: str) -> str:
    """Return the parts of *url* that cannot be a password, however misspelt: scheme, host, port.

    Everything before the last ``@`` counts as user and password; nothing after the port is shown.
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


def full_url(url: str) -> str:
    """Return *url* with ``//`` before user and host; ``submission:example.org`` may lack it."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() == "submission" and not rest.startswith("/"):
        return f"{scheme}://{rest}"
    return url


def may_hold_url(text: str) -> bool:
    """Return True if *text* may hold a URL or a part of one."""
    return _URL_SCHEME.search(text) is not None or _AT.search(text) is not None


def shown_argument(text: str) -> str:
    """Return *text* to be shown where no URL was expected."""
    return shown_url(text) if may_hold_url(text) else printable(text, 200)


def _host(match: re.Match[str]) -> str:
    name, port = match[1], match[2] or ""
    if name.startswith("["):
        try:
            ip_address(name[1:-1])
        except ValueError:
            return "…"
    return name + port
