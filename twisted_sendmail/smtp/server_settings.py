"""Settings of a server session: offers, requirements and limits; the deadlines are in ``server/timeouts``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from twisted_sendmail.smtp.arguments import check_each, check_flag, check_type
from twisted_sendmail.smtp.errors import InvalidInput
from twisted_sendmail.smtp.extensions import DERIVED_EXTENSIONS, Extension, ExtensionTable
from twisted_sendmail.smtp.limits import MAX_FIELDS, MAX_HOPS

#: The extensions of this package that concern only the server.  REQUIRETLS is a promise about the
#: next hop too: add it where the promise can be kept.
EXTENSIONS = (
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
)

_LIMITS = (
    "max_size", "max_header", "max_fields", "max_hops", "max_recipients", "max_messages",
    "max_chunks", "max_errors", "max_auth_failures", "max_refusals", "max_idle_commands",
)  # fmt: skip


@dataclass(frozen=True)
class ServerSettings:
    """The offer and the limits of one server.

    ``starttls``, ``require_tls``, ``mechanisms``, ``require_auth`` and ``clear_auth`` follow from
    the certificate and the accounts of the server (:meth:`resolved`) where they are None, however
    many other fields are given.
    """

    #: The name in greeting and EHLO reply.
    host: str = "localhost"
    #: LMTP (RFC 2033) instead of SMTP: LHLO, and one reply to the content for each recipient.
    lmtp: bool = False
    #: No MAIL before EHLO or HELO (503).  If False, clients that send neither are served without
    #: extensions.
    require_hello: bool = True
    #: EHLO keywords, or :class:`~twisted_sendmail.smtp.extensions.Extension`\s of an application;
    #: STARTTLS, SIZE, AUTH and LIMITS follow from other fields.
    extensions: tuple[str | Extension, ...] = EXTENSIONS
    #: Offer STARTTLS in clear text.  None: if the server has a certificate.
    starttls: bool | None = None
    #: No MAIL in clear text (530).  None: if the server has a certificate.
    require_tls: bool | None = None
    #: SASL mechanisms, in the order of the EHLO reply.  None: those of the server's accounts.
    mechanisms: tuple[str, ...] | None = None
    #: No MAIL without AUTH (530).  None: if the server has accounts.
    require_auth: bool | None = None
    #: Offer and accept AUTH in clear text: passwords can then be read on the way.  None: no.
    clear_auth: bool | None = None
    #: Octets of a message, offered by SIZE and counted (RFC 1870).
    max_size: int = 50 * 1024 * 1024
    #: Octets of its header.
    max_header: int = 256 * 1024
    #: Fields of its header.
    max_fields: int = MAX_FIELDS
    #: Received fields in it; RFC 5321 section 6.3 asks for 100 at least.
    max_hops: int = MAX_HOPS
    #: Recipients of a message; RFC 5321 section 4.5.3.1.8 asks for 100 at least.
    max_recipients: int = 1000
    #: Messages of a session (LIMITS MAILMAX, RFC 9422); None: any number.
    max_messages: int | None = None
    #: Chunks of a message: without a limit, each octet could be a chunk.
    max_chunks: int = 10_000
    #: Commands that cannot be parsed, or are out of order, before the session ends.
    max_errors: int = 20
    #: Refused AUTH before the session ends (RFC 4954 section 6).
    max_auth_failures: int = 3
    #: Refused MAIL, RCPT and messages before the session ends.
    max_refusals: int = 1000
    #: Commands between two messages that are no part of a message: NOOP, RSET, VRFY, EHLO.
    max_idle_commands: int = 100
    #: Accept octets before a 354 as content, instead of 554 5.5.0 and the end of the session: for
    #: clients that do not wait for 354.  Through such clients others can smuggle messages in.
    allow_early_input: bool = False
    #: Repair bare CR, bare LF and NUL in content; else such a message is refused.
    repair: bool = False

    def __post_init__(self) -> None:
        check_type("host", self.host, str, "a host name")
        for name in ("lmtp", "require_hello", "allow_early_input", "repair"):
            check_flag(name, getattr(self, name))
        for name in ("starttls", "require_tls", "require_auth", "clear_auth"):
            value = getattr(self, name)
            if value is not None:
                check_flag(name, value)
        check_each(
            "extensions", self.extensions, (str, Extension), "a tuple of keywords and Extensions"
        )
        if self.mechanisms is not None:
            check_each("mechanisms", self.mechanisms, str, "a tuple of names, such as ('PLAIN',)")
        for name in _LIMITS:
            value = getattr(self, name)
            if value is None and name == "max_messages":
                continue
            if type(value) is not int or value < 0:
                raise InvalidInput(f"{name} cannot be {value!r}", remedy="give a whole number")

    @cached_property
    def table(self) -> ExtensionTable:
        """The extensions that sessions may offer, in the order of the reply to EHLO."""
        return ExtensionTable((*self.extensions, *DERIVED_EXTENSIONS))

    def offered_mechanisms(self, *, tls: bool) -> tuple[str, ...]:
        """Return the SASL mechanisms that can be used now.

        :param tls: the session is inside TLS; without it there is no channel to bind, and no
            certificate of the client.
        """
        mechanisms = self.mechanisms or ()
        if tls:
            return mechanisms
        if not self.clear_auth:
            return ()
        return tuple(m for m in mechanisms if not (m.endswith("-PLUS") or m == "EXTERNAL"))

    def resolved(
        self, *, certificate: bool | None = None, mechanisms: tuple[str, ...] | None = None
    ) -> ServerSettings:
        """Return these settings with every None replaced by the value that it means.

        Explicit values stay, also False.  Applied to its own result it changes nothing.

        :param certificate: the server has one; None: it has one if ``starttls`` is True.
        :param mechanisms: the mechanisms of the server's accounts; None: it has accounts if
            ``mechanisms`` is not empty.
        """
        derived = (self.starttls, self.require_tls, self.mechanisms, self.require_auth)
        if None not in derived and self.clear_auth is not None:
            return self
        if certificate is None:
            certificate = bool(self.starttls)
        if mechanisms is None:
            mechanisms = self.mechanisms or ()
        return replace(
            self,
            starttls=_given(self.starttls, certificate),
            require_tls=_given(self.require_tls, certificate),
            mechanisms=mechanisms if self.mechanisms is None else self.mechanisms,
            require_auth=_given(self.require_auth, bool(mechanisms)),
            clear_auth=_given(self.clear_auth, False),
        )


def _given(value: bool | None, derived: bool) -> bool:  # noqa: FBT001 - two of a kind
    return derived if value is None else value
