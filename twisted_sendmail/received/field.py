"""One Received field: the forms that servers write as values, and the values as a field.

The grammar of RFC 5321 section 4.4 is what a server should write. Few do: comments hold the client's
address and the facts of TLS, clauses come in any order, and some fields are nothing but a comment.
The parser therefore divides the text into words, comments and the date, takes the words that begin
a clause (``from``, ``by``, ``via``, ``with``, ``id``, ``for``; Exim's ``tls``), and reads the comments of each
clause by the forms of known servers. It needs time linear in the length of the text, and raises
nothing: a part that it cannot read is absent from the values, and is in ``raw``.

>>> field = ReceivedField.parse(
...     "from client.example.net (gw.example.net [192.0.2.1]) by mx.example.org (Postfix)"
...     " with ESMTPS id 4XyZ for <bob@example.org>; Fri, 2 Jan 2026 04:04:05 +0100 (CET)"
... )
>>> field.from_
TraceHost(name='client.example.net', reverse_name='gw.example.net', address='192.0.2.1', comments=())
>>> field.with_, field.id, field.date.isoformat()
('ESMTPS', '4XyZ', '2026-01-02T04:04:05+01:00')
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_tz
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from attrs import Factory, field, frozen

from twisted_sendmail.message import comment_end
from twisted_sendmail.received.writer import clause, received_field
from twisted_sendmail.smtp import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Names of protocols in a ``with`` clause (RFC 3848, RFC 6531 section 4.3), and those that servers use
#: beside them; the groups are TLS and AUTH.
_PROTOCOL = re.compile(r"(?:(?:UTF8|E)?[SL]MTP|HTTP|IMAP|POP3)(S?)(A?)", re.IGNORECASE)


@frozen
class TraceTLS:
    """The TLS session of a hop; each part is None where the field does not have it."""

    #: As OpenSSL names it: ``TLSv1.3``; ``TLSv1`` is TLS 1.0.
    version: str | None = None
    cipher: str | None = None
    #: Bits of the cipher's key.
    bits: int | None = None

    def __str__(self) -> str:
        bits = f"bits={self.bits}" if self.bits is not None else None
        return " ".join(part for part in (self.version, self.cipher, bits) if part)


@frozen
class TraceHost:
    """The client or the server of a hop, as the server described it."""

    #: A client's name in EHLO or, if the field does not have that, the first name in the clause;
    #: a server's own name. Empty if there is none.
    name: str = ""
    #: The name that DNS has for the client's address.
    reverse_name: str | None = None
    #: The IP address, in its canonical form.
    address: str | None = None
    #: The other comments of the clause.
    comments: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names and the address, for comparison: lower-case, without a dot at the end."""
        given = (self.name, self.reverse_name or "", self.address or "")
        return frozenset(text.lower().rstrip(".") for text in given if text) - {"", "unknown"}

    @property
    def key(self) -> str:
        """The text by which a host is recognised: the name, or else the address; may be empty."""
        return self.name.lower().rstrip(".") or self.address or ""

    def __str__(self) -> str:
        found = [self.reverse_name] if self.reverse_name not in {None, self.name} else []
        if self.address is not None and self.address != _address(self.name):
            found.append(f"[{self.address}]")
        outside = self.name or "unknown"
        return f"{outside} ({' '.join(map(str, found))})" if found else outside


@frozen
class ReceivedField:
    """One Received field (RFC 5321 section 4.4).

    Two fields are equal if their values are; ``raw`` does not count.
    """

    from_: TraceHost | None = None
    by: TraceHost | None = None
    #: The link, such as ``TCP`` or ``Frontend Transport``.
    via: str | None = None
    #: The protocol: ``ESMTPS``, ``Microsoft SMTP Server``, ``mapi`` …
    with_: str | None = None
    #: The queue id.
    id: str | None = None
    #: The recipient, without angle brackets.
    for_: str | None = None
    #: Always aware; in the zone that the field names.
    date: datetime | None = None
    tls: TraceTLS | None = None
    #: Comments that belong to neither host, such as ``qmail 1234 invoked by uid 1000``.
    comments: tuple[str, ...] = ()
    #: True if the date has no zone, or an unknown one, and was taken for UTC. ``-0000`` is UTC.
    zone_assumed: bool = False
    #: The value as it was parsed, with its folding; empty if the field was not parsed.
    raw: str = field(default=Factory(str), eq=False, repr=False)

    @classmethod
    def parse(cls, value: str | bytes) -> ReceivedField:
        """Parse the value of a field, or a whole field with its name; raises nothing.

        :param value: folded or not. Octets that are not UTF-8 become surrogates.
        """
        raw = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        return _parse(raw)

    @property
    def encrypted(self) -> bool:
        """True if the field tells that the hop used TLS; False does not tell that it did not."""
        return self.tls is not None or self._registered(1)

    @property
    def authenticated(self) -> bool:
        """True if the protocol tells that the client used AUTH."""
        return self._registered(2)

    def _registered(self, group: int) -> bool:
        match = _PROTOCOL.fullmatch(self.with_ or "")
        return bool(match and match[group])

    def clauses(self) -> list[str]:
        """Return the clauses as text, without the date, for :func:`folded` and :func:`received_field`.

        :raises InvalidInput: a value would break the field.
        """
        parts = []
        if self.from_ is not None:
            parts.append(_host_clause("from", self.from_))
        if self.by is not None:
            parts.append(_host_clause("by", self.by))
        if self.via is not None:
            parts.append(clause("via", self.via))
        tls = str(self.tls) if self.tls is not None else ""
        comments = ([tls] if tls else []) + list(self.comments)
        if self.with_ is not None:
            parts.append(clause("with", self.with_, *comments))
        elif comments:
            raise InvalidInput("comments of a Received field need a protocol ('with') before them")
        if self.id is not None:
            parts.append(clause("id", self.id))
        if self.for_ is not None:
            parts.append(clause("for", f"<{self.for_}>"))
        return parts

    def encode(self) -> bytes:
        """Return the whole field: folded, with its name and CRLF, in UTF-8.

        The form is that of RFC 5321, with the client's address in a comment, as Postfix writes it.
        ``raw`` is not used.

        :raises InvalidInput: there is no ``by`` or no date, or a value would break the field.
        """
        if self.by is None or self.date is None:
            raise InvalidInput("a Received field needs 'by' and a date")
        if self.date.tzinfo is None:
            raise InvalidInput("the date of a Received field needs a zone")
        return received_field(self.clauses(), self.date)


def _host_clause(word: str, host: TraceHost) -> str:
    literal = None
    if host.address is not None:
        kind = "IPv6:" if ":" in host.address else ""
        literal = f"[{kind}{host.address}]"
    found = [part for part in (host.reverse_name, literal) if part is not None]
    comments = [" ".join(found)] if found else []
    return clause(word, host.name or "unknown", *comments, *host.comments)


# -- words, comments and semicolons ------------------------------------------------


class _Token(NamedTuple):
    #: ``(`` for a comment, ``;``, or ``w`` for a word.
    kind: str
    text: str


_BLANKS = re.compile(r"[ \t\r\n\f\v\0]+")
_ORDINARY = re.compile(r'(?:[^ \t\r\n\f\v\0();"\[\\]|\\.)+', re.DOTALL)
_LITERAL = re.compile(r"\[[^\[\]();\r\n]*\]")
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def _tokens(text: str) -> Iterator[_Token]:
    """Divide *text* in linear time: no part of it is searched more than a few times."""
    at, begin = 0, 0
    # A quote without its end is an ordinary character, and so are all after it.
    quotes = True
    while at < len(text):
        char = text[at]
        if char in '"[':
            match = (_QUOTED if char == '"' else _LITERAL).match(text, at) if quotes else None
            quotes = quotes and (match is not None or char == "[")
            at = match.end() if match else at + 1
            continue
        ordinary = _ORDINARY.match(text, at)
        if ordinary:
            at = ordinary.end()
            continue
        if char == "\\":
            at += 1  # the last character
            continue
        if begin < at:
            yield _Token("w", text[begin:at])
        if char == "(":
            end = comment_end(text, at)
            inner = text[at + 1 : end - 1]
            if end < 0:
                # A comment without its end ends at the last semicolon.
                semicolon = text.rfind(";", at)
                end = len(text) if semicolon < 0 else semicolon
                inner = text[at + 1 : end]
            yield _Token("(", _BLANKS.sub(" ", inner).strip())
            at = end
        elif char == ";":
            yield _Token(";", char)
            at += 1
        else:
            blanks = _BLANKS.match(text, at)
            at = blanks.end() if blanks else at + 1
        begin = at
    if begin < at:
        yield _Token("w", text[begin:at])


# -- clauses ----------------------------------------------------------------------


class _Clause(NamedTuple):
    word: str
    values: list[str]
    comments: list[str]

    @property
    def text(self) -> str | None:
        return " ".join(self.values) or None


_WORDS = frozenset({"from", "by", "via", "with", "id", "for", "tls"})
_NAME = re.compile(r"\s*received[ \t]*:", re.IGNORECASE)
#: Semicolons after which a date is looked for.
_DATES_TRIED = 4


def _parse(raw: str) -> ReceivedField:
    name = _NAME.match(raw)
    tokens, date, assumed = _without_date(list(_tokens(raw[name.end() :] if name else raw)))
    clauses = _clauses(tokens)
    first: dict[str, _Clause] = {}
    for each in clauses:
        if each.word not in first or not (first[each.word].values or first[each.word].comments):
            first[each.word] = each
    none = _Clause("", [], [])
    # Sendmail's only clause for mail of a local user is a comment: "(from root@localhost)".
    submitted = next((c for c in first[""].comments if c.startswith("from ")), None)
    from_ = _host(first.get("from", none))
    if from_ is None and submitted is not None:
        from_ = TraceHost(submitted.removeprefix("from "))
    hosts = {id(first[word]) for word in ("from", "by") if word in first}
    others = [each for each in clauses if id(each) not in hosts]
    comments = [c for each in others for c in each.comments if c and c != submitted]
    tls = _tls(clauses)
    protocol = first.get("with", none).text
    if protocol is not None:
        protocol = protocol.partition(_ENCRYPTED)[2].strip() or protocol
    recipient = (first.get("for", none).text or "").rstrip(",")
    if recipient.startswith("<") and recipient.endswith(">") and recipient.count("<") == 1:
        recipient = recipient[1:-1]
    return ReceivedField(
        from_=from_,
        by=_host(first.get("by", none)),
        via=first.get("via", none).text,
        with_=protocol,
        # OpenSMTPD writes more words after it.
        id=next(iter(first.get("id", none).values), None),
        for_=recipient or None,
        date=date,
        tls=tls,
        comments=tuple(c for c in comments if tls is None or c != str(tls)),
        zone_assumed=assumed,
        raw=raw,
    )


def _clauses(tokens: Sequence[_Token]) -> list[_Clause]:
    found = [_Clause("", [], [])]
    for at, (kind, text) in enumerate(tokens):
        current = found[-1]
        if kind == "(":
            current.comments.append(text)
        elif kind == "w":
            word = text.lower()
            # A host may be called "by": the word after "from" is a value unless a clause follows.
            empty = bool(current.word) and not (current.values or current.comments)
            if word in _WORDS and (not empty or _is_value(tokens, at + 1)):
                found.append(_Clause(word, [], []))
            else:
                current.values.append(text)
    return found


def _is_value(tokens: Sequence[_Token], at: int) -> bool:
    if at >= len(tokens) or tokens[at].kind != "w":
        return False
    return tokens[at].text.lower() not in _WORDS


# -- hosts ------------------------------------------------------------------------

_IP = r"\[(?:IPv6:)?([0-9a-f:.]*(?:%[\w.-]+)?)\](?::\d+)?"
_IN_BRACKETS = re.compile(_IP, re.IGNORECASE)
# The name is that of DNS; before it may be the login name of RFC 1413.
_FOUND = re.compile(rf"(?:[^\s@\[]+@)?([^\s@\[\]=\"]+)?\s*{_IP}", re.IGNORECASE)
_HELO = re.compile(r"(?:^|[\s\"])(?:HELO|EHLO)[ =]+\"?([^\s\";]+)", re.IGNORECASE)
#: Characters of an address with brackets, scope and port.
_MAX_ADDRESS = 80
_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+)\.\d+")


def _address(text: str) -> str | None:
    """Return an IP address in its canonical form; None if *text* is not one."""
    if len(text) > _MAX_ADDRESS:
        return None
    text = text.removeprefix("[").removesuffix("]")
    text = text[5:] if text[:5].lower() == "ipv6:" else text
    # Exim 3 wrote "[192.0.2.1.25]".
    port = _PORT.fullmatch(text)
    try:
        return str(ip_address(port[1] if port else text))
    except ValueError:
        return None


def _host(clause: _Clause) -> TraceHost | None:
    """Return the host of a ``from`` or ``by`` clause."""
    if not (clause.values or clause.comments):
        return None
    literals = [value for value in clause.values[1:] if value.startswith("[")]
    name = clause.values[0] if literals else clause.text or ""
    address = next((a for a in map(_address, literals) if a), None)
    reverse: str | None = None
    helo: str | None = None
    comments = []
    for comment in clause.comments:
        said = _HELO.search(comment)
        helo = said[1] if said and helo is None else helo
        # An address literal in HELO is not the client's address.
        rest = comment.replace(said[0], "", 1) if said else comment
        whole = _FOUND.fullmatch(rest)
        found = whole or _FOUND.match(rest) or _IN_BRACKETS.search(rest)
        # Exchange and qmail write the address alone; qmail perhaps with a user before it.
        bare = _address(rest.rpartition("@")[2])
        known = bare or (_address(found[found.re.groups]) if found else None)
        if known is not None and address in {None, known}:
            address = known
            if not bare and found is not None and found.re is _FOUND and reverse is None:
                reverse = found[1].rstrip(".") if found[1] else None
        understood = (bare and "@" not in rest) or (whole and known and not said) or not rest
        if not understood:
            comments.append(comment)
    # A client may give any address in HELO: that in the comment is the server's.
    address = address or _address(name)
    if reverse is not None and reverse.lower() in {"unknown", "unverified", ""}:
        reverse = None
    if helo is not None and helo != name:
        # Exim and qmail write the name in DNS first, and that of HELO in a comment.
        if reverse is None and not _address(name) and name.lower() != "unknown":
            reverse = name or None
        name = helo
    return TraceHost(name, reverse, address, tuple(c for c in comments if c))


# -- TLS --------------------------------------------------------------------------

_VERSION = re.compile(r"(?<![A-Z0-9])(TLS|SSL)v?(\d)(?:[._](\d))?(?![A-Z0-9.])", re.IGNORECASE)
# A cipher has a hyphen or an underscore; beyond 100 characters it is none.
_CIPHER_NAME = r"([A-Z0-9]{1,100}[-_][A-Z0-9_-]{1,100})"
_CIPHER = re.compile(r"\bcipher[ =:]{1,3}([A-Z0-9][A-Z0-9_-]{1,100})", re.IGNORECASE)
_NEXT_CIPHER = re.compile(rf"[ :]{_CIPHER_NAME}(?::(\d{{1,5}}))?", re.IGNORECASE)
_ENCRYPTED = " encrypted"
_WHOLE_CIPHER = re.compile(_CIPHER_NAME, re.IGNORECASE)
_BITS = re.compile(r"\bbits=(\d{1,5})|\((\d{1,5})/\d{1,5} bits\)", re.IGNORECASE)
_WITHOUT_DETAILS = frozenset({"TLS", "Google Transport Security"})


def _tls(clauses: Iterable[_Clause]) -> TraceTLS | None:
    """Return the TLS session that comments, or Exim's ``tls``, describe."""
    version = cipher = None
    bits: int | None = None
    some = False
    for each in clauses:
        texts = [comment for comment in each.comments if not _HELO.search(comment)]
        if each.word == "tls":
            texts += each.values[:1]
            named = each.values[0] if each.values else ""
            cipher = named if cipher is None and not _VERSION.fullmatch(named) else cipher
        elif each.word == "with":
            texts.append(" ".join(each.values))
        for text in texts:
            some = some or text in _WITHOUT_DETAILS
            stated = _VERSION.search(text)
            before, encrypted, _ = text.partition(_ENCRYPTED)
            match = _CIPHER.search(text)
            if encrypted and match is None:
                match = _WHOLE_CIPHER.fullmatch(before.rpartition(" ")[2])
            if stated and version is None:
                version = _version(stated)
                match = match or _NEXT_CIPHER.match(text, stated.end())
            if match and cipher is None:
                cipher = match[1]
            size = _BITS.search(text) if stated or match else None
            digits = (size[1] or size[2]) if size else None
            if digits is None and match is not None and match.re is _NEXT_CIPHER:
                digits = match[2]
            bits = int(digits) if digits and bits is None else bits
    some = some or version is not None or cipher is not None
    return TraceTLS(version, cipher or None, bits) if some else None


def _version(match: re.Match[str]) -> str:
    major, minor = match[2], match[3]
    return f"{match[1].upper()}v{major}" + (f".{minor}" if minor not in {None, "0"} else "")


# -- the date ---------------------------------------------------------------------

#: Zones that have a meaning (RFC 5322 section 4.3); any other name is -0000.
_ZONES = {"UT", "UTC", "GMT", "Z", "EST", "EDT", "CST", "CDT", "MST", "MDT", "PST", "PDT"}
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)? ?(Z|UTC|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_TIME = re.compile(r"(\d{1,2}[:.]\d\d(?:[:.]\d\d)?)(?:\.\d+)?")
_OFFSET = re.compile(r" ?(?:UTC|GMT)?([+-])(\d\d):?(\d\d)(?!\d)")
_ZONE_NAME = re.compile(r" ?\(?([A-Za-z]+)")
_DATE_BEGINS = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?\d{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{2,4} \d{1,2}:\d\d",
    re.IGNORECASE,
)
#: Characters of the longest date that is read; words of one that no semicolon precedes.
_DATE_WIDTH, _DATE_WORDS = 80, 8


def parse_date(text: str) -> tuple[datetime | None, bool]:
    """Return the date in *text*, aware, and True if its zone is a guess.

    :param text: a date of RFC 5322 section 3.3 or its obsolete forms, or of ISO 8601; perhaps with comments.
    """
    return _date(" ".join(token.text for token in _tokens(text) if token.kind == "w"))


def _without_date(tokens: list[_Token]) -> tuple[list[_Token], datetime | None, bool]:
    """Return the tokens that are not the date, the date, and True if its zone is a guess."""
    breaks = [at for at, token in enumerate(tokens) if token.kind == ";"]
    end = len(tokens)
    for at in reversed(breaks[-_DATES_TRIED:]):
        words = [token.text for token in tokens[at + 1 : end] if token.kind == "w"]
        date, assumed = _date(" ".join(words[:_DATE_WORDS]))
        if date is not None:
            return tokens[:at] + tokens[end:], date, assumed
        end = at
    words = [token.text for token in tokens[-_DATE_WORDS:] if token.kind == "w"]
    line = " ".join(words)
    match = _DATE_BEGINS.search(line)
    if match is None:
        return tokens, None, False
    date, assumed = _date(line[match.start() :])
    count = len(line[match.start() :].split()) if date is not None else 0
    taken = 0
    while tokens and taken < count:
        taken += tokens.pop().kind == "w"
    return tokens, date, assumed


def _date(text: str) -> tuple[datetime | None, bool]:
    text = text[:_DATE_WIDTH]
    iso = _ISO.match(text)
    if iso:
        offset = _OFFSET.fullmatch(iso[7] or "")
        known = bool(iso[7])
        fields = [int(number) for number in iso.groups()[:6]]
    else:
        time = _TIME.search(text)
        parsed = _parsed(text[: time.end(1)] + text[time.end() :]) if time else None
        if time is None or parsed is None:
            return None, False
        offset = _OFFSET.match(text, time.end())
        name = _ZONE_NAME.match(text, time.end())
        known = bool(offset or (name and name[1].upper() in _ZONES))
        fields = [number or 0 for number in parsed[:6]]
        if not offset:
            return _aware(fields, parsed[9] or 0), not known
    seconds = 0
    if offset:
        seconds = (int(offset[2]) * 60 + int(offset[3])) * 60 * (-1 if offset[1] == "-" else 1)
    return _aware(fields, seconds), not known


def _parsed(text: str) -> Sequence[int | None] | None:
    try:
        return parsedate_tz(text)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _aware(fields: Sequence[int], offset: int) -> datetime | None:
    """Return a date in its zone; in UTC if the zone is more than a day from it; None for no date."""
    year, month, day, hour, minute, second = fields
    try:
        # Leap seconds are rounded down.
        local = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc)
        moment = local - timedelta(seconds=offset)
        within = abs(offset) < 86400
        return moment.astimezone(timezone(timedelta(seconds=offset))) if within else moment
    except (ArithmeticError, ValueError):
        return None
