"""A user name with its password or bearer token; the secret is never shown.

``Credentials`` are what a caller gives; the secret may be a callable that returns it.
``ResolvedCredentials`` hold the secret itself, for one connection; mechanisms are made of them.
A ``TokenSource`` gives bearer tokens that expire, and another one for a token that was refused.
A ``Secret`` does not appear in a repr, a log line, a traceback with local variables or a pickle.
These are no attrs classes, because the generated ``__init__`` would have the secret among its
local variables when a validator raises.

RFC 4422 sections 2 and 3.4 (identities), RFC 6750 section 2.1 (the characters of a token).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeAlias

from attrs import field, frozen

from twisted_sendmail.smtp import (
    MECHANISM_NAME,
    InvalidInput,
    SendmailError,
    TemporaryAuthenticationFailure,
    check_each,
    check_type,
    quoted_forms,
)

#: Returns the secret, or an awaitable of it; called once a connection.
Provider: TypeAlias = Callable[[], "str | Awaitable[str]"]

_HIDDEN = "<hidden>"

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# RFC 6750 allows fewer; these are what fits between the separators of RFC 7628.
_TOKEN = re.compile("[\x21-\x7e]+")


class CredentialsUnavailable(TemporaryAuthenticationFailure):
    """The provider of a password or token failed; nothing was sent to the server."""

    _before_host = "for"

    remedy = "what it raised is the cause of this error"


class Secret:
    """A text that only ``reveal`` shows.

    It may be copied (the copy is itself) but not pickled.
    """

    __slots__ = ("__forms", "__text")

    def __init__(self, text: str) -> None:
        self.__text = text
        self.__forms: list[bytes] | None = None

    def reveal(self) -> str:
        """Return the secret; do not bind it to a name where an error may be raised."""
        return self.__text

    def forms(self) -> list[bytes]:
        """Return the forms in which a server may quote the secret; made once for all connections."""
        if self.__forms is None:
            self.__forms = quoted_forms(self.__text.encode("utf-8", "replace"))
        return self.__forms

    def __repr__(self) -> str:
        return f"Secret({_HIDDEN})"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is never pickled; pickle where it is found instead")


def _secret(value: str | Secret) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, str):
        return Secret(value)
    raise InvalidInput(f"the token is a {type(value).__name__}; give a str")


@frozen(eq=False)
class Token:
    """A bearer token (RFC 6750).

    :param value: the token; the attribute is a ``Secret``.
    :param expires_at: the time on the clock of its source, in seconds; None: it is not known.
    :raises InvalidInput: the value is no text, or the time no number.
    """

    value: Secret = field(converter=_secret)
    expires_at: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.expires_at is not None:
            check_type("expires_at", self.expires_at, (int, float), "seconds, or None")


class TokenSource(ABC):
    """A source of bearer tokens, for ``Credentials(user, token=source)``."""

    @abstractmethod
    def get(self, *, force_refresh: bool = False) -> Awaitable[Token]:
        """Return a Deferred, or another awaitable, of a token that can be used now.

        :param force_refresh: the server refused the token that this source gives without it.
            At most one such call follows from one connection.
        :raises AuthenticationError: there is no token; one that is not ``temporary`` means that a
            person has to log in again.

        Called in the reactor's thread: it must not block.
        """


class _Hidden:
    """A provider whose repr does not show what was bound to it (``functools.partial``)."""

    __slots__ = ("__provider", "_name")

    def __init__(self, name: str, provider: Provider | TokenSource) -> None:
        self._name = name
        self.__provider = provider

    def __repr__(self) -> str:
        return f"<the {self._name}>"

    @property
    def renews(self) -> bool:
        return isinstance(self.__provider, TokenSource)

    async def ask(self, *, force_refresh: bool = False) -> Secret:
        try:
            # Not bound to a local name: a traceback shows what was bound to the provider.
            answer: object
            if isinstance(self.__provider, TokenSource):
                answer = self.__provider.get(force_refresh=force_refresh)
            else:
                answer = self.__provider()
            if isinstance(answer, Awaitable):
                answer = await answer
        except SendmailError:
            raise
        except Exception as error:
            # Twisted's CancelledError is an Exception; this package does not import Twisted.
            if type(error).__name__ == "CancelledError":
                raise
            # Without its text, which may quote the secret.
            raise CredentialsUnavailable(
                f"the {self._name} failed", detail=type(error).__name__, phase="AUTH"
            ) from error
        if isinstance(answer, Token) and self.renews:
            return answer.value
        if isinstance(answer, str) and not self.renews:
            return Secret(answer)
        kind = type(answer).__name__
        del answer
        raise InvalidInput(
            f"the {self._name} returned {kind}, not {'Token' if self.renews else 'str'}"
        )


@frozen
class ChannelBinding:
    """Data that both ends of one TLS connection have, and nobody between them (RFC 5056)."""

    #: The name of the type, as registered with IANA, such as ``tls-exporter``.
    kind: str
    data: bytes = field(repr=False)


@frozen(eq=False, repr=False)
class ResolvedCredentials:
    """Credentials with the secret itself, for one connection, and what its TLS gives to mechanisms.

    At most one of ``password`` and ``token`` is given; neither is when the proof is elsewhere
    (EXTERNAL: in the certificate of the TLS client).
    """

    #: The authentication identity: the owner of the password or token.
    username: str
    password: Secret | None = None
    #: A bearer token (RFC 6750).
    token: Secret | None = None
    #: The authorization identity: the user to act as; empty for the same user.
    authzid: str = ""
    #: The only mechanisms to use, best first, in upper case; None for all.
    mechanisms: tuple[str, ...] | None = None
    #: The channel binding of the connection; None without TLS.
    channel_binding: ChannelBinding | None = None
    #: The server offers no mechanism with channel binding, though one would be used.
    binding_not_offered: bool = False
    #: The client has a certificate of its own in TLS.
    certificate: bool = False

    def __repr__(self) -> str:
        return f"ResolvedCredentials({self.username!r})"


class Credentials:
    """A user name with its password, or with a bearer token.

    :param username: the authentication identity; not empty, no control characters.
    :param password: the password, or a callable without arguments that returns it or an awaitable
        of it (a coroutine, a ``Deferred``).  The callable is called once for each connection, in
        the reactor's thread: it must not block.
    :param token: a bearer token for OAUTHBEARER or XOAUTH2, given in the same ways, or a
        ``TokenSource``, which is asked once more if the server refuses its token.  Exactly one
        of password and token is given; neither only if *mechanisms* names mechanisms that need
        none, such as EXTERNAL.
    :param authzid: the authorization identity (RFC 4422 section 2): the user to act as.
    :param mechanisms: the only mechanisms to use, best first, in any case; None leaves the choice
        to `twisted_sendmail.sasl.negotiation`.
    :raises InvalidInput: an argument cannot be used; the text names the argument and does not
        hold the secret.

    Immutable.  Credentials are equal only to themselves.
    """

    __slots__ = ("_authzid", "_given", "_kind", "_mechanisms", "_username")

    def __init__(
        self,
        username: str,
        password: str | Provider | None = None,
        *,
        token: str | Provider | TokenSource | None = None,
        authzid: str = "",
        mechanisms: Sequence[str] | None = None,
    ) -> None:
        self._kind = "password" if token is None else "token"
        both = password is not None and token is not None
        given = _keep(self._kind, username, password if token is None else token)
        # After this an error may be raised, and a traceback may show local variables.
        del password, token

        self._username = username
        self._authzid = authzid
        _check_name("user name", username)
        _check_name("authorization identity", authzid)
        self._mechanisms = _mechanism_names(mechanisms)
        if both:
            raise InvalidInput(
                f"credentials of {username!r} have both a password and a token; give one of them"
            )
        if given is None and self._mechanisms is None:
            raise InvalidInput(
                f"credentials of {username!r} have no password and no token",
                remedy="give one of them",
            )
        if given is not None and not username:
            raise InvalidInput(f"the {self._kind} is given without a user name")
        if isinstance(given, type):
            raise InvalidInput(
                f"the {self._kind} of {username!r} is a {given.__name__};"
                " it must be a str or a callable that returns one"
            )
        if isinstance(given, Secret):
            self._check(given)
        self._given = given

    @property
    def username(self) -> str:
        """The authentication identity."""
        return self._username

    @property
    def authzid(self) -> str:
        """The authorization identity; empty for the same user."""
        return self._authzid

    @property
    def mechanisms(self) -> tuple[str, ...] | None:
        """The only mechanisms to use, best first, in upper case; None for all."""
        return self._mechanisms

    async def resolve(
        self, channel_binding: ChannelBinding | None = None, *, certificate: bool = False
    ) -> ResolvedCredentials:
        """Return the credentials with the secret itself; a provider is called each time.

        :param channel_binding: as of :class:`ResolvedCredentials`, like *certificate*.
        :raises CredentialsUnavailable: the provider failed; its exception is the ``__cause__``.
            A `SendmailError` of the provider passes unchanged.
        :raises InvalidInput: the provider returned something that cannot be used.

        Cancelling the provider's awaitable cancels this.
        """
        secret = self._given
        if isinstance(secret, _Hidden):
            secret = await secret.ask()
            self._check(secret)
        is_token = self._kind == "token"
        return ResolvedCredentials(
            self._username,
            None if is_token else secret,
            secret if is_token else None,
            self._authzid,
            self._mechanisms,
            channel_binding,
            certificate=certificate,
        )

    async def renew(self, refused: Secret) -> Secret | None:
        """Return another token than *refused*; call it once a connection.

        The source is asked to refresh the token only if it still gives the refused one: another
        connection may have refreshed it.

        :returns: None if there is no ``TokenSource``, or it gives the same token again.
        :raises SendmailError: as ``resolve`` does.
        """
        source = self._given
        if not isinstance(source, _Hidden) or not source.renews:
            return None
        for force_refresh in (False, True):
            secret = await source.ask(force_refresh=force_refresh)
            self._check(secret)
            if secret.reveal() != refused.reveal():
                return secret
        return None

    def _check(self, secret: Secret) -> None:
        flaw = _flaw(secret.reveal(), is_token=self._kind == "token")
        if flaw:
            raise InvalidInput(f"the {self._kind} of {self._username!r} {flaw}")

    def __repr__(self) -> str:
        return f"Credentials({self._username!r})"

    def __copy__(self) -> Credentials:
        return self

    def __deepcopy__(self, memo: object) -> Credentials:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("credentials are never pickled; pickle where they are found instead")


def _keep(kind: str, username: object, given: object) -> Secret | _Hidden | type[object] | None:
    """Wrap the secret before anything can be raised; return the type of any other object."""
    if given is None:
        return None
    if isinstance(given, str):
        return Secret(given)
    if callable(given) or (kind == "token" and isinstance(given, TokenSource)):
        return _Hidden(f"{kind} provider of {username!r}", given)
    return type(given)


def _flaw(text: str, *, is_token: bool) -> str:
    """Describe what is wrong with a secret, without quoting it; raises nothing."""
    if not text:
        return "is empty"
    if is_token and _TOKEN.fullmatch(text.rstrip("\r\n")) is None:
        return "has characters that no bearer token has (RFC 6750)"
    if "\r" in text or "\n" in text:
        inside = set(text.rstrip("\r\n")) & {"\r", "\n"}
        return "has a line break in it" if inside else "ends with a line break; strip it"
    if "\0" in text:
        return "has a NUL in it"
    if _SURROGATE.search(text):
        return "is not Unicode: it was probably read as something other than UTF-8"
    return ""


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str):
        raise InvalidInput(f"the {what} is a {type(name).__name__}; it must be a str")
    if _CONTROL.search(name):
        raise InvalidInput(f"the {what} {name!r} has a control character in it")
    if _SURROGATE.search(name):
        raise InvalidInput(f"the {what} {name!r} is not Unicode")


def _mechanism_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    check_each("mechanisms", names, str, "a list of names, such as ['PLAIN']")
    upper = tuple(dict.fromkeys(name.upper() for name in names))
    if not upper:
        raise InvalidInput("mechanisms is an empty list; leave it out to allow all")
    for name in upper:
        if MECHANISM_NAME.match(name) is None:
            raise InvalidInput(
                f"{name!r} is no name of a SASL mechanism; it has 1 to 20 of A-Z, 0-9, - and _"
            )
    return upper
