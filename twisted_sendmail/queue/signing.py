"""``DKIMDomain``: a domain whose mail the relay signs, with its keys and its users.

The domain is that of the addresses in ``From``, so a signature tells readers that the domain lets this
sender use them. Therefore only mail is signed whose sender is known: a user of this machine, an account,
or the relay itself. Cleanup decides it when a message comes in, and delivery signs the octets that go
out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.message import DKIMKey, DKIMSigner, Header, from_domain, is_signed_by
from twisted_sendmail.smtp import InvalidInput, check_type, domain_name, printable

if TYPE_CHECKING:
    from twisted_sendmail.message import KeyProvider


def _domain(given: Any) -> str:
    check_type("a DKIM domain", given, str, "a domain name, such as example.org")
    return domain_name(given).lower()


def _keys(given: Any) -> tuple[DKIMKey | KeyProvider, ...]:
    return (given,) if isinstance(given, DKIMKey) else tuple(given)


def _set_or_all(given: Iterable[Any] | None) -> frozenset[Any] | None:
    return None if given is None else frozenset(given)


@attrs.frozen
class MailOrigin:
    """The sender of a message that comes in, as far as it is known to the relay."""

    #: A user of this machine; None: there is none, or it is not known.
    uid: int | None = None
    #: The account of the client that has signed in.
    account: str | None = None
    #: A program of this machine.
    local: bool = False
    #: The relay itself, or the application that it is part of.
    own: bool = False


@attrs.frozen
class DKIMDomain:
    """A domain whose mail a relay signs.

    :param domain: the domain of the addresses in ``From``; names below it are other domains.
    :param keys: a key, or several, which all sign; or functions that return one or None, and are called
        for each message, in a thread.
    :param users: numbers of the users of this machine whose mail is signed; None: all, and all programs
        of this machine whose user is not known.
    :param accounts: accounts whose mail is signed; None: all.
    :raises InvalidInput: a value cannot be used.
    """

    domain: str = attrs.field(converter=_domain)
    keys: tuple[DKIMKey | KeyProvider, ...] = attrs.field(converter=_keys)
    users: frozenset[int] | None = attrs.field(default=frozenset(), converter=_set_or_all)
    accounts: frozenset[str] | None = attrs.field(default=frozenset(), converter=_set_or_all)
    #: Signs with the keys.
    signer: DKIMSigner = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for key in self.keys:
            if isinstance(key, DKIMKey) and key.domain != self.domain:
                shown = printable(self.domain, 100)
                raise InvalidInput(
                    f"a DKIM key of {key.domain} cannot sign mail of {shown}",
                    remedy="give a key of the same domain",
                )
        object.__setattr__(self, "signer", DKIMSigner(self.keys))

    def may_be_used_by(self, origin: MailOrigin) -> bool:
        """Return True if mail from *origin* may have addresses of the domain in ``From``."""
        if origin.own:
            return True
        if origin.account is not None and (
            self.accounts is None or origin.account in self.accounts
        ):
            return True
        if self.users is None:
            return origin.local or origin.uid is not None
        return origin.uid in self.users


def signing_domain(
    domains: Iterable[DKIMDomain], header: Header, origin: MailOrigin
) -> DKIMDomain | None:
    """Return the domain to sign a message for; None: it is not signed.

    :param header: as it is queued.
    """
    found = from_domain(header)
    for each in domains:
        if each.domain == found:
            signs = each.may_be_used_by(origin) and not is_signed_by(header, found)
            return each if signs else None
    return None
