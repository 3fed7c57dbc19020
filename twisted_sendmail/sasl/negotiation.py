"""The choice of a mechanism: the best one that the server offers and the credentials can use.

A mapping of names to factories, best first, decides; an application adds a mechanism by giving a
larger mapping.  A mechanism that the server refused as such is left out when the next one is chosen;
which refusals those are, ``client/auth`` decides.  RFC 4422 section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from attrs import evolve

from twisted_sendmail.sasl.credentials import Credentials, ResolvedCredentials
from twisted_sendmail.sasl.external import External
from twisted_sendmail.sasl.mechanism import Mechanism
from twisted_sendmail.sasl.oauth import OAuthBearer, XOAuth2
from twisted_sendmail.sasl.password import CramMd5, Login, Plain
from twisted_sendmail.sasl.scram import (
    PLUS,
    ScramSha1,
    ScramSha1Plus,
    ScramSha256,
    ScramSha256Plus,
    ScramSha512,
    ScramSha512Plus,
)
from twisted_sendmail.smtp import InvalidInput, UnsupportedMechanism

#: Makes a mechanism for one exchange, or raises `InvalidInput` when the credentials do not fit.
MechanismFactory: TypeAlias = Callable[[ResolvedCredentials], Mechanism]

#: The mechanisms of this package, best first: those bound to the TLS connection, then those that do
#: not transmit the password, then the others; standards before drafts.  The last two are used only
#: if the credentials name them.
MECHANISMS: Mapping[str, MechanismFactory] = MappingProxyType(
    {
        "SCRAM-SHA-512-PLUS": ScramSha512Plus,
        "SCRAM-SHA-256-PLUS": ScramSha256Plus,
        "SCRAM-SHA-1-PLUS": ScramSha1Plus,
        "SCRAM-SHA-512": ScramSha512,
        "SCRAM-SHA-256": ScramSha256,
        "SCRAM-SHA-1": ScramSha1,
        "OAUTHBEARER": OAuthBearer,
        "XOAUTH2": XOAuth2,
        "PLAIN": Plain,
        "LOGIN": Login,
        "EXTERNAL": External,
        "CRAM-MD5": CramMd5,
    }
)

# Names of a server's list that an error quotes; about 40 are registered.
_QUOTED_NAMES = 20


def check_mechanisms(
    credentials: Credentials | ResolvedCredentials,
    mechanisms: Mapping[str, MechanismFactory] = MECHANISMS,
) -> Mapping[str, MechanismFactory]:
    """Check that each mechanism the credentials name is known; return the known ones.

    :raises InvalidInput: one is not known; the text lists those that are.
    """
    known = mechanisms
    if known is not MECHANISMS:
        known = {name.upper(): factory for name, factory in mechanisms.items()}
    for name in credentials.mechanisms or ():
        if name not in known:
            raise InvalidInput(
                f"the mechanism {name} is not known; the known ones are {', '.join(known)}"
            )
    return known


def certificate_only(mechanisms: Collection[str] | None) -> bool:
    """Return whether these mechanisms log in by the certificate of the client, without a secret."""
    return bool(mechanisms) and all(name.upper() == External.name for name in mechanisms or ())


def certificate_credentials(
    user: str | None,
    mechanisms: Sequence[str],
    *,
    has_secret: bool,
    certificate: object,
    setting: str = "client-certificate",
) -> Credentials:
    """Return the credentials of a login by the client's certificate alone, for settings of a person.

    :param user: the one to act as; None: the owner of the certificate.
    :param has_secret: the settings have a password or a token too.
    :param certificate: None if the settings have none.
    :param setting: the name of the setting for the certificate.
    :raises InvalidInput: the settings have a secret, or no certificate.
    """
    if has_secret:
        raise InvalidInput("EXTERNAL uses no password and no token", remedy="leave them out")
    if certificate is None:
        raise InvalidInput("EXTERNAL needs a certificate", remedy=f"give {setting}")
    return Credentials(user or "", mechanisms=mechanisms)


def choose(
    offered: Collection[str],
    credentials: ResolvedCredentials,
    mechanisms: Mapping[str, MechanismFactory] = MECHANISMS,
) -> Mechanism:
    """Return a new mechanism, the first in order that is offered and fits the credentials.

    :param offered: the names after AUTH in the EHLO reply, in any case.
    :param credentials: their ``mechanisms``, where given, are the order and the limit.
    :param mechanisms: the known ones, best first.
    :raises UnsupportedMechanism: there is none; the text has both sides' names.
    :raises InvalidInput: the credentials name a mechanism that is not known.
    """
    known = check_mechanisms(credentials, mechanisms)
    offers = {name.upper() for name in offered}
    allowed = credentials.mechanisms or known
    unbound = any(n.endswith(PLUS) for n in allowed) and not any(n.endswith(PLUS) for n in offers)
    unfit: list[str] = []
    for name in allowed:
        if name not in offers:
            continue
        given = credentials
        if unbound and name + PLUS in known:
            given = evolve(credentials, binding_not_offered=True)
        try:
            mechanism = known[name](given)
        except InvalidInput as error:
            unfit.append(error.what)
            continue
        if mechanism.name != name:
            raise InvalidInput(f"the mechanism under the name {name} has the name {mechanism.name}")
        return mechanism

    detail, remedy = "it has no AUTH in its EHLO reply", "check host and port, and that TLS is on"
    if offers:
        more = ", …" if len(offers) > _QUOTED_NAMES else ""
        ours = ", ".join(allowed)
        detail = f"it offers {', '.join(sorted(offers)[:_QUOTED_NAMES])}{more}; "
        detail += "; ".join(unfit) or f"we may use {ours}"
        remedy = ""
    raise UnsupportedMechanism(
        f"the server has no mechanism to authenticate {credentials.username!r} with",
        detail=detail,
        remedy=remedy,
        phase="AUTH",
    )
