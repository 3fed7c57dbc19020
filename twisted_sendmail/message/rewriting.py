"""Addresses made other ones: for machines that are nobody's mail domain.

What a host that only sends needs: its users' mail is from an address that answers, and
mail for its users goes to one who reads it.  Applying it twice changes nothing more.

*Senders*: an exact address comes first, then ``@domain``, then a masqueraded domain,
then ``*``.  What was arrived at by a domain is looked up once more as an exact address.
The null reverse-path stays what it is.

*The header* keeps what its writer wrote, with one exception: when a rule changed the
sender, and ``From`` names exactly that sender and nobody else (or his local part alone),
the address there becomes the new one.  Its name, comments and folding stay.

*Recipients*: those who are local go to the one address, if there is one.  The original
is kept as ORCPT, for reports (RFC 3461 section 4.2; RFC 6533 section 3 beyond ASCII).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from twisted_sendmail.message.header import Field, Header
from twisted_sendmail.smtp import (
    MAX_ORCPT,
    Envelope,
    ForwardPath,
    InvalidInput,
    Mailbox,
    Recipient,
    ReversePath,
    domain_name,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOCAL = frozenset({"localhost", "localhost.localdomain"})
_BLANK = r"[ \t\r\n]*"
# A display name: words, and strings in quotes.
_PHRASE = r'(?:[^"<>()\[\]:;@\\,]|"(?:[^"\\]|\\.)*")*'
_COMMENT = rf"(?:{_BLANK}\([^()\\]*\))?{_BLANK}"


class Rewriting:
    """The rules of one relay.

    :param senders: who becomes whom: ``user@domain`` or ``*`` to an address, ``@domain``
        to an address or to another ``@domain``.
    :param masquerade: domains that show nothing of what is below them: a sender at
        ``host.example.org`` is one at ``example.org``.
    :param admin: who gets what is for a local recipient; None lets it be.
    :param name: our host name: it is local.
    :param local_domains: so are these, ``localhost``, and every domain without a dot.
    :raises InvalidInput: for a rule that cannot be read, or that another one would undo.
    """

    def __init__(
        self,
        *,
        senders: Mapping[str, str] | None = None,
        masquerade: Iterable[str] = (),
        admin: str | None = None,
        name: str = "localhost",
        local_domains: Iterable[str] = (),
    ) -> None:
        self._exact: dict[tuple[str, str], Mailbox] = {}
        self._domains: dict[str, Mailbox | str] = {}
        self._all: Mailbox | None = None
        for key, target in (senders or {}).items():
            self._add(key.strip(), target.strip())
        self._masquerade = frozenset(_domain(each) for each in masquerade)
        self._admin = ForwardPath(Mailbox.parse(admin)) if admin else None
        self._local = _LOCAL | {_domain(each) for each in (name, *local_domains)}
        self._check()

    def _add(self, key: str, target: str) -> None:
        if key.startswith("@"):
            at = target.startswith("@")
            self._domains[_domain(key[1:])] = (
                domain_name(target[1:]) if at else Mailbox.parse(target)
            )
        elif key == "*":
            self._all = Mailbox.parse(target)
        else:
            self._exact[_key(Mailbox.parse(key))] = Mailbox.parse(target)

    def _check(self) -> None:
        """What a rule arrives at, no other rule may lead away from."""
        boxes = [
            *self._exact.values(),
            *(t for t in self._domains.values() if isinstance(t, Mailbox)),
        ]
        boxes += [self._all] if self._all is not None else []
        self._final = frozenset(_key(box) for box in boxes)
        for key, box in self._exact.items():
            if key in self._final and key != _key(box):
                raise _undone(str(Mailbox(*key)))
        kept = {_domain(t) for t in self._domains.values() if isinstance(t, str)}
        self._final_domains = kept | self._masquerade
        for domain in self._final_domains:
            target = self._domains.get(domain, domain)
            stays = isinstance(target, str) and _domain(target) == domain
            if not stays or self._parent(domain) is not None:
                raise _undone("@" + domain)

    # -- senders --------------------------------------------------------------

    def sender(self, sender: ReversePath) -> ReversePath:
        """Who sends instead."""
        box = sender.mailbox
        if box is None or _key(box) in self._final:
            return sender
        found = self._exact.get(_key(box))
        if found is None:
            moved = self._by_domain(box)
            found = self._exact.get(_key(moved), moved)
        return sender if found == box else ReversePath(found)

    def _by_domain(self, box: Mailbox) -> Mailbox:
        domain = box.ascii_domain.lower()
        target = self._domains.get(domain)
        if target is None and not box.domain.startswith("["):
            target = self._parent(domain)
        if isinstance(target, Mailbox):
            return target
        if target is not None:
            return box if _domain(target) == domain else Mailbox(box.local_part, target)
        return self._all if self._all is not None and domain not in self._final_domains else box

    def _parent(self, domain: str) -> str | None:
        """The masqueraded domain it is below of."""
        if domain in self._masquerade:
            return None
        above = [each for each in self._masquerade if domain.endswith("." + each)]
        return max(above, key=len, default=None)

    # -- the header -----------------------------------------------------------

    def header(self, header: Header, before: ReversePath, after: ReversePath) -> Header:
        """*header*, for a message whose sender was changed."""
        if before.mailbox is None or after.mailbox is None or before == after:
            return header
        if len(header.values("from")) != 1:
            return header
        return Header(
            _renamed(field, before.mailbox, after.mailbox) if field.name == "from" else field
            for field in header.fields
        )

    # -- recipients -----------------------------------------------------------

    def is_local(self, path: ForwardPath) -> bool:
        """Is this one of this machine's?"""
        box = path.mailbox
        if box is None:
            return True
        domain = box.ascii_domain.lower()
        return domain in self._local or ("." not in domain and not domain.startswith("["))

    def recipients(self, recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
        """Who receives instead; one who is named twice then, gets it once."""
        if self._admin is None or not any(self.is_local(each.path) for each in recipients):
            return tuple(recipients)
        made: dict[tuple[str, str], Recipient] = {}
        for each in recipients:
            new = self._to_admin(each) if self.is_local(each.path) else each
            box = new.path.mailbox
            key = ("", "") if box is None else _key(box)
            made[key] = _merged(made[key], new) if key in made else new
        return tuple(made.values())

    def _to_admin(self, recipient: Recipient) -> Recipient:
        admin = self._admin
        if admin is None or recipient.path == admin:
            return recipient
        orcpt = recipient.orcpt
        if orcpt is None:
            text = str(recipient.path)
            orcpt = f"{'rfc822' if text.isascii() else 'utf-8'};{text}"
        return Recipient(admin, recipient.notify, orcpt if len(orcpt) <= MAX_ORCPT else None)

    # -- both -----------------------------------------------------------------

    def envelope(self, envelope: Envelope) -> Envelope:
        """Who sends and who receives instead."""
        sender, recipients = self.sender(envelope.sender), self.recipients(envelope.recipients)
        if sender == envelope.sender and recipients == envelope.recipients:
            return envelope
        return Envelope(
            sender,
            recipients,
            ret=envelope.ret,
            envid=envelope.envid,
            require_tls=envelope.require_tls,
        )


def _domain(text: str) -> str:
    """To compare by."""
    return domain_name(text).lower()


def _key(box: Mailbox) -> tuple[str, str]:
    """Local parts are their host's, domains have no case (RFC 5321 section 2.4)."""
    return box.local_part, box.ascii_domain.lower()


def _undone(what: str) -> InvalidInput:
    return InvalidInput(
        f"the sender '{printable(what, 100)}' cannot be rewritten",
        detail="another rule leads there, and this one away from it",
        remedy="let the rules lead to the last address at once",
    )


def _merged(one: Recipient, other: Recipient) -> Recipient:
    """The wishes of two who became one: nobody goes without a report he asked for."""
    wishes = [one.notify, other.notify]
    notify = frozenset[str]().union(*wishes)
    if frozenset() in wishes:
        notify = frozenset()
    elif notify != {"NEVER"}:
        notify -= {"NEVER"}
    return Recipient(one.path, notify, one.orcpt or other.orcpt)


def _renamed(field: Field, before: Mailbox, after: Mailbox) -> Field:
    """A From field that names *before* alone, naming *after*; any other as it is."""
    text = field.octets.decode("utf-8", "surrogateescape")
    local, _, domain = str(before).rpartition("@")
    domains = "|".join(re.escape(each) for each in {domain, before.ascii_domain})
    address = rf"{re.escape(local)}(?:@(?i:{domains}))?"
    match = re.match(
        rf"[^:]*:(?:{_PHRASE}<{_BLANK}({address}){_BLANK}>|{_BLANK}({address})){_COMMENT}\Z", text
    )
    if match is None:
        return field
    begin, end = match.span(1 if match[1] is not None else 2)
    text = text[:begin] + after.wire + text[end:]
    return Field("from", text.encode("utf-8", "surrogateescape"))
