"""The addresses in address fields, each as written; the sender and recipients of a header.

Display names, comments and groups are skipped; nothing is decoded, joined or repaired, so every
address that is returned is in the field as it is shown to people. An ambiguous field is refused. A
value is read once from left to right, whatever the nesting.

RFC 5322 section 3.4 (address specification) and 3.6.6 (resent), RFC 6854 (groups in From).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.smtp import (
    ForwardPath,
    InvalidAddress,
    InvalidMessage,
    Mailbox,
    ReversePath,
    UnusableRecipient,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted_sendmail.message.header import Header

_TOKEN = re.compile(
    # White space and comments without nested comments: many at once.
    r"(?:[ \t\r\n]+|\([^()\\]*(?:\\.[^()\\]*)*\)){1,1000}"
    r'|"(?:[^"\\]|\\.)*"|\[[^][]*\]|[^][ \t\r\n"()<>,;:@\\]+|.',
    re.DOTALL,
)
#: Belongs into display names only (RFC 2047 section 5): a server would take it literally for a local
#: part, a person reads it decoded.
ENCODED_WORD = re.compile(r"=\?[^?]*\?[BbQq]\?[^?]*\?=")
_FLAT_COMMENT = re.compile(r"\([^()\\]*(?:\\.[^()\\]*)*\)", re.DOTALL)
_IN_COMMENT = re.compile(r"[^()\\]+|\\.|.", re.DOTALL)


class AddressSpec(NamedTuple):
    """One address as written in a value."""

    text: str
    #: Where it begins in the value.
    begin: int
    in_group: bool


def header_sender(header: Header) -> ReversePath:
    """Return the address in ``Sender``, or else ``From``; if resent, in the newest ``Resent-`` forms.

    :raises InvalidMessage: there is no sender, or more than one, or a line is not a field.
    :raises InvalidAddress: an address cannot be used.
    """
    for name, boxes in _addresses(header, "Sender", "From"):
        if len(boxes) > 1:
            raise InvalidMessage(
                f"the sender is not clear: {name} names {len(boxes)}",
                remedy="give the sender, or add a Sender field",
            )
        if boxes:
            return ReversePath(boxes[0])
    raise InvalidMessage("the message has no sender", remedy="give the sender, or a From field")


def header_recipients(
    header: Header, domain: str | None = None, unusable: list[UnusableRecipient] | None = None
) -> list[ForwardPath]:
    """Return the addresses in ``To``, ``Cc``, ``Bcc``; if resent, in the newest ``Resent-`` forms.

    :param domain: appended to an address that has no domain; None: such an address is an error.
    :param unusable: gets the addresses that cannot be used, if there are others; None: such an
        address is an error.
    :raises InvalidMessage: a line of the header is not a field.
    :raises InvalidAddress: an address, or each of them, cannot be used; or a field is not a list of
        addresses, or one of them holds CR, LF or NUL.
    """
    found: list[ForwardPath] = []
    for _, boxes in _addresses(header, "To", "Cc", "Bcc", domain=domain, unusable=unusable):
        found += map(ForwardPath, boxes)
    return found


def _addresses(
    header: Header,
    *names: str,
    domain: str | None = None,
    unusable: list[UnusableRecipient] | None = None,
) -> Iterator[tuple[str, list[Mailbox]]]:
    broken = header.broken
    if broken is not None:
        shown = printable(header.fields[broken].octets.rstrip(), 60)
        raise InvalidMessage(
            f"the header cannot tell who sends and who receives: '{shown}' is no field",
            remedy="put an empty line between header and body, or give sender and recipients",
        )
    resent = header.newest_resent
    if resent.fields:
        header, names = resent, tuple(f"Resent-{name}" for name in names)
    for name in names:
        boxes: list[Mailbox] = []
        for value in header.values(name.lower()):
            boxes += mailboxes(name, value, domain, unusable)
        yield name, boxes


def mailboxes(
    name: str,
    value: str,
    domain: str | None = None,
    unusable: list[UnusableRecipient] | None = None,
) -> list[Mailbox]:
    """Return the mailboxes in the *value* of the address field *name*, also those in groups.

    :param value: unfolded.
    :param domain: appended to an address that has no domain; None: such an address is an error.
    :param unusable: gets the addresses that cannot be used; None: such an address is an error.
    :raises InvalidAddress: *value* is not a list of addresses, or one of them cannot be used.
    """
    found = []
    for spec, begin, _ in address_specs(name, value):
        try:
            found.append(_mailbox(name, spec, domain))
        except InvalidAddress as error:
            if "@" not in spec and "<" in value[begin:]:
                error.remedy += '; write a display name with a comma as "Doe, Jane"'
            if unusable is None or any(character in spec for character in "\r\n\0"):
                raise
            unusable.append(UnusableRecipient(spec, error))
    return found


def address_specs(name: str, value: str) -> list[AddressSpec]:
    """Return the addresses in the *value* of the address field *name*, as written.

    :param value: may be folded.
    :raises InvalidAddress: *value* is not a list of addresses.
    """
    return _Reader(name, value).read()


def _mailbox(name: str, spec: str, domain: str | None) -> Mailbox:
    what = f"address '{printable(spec, 100)}' in {name} cannot be used"
    if ENCODED_WORD.search(spec):
        raise InvalidAddress(
            what,
            detail="it contains an encoded word",
            remedy="write the address without encoding",
        )
    try:
        return Mailbox.parse(spec if domain is None or "@" in spec else f"{spec}@{domain}")
    except InvalidAddress as e:
        raise InvalidAddress(what, detail=e.detail, remedy=e.remedy) from None


def comment_end(value: str, at: int) -> int:
    """Return where the comment that begins at *at* ends, or -1 if it does not end."""
    flat = _FLAT_COMMENT.match(value, at)
    if flat is not None:
        return flat.end()
    depth = 0
    for part in _IN_COMMENT.finditer(value, at):
        if part[0] == "(":
            depth += 1
        elif part[0] == ")":
            depth -= 1
            if not depth:
                return part.end()
    return -1


class _Reader:
    """Reads one value from left to right."""

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value
        self._found: list[AddressSpec] = []
        self._in_group = False
        self._after_group = False
        self._begin_address()
        self._specials: dict[str, Callable[[int], None]] = {
            "<": self._open_angle,
            ">": self._close_angle,
            ",": self._end_address,
            ":": self._open_group,
            ";": self._close_group,
        }

    def _begin_address(self) -> None:
        self._first = self._last = -1  # the words so far, from their first to their last octet
        self._at_sign = False
        self._name_before: str | None = None  # the display name, inside the angle brackets
        self._spec: AddressSpec | None = None  # between the angle brackets

    def read(self) -> list[AddressSpec]:
        """Return the addresses."""
        at, value = 0, self._value
        while at < len(value):
            token = _TOKEN.match(value, at)
            text = token[0] if token else ""
            end = at + len(text)
            if text == "(":
                end = comment_end(value, at)
                if end < 0:
                    raise self._bad("a comment is not ended by ')'")
            elif text[0] in " \t\r\n(":
                pass
            elif text in self._specials and not (text in ",:" and self._name_before is not None):
                self._specials[text](at)
            else:
                self._word(text, at, end)
            at = end
        if self._in_group:
            raise self._bad("a group is not ended by ';'")
        self._end_address(at)
        return self._found

    def _word(self, text: str, at: int, end: int) -> None:
        if text in {'"', ")", "\\", "[", "]"}:
            raise self._bad(f"there is a stray {text}")
        if self._spec is not None or self._after_group:
            raise self._bad("there is no comma between two addresses")
        if self._first < 0:
            self._first = at
        self._last = end
        self._at_sign = self._at_sign or text == "@"

    def _open_angle(self, at: int) -> None:
        if self._name_before is not None or self._spec is not None or self._after_group:
            raise self._bad("there is a stray <")
        self._name_before = self._value[self._first : self._last] if self._at_sign else ""
        self._first = self._last = -1
        self._at_sign = False

    def _close_angle(self, at: int) -> None:
        if self._name_before is None:
            raise self._bad("there is a stray >")
        text = self._value[self._first : self._last] if self._first >= 0 else ""
        self._spec = AddressSpec(text, self._first, self._in_group)
        # A display name with an @ needs quotes, or looks like another address.
        if self._name_before not in {"", text}:
            raise self._bad("a display name holds @ and has no quotes")
        self._name_before = None

    def _end_address(self, at: int) -> None:
        if self._name_before is not None:
            raise self._bad("a < has no >")
        if self._spec is not None:
            self._found.append(self._spec)
        elif self._first >= 0:
            text = self._value[self._first : self._last]
            self._found.append(AddressSpec(text, self._first, self._in_group))
        self._after_group = False
        self._begin_address()

    def _open_group(self, at: int) -> None:
        if self._in_group or self._first < 0 or self._spec is not None or self._at_sign:
            raise self._bad("there is a stray :")
        self._in_group = True
        self._begin_address()

    def _close_group(self, at: int) -> None:
        if not self._in_group:
            raise self._bad("there is a ; outside of a group", "separate addresses by commas")
        self._end_address(at)
        self._in_group = False
        self._after_group = True

    def _bad(self, why: str, remedy: str = "") -> InvalidAddress:
        return InvalidAddress(
            f"the field {self._name}: '{printable(self._value, 100)}' cannot be used",
            detail=why,
            remedy=remedy or "correct it, or give sender and recipients",
        )
