"""Which mechanism: the best that the server offers and the credentials can use.

A mapping of names to factories, best first, is all there is to it; another mechanism
is plugged in by giving a larger mapping.  RFC 4422 section 3.2.

This module does not ask whether there is TLS, and never tries a second mechanism
after a refusal: that would cost two failed logins a wrong password.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TypeAlias

from twisted_sendmail.sasl.credentials import Credentials, ResolvedCredentials
from twisted_sendmail.sasl.login import Login
from twisted_sendmail.sasl.mechanism import Mechanism
from twisted_sendmail.sasl.oauthbearer import OAuthBearer
from twisted_sendmail.sasl.plain import Plain
from twisted_sendmail.sasl.scram import ScramSha1, ScramSha256, ScramSha512
from twisted_sendmail.sasl.xoauth2 import XOAuth2
from twisted_sendmail.smtp import InvalidInput, UnsupportedMechanism

__all__ = ["MECHANISMS", "MechanismFactory", "check_mechanisms", "choose"]

#: Makes a mechanism for one exchange, or raises `InvalidInput` saying why these
#: credentials are no use to it.
MechanismFactory: TypeAlias = Callable[[ResolvedCredentials], Mechanism]

#: What is there without plugging anything in, best first.  A mechanism that does not
#: show the server the password comes before one that does; a standard before a draft.
MECHANISMS: Mapping[str, MechanismFactory] = MappingProxyType(
    {
        "SCRAM-SHA-512": ScramSha512,
        "SCRAM-SHA-256": ScramSha256,
        "SCRAM-SHA-1": ScramSha1,
        "OAUTHBEARER": OAuthBearer,
        "XOAUTH2": XOAuth2,
        "PLAIN": Plain,
        "LOGIN": Login,
    }
)

# Names of a server's list that an error quotes; there are some 40 registered.
_QUOTED = 20


def check_mechanisms(
    credentials: Credentials | ResolvedCredentials,
    mechanisms: Mapping[str, MechanismFactory] = MECHANISMS,
) -> None:
    """Check, before anything is sent, that each mechanism the credentials name is known.

    :raises InvalidInput: one is not; the text has the names that are.
    """
    known = _by_name(mechanisms)
    for name in credentials.mechanisms or ():
        if name not in known:
            raise InvalidInput(
                f"the mechanism {name} is not known; the known ones are {', '.join(known)}"
            )


def choose(
    offered: Collection[str],
    credentials: ResolvedCredentials,
    mechanisms: Mapping[str, MechanismFactory] = MECHANISMS,
) -> Mechanism:
    """Return a new mechanism, the first in order that is offered and fits the credentials.

    :param offered: the names behind AUTH in the EHLO reply, in any case.
    :param credentials: their ``mechanisms``, where given, are the order and the limit.
    :param mechanisms: what is known, best first.
    :raises UnsupportedMechanism: there is none; the text has both sides' names.
    :raises InvalidInput: the credentials name a mechanism that is not known.
    """
    check_mechanisms(credentials, mechanisms)
    known = _by_name(mechanisms)
    on_offer = {name.upper() for name in offered}
    unfit: list[str] = []
    for name in credentials.mechanisms or known:
        if name not in on_offer:
            continue
        try:
            mechanism = known[name](credentials)
        except InvalidInput as error:
            unfit.append(error.what)
            continue
        if mechanism.name != name:
            raise InvalidInput(f"the mechanism under the name {name} calls itself {mechanism.name}")
        return mechanism

    if not on_offer:
        detail, remedy = (
            "it has no AUTH in its EHLO reply",
            "check host and port, and that TLS is on",
        )
    else:
        theirs = ", ".join(sorted(on_offer)[:_QUOTED]) + (", …" if len(on_offer) > _QUOTED else "")
        ours = ", ".join(credentials.mechanisms or known)
        detail = f"it offers {theirs}; " + ("; ".join(unfit) or f"we may use {ours}")
        remedy = ""
    raise UnsupportedMechanism(
        f"the server has no mechanism to authenticate {credentials.username!r} with",
        detail=detail,
        remedy=remedy,
        phase="AUTH",
    )


def _by_name(mechanisms: Mapping[str, MechanismFactory]) -> Mapping[str, MechanismFactory]:
    if mechanisms is MECHANISMS:
        return mechanisms
    return {name.upper(): factory for name, factory in mechanisms.items()}
