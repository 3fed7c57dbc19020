"""Rewriting of addresses, for hosts that only send mail.

Mail of the host's users is sent from an address that accepts replies, and mail for its users goes to
one address that is read. Rewriting twice gives the same result as rewriting once.

*Senders*: an exact address comes first, then ``@domain``, then a masqueraded domain, then ``*``. The
result of a domain rule is looked up once more as an exact address. The null reverse-path stays.

*The header* keeps what its author wrote, with these exceptions. When a rule changed the sender, and
``From`` names exactly that sender and nobody else (or only the local part), the address there
becomes the new one; if asked for, it always does. Its name, comments and folding stay. In mail of this
machine, an address without a domain gets one (``qualification``).

*Recipients*: local recipients are replaced by the one address, if there is one. The original is kept
as ORCPT, for reports (RFC 3461 section 4.2; RFC 6533 section 3 beyond ASCII).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from twisted_sendmail.message.addresses import AddressSpec, address_specs
from twisted_sendmail.message.header import LONG_HEADER, Field, Header
from twisted_sendmail.message.qualification import is_local_part
from twisted_sendmail.smtp import (
    MAX_ORCPT,
    Envelope,
    ForwardPath,
    InvalidAddress,
    InvalidInput,
    Mailbox,
    Recipient,
    ReversePath,
    domain_name,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LOCAL = frozenset({"localhost", "localhost.localdomain"})


class Rewriting:
    """The rules of one relay.

    :param senders: the new sender for each: ``user@domain`` or ``*`` to an address, ``@domain`` to an
        address or to another ``@domain``.
    :param masquerade: domains that replace their subdomains: a sender at ``host.example.org``
        becomes one at ``example.org``.
    :param admin: the address that replaces local recipients; None: they stay.
    :param name: the name of this host, which is local.
    :param local_domains: further local domains; ``localhost`` and every domain without a dot are
        local.
    :param set_from: ``From`` always becomes the sender.
    :raises InvalidInput: a rule cannot be parsed, or another rule would undo it.
    """

    def __init__(
        self,
        *,
        senders: Mapping[str, str] | None = None,
        masquerade: Iterable[str] = (),
        admin: str | None = None,
        name: str = "localhost",
        local_domains: Iterable[str] = (),
        set_from: bool = False,
    ) -> None:
        self._exact: dict[tuple[str, str], Mailbox] = {}
        self._domains: dict[str, Mailbox | str] = {}
        self._all: Mailbox | None = None
        for key, target in (senders or {}).items():
            self._add(key.strip(), target.strip())
        self._masquerade = frozenset(_domain(each) for each in masquerade)
        #: ``From`` always becomes the sender.
        self.sets_from = set_from
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
            self._exact[Mailbox.parse(key).key] = Mailbox.parse(target)

    def _check(self) -> None:
        """Check that no rule changes the result of another rule."""
        boxes = [
            *self._exact.values(),
            *(t for t in self._domains.values() if isinstance(t, Mailbox)),
        ]
        boxes += [self._all] if self._all is not None else []
        self._final = frozenset(box.key for box in boxes)
        for key, box in self._exact.items():
            if key in self._final and key != box.key:
                raise _contradiction(str(Mailbox(*key)))
        kept = {_domain(t) for t in self._domains.values() if isinstance(t, str)}
        self._final_domains = kept | self._masquerade
        for domain in self._final_domains:
            target = self._domains.get(domain, domain)
            stays = isinstance(target, str) and _domain(target) == domain
            if not stays or self._parent(domain) is not None:
                raise _contradiction("@" + domain)

    # -- senders --------------------------------------------------------------

    def sender(self, sender: ReversePath) -> ReversePath:
        """Return the sender that replaces *sender*."""
        box = sender.mailbox
        if box is None or box.key in self._final:
            return sender
        found = self._exact.get(box.key)
        if found is None:
            moved = self._by_domain(box)
            found = self._exact.get(moved.key, moved)
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
        """Return the masqueraded domain of which *domain* is a subdomain."""
        if domain in self._masquerade:
            return None
        above = [each for each in self._masquerade if domain.endswith("." + each)]
        return max(above, key=len, default=None)

    # -- the header -----------------------------------------------------------

    def header(self, header: Header, before: ReversePath, after: ReversePath) -> Header:
        """Return *header* for a message whose sender is *after*, and was *before*.

        Unchanged if it is longer than :data:`LONG_HEADER`.
        """
        if after.mailbox is None or len(bytes(header)) > LONG_HEADER:
            return header
        if self.sets_from:
            return _with_from(header, after.mailbox)
        if before.mailbox is None or before == after or len(header.values("from")) != 1:
            return header
        return Header(
            _renamed(field, before.mailbox, after.mailbox) if field.name == "from" else field
            for field in header.fields
        )

    # -- recipients -----------------------------------------------------------

    def is_local(self, path: ForwardPath) -> bool:
        """Return True for a recipient on this host."""
        box = path.mailbox
        if box is None:
            return True
        domain = box.ascii_domain.lower()
        return domain in self._local or ("." not in domain and not domain.startswith("["))

    def recipients(self, recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
        """Return the recipients that replace *recipients*, each once."""
        if self._admin is None or not any(self.is_local(each.path) for each in recipients):
            return tuple(recipients)
        made: dict[tuple[str, str], Recipient] = {}
        for each in recipients:
            new = self._to_admin(each) if self.is_local(each.path) else each
            box = new.path.mailbox
            key = ("", "") if box is None else box.key
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
        """Return *envelope* with rewritten addresses."""
        sender, recipients = self.sender(envelope.sender), self.recipients(envelope.recipients)
        if sender == envelope.sender and recipients == envelope.recipients:
            return envelope
        return attrs.evolve(envelope, sender=sender, recipients=recipients)


def _domain(text: str) -> str:
    """Return the domain in the form for comparisons."""
    return domain_name(text).lower()


def _contradiction(sender: str) -> InvalidInput:
    return InvalidInput(
        f"the sender '{printable(sender, 100)}' cannot be rewritten",
        detail="another rule leads there, and this one away from it",
        remedy="let the rules lead to the last address at once",
    )


def _merged(one: Recipient, other: Recipient) -> Recipient:
    """Return one recipient for two: every report that was asked for is sent."""
    notify = one.notify | other.notify
    if not (one.notify and other.notify):
        notify = frozenset()
    elif notify != {"NEVER"}:
        notify -= {"NEVER"}
    return Recipient(one.path, notify, one.orcpt or other.orcpt)


# -- fields -----------------------------------------------------------------------------------


def _is(text: str, box: Mailbox) -> bool:
    """Return True if *text* is the address *box*, or its local part."""
    if "@" not in text:
        return text == str(box).rpartition("@")[0]
    try:
        return Mailbox.parse(text).key == box.key
    except InvalidAddress:
        return False


def _renamed(field: Field, before: Mailbox, after: Mailbox) -> Field:
    """Return a From field that names only *before* with *after*; any other field unchanged."""
    value = field.folded_value
    try:
        specs = address_specs(field.name, value)
    except InvalidAddress:
        return field
    if len(specs) != 1 or specs[0].in_group or not _is(specs[0].text, before):
        return field
    return field.with_folded_value(_replaced(value, specs[0], after.wire))


def _replaced(value: str, spec: AddressSpec, text: str) -> str:
    return value[: spec.begin] + text + value[spec.begin + len(spec.text) :]


def _with_from(header: Header, sender: Mailbox) -> Header:
    """Return *header* with one From field, if it has any, that names *sender* and keeps the name."""
    fields: list[Field] = []
    found = False
    for field in header.fields[: header.broken]:
        if field.name != "from":
            fields.append(field)
        elif not found:
            fields.append(_naming(field, sender))
            found = True
    return Header([*fields, *header.rest])


def _naming(field: Field, sender: Mailbox) -> Field:
    """Return a From field that names only *sender*, with the display name if there is one."""
    value = field.folded_value
    plain = field.with_folded_value(f" {sender.wire}\r\n")
    try:
        specs = address_specs(field.name, value)
    except InvalidAddress:
        return plain
    if len(specs) != 1 or specs[0].in_group or not specs[0].text:
        return plain
    (spec,) = specs
    if _is(spec.text, sender) and "@" in spec.text:
        return field
    words = not (is_local_part(spec.text) or "@" in spec.text) and value[spec.begin - 1] != "<"
    text = f"{spec.text} <{sender.wire}>" if words else sender.wire
    return field.with_folded_value(_replaced(value, spec, text))
