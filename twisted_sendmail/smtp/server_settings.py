"""What a server session offers, demands and allows.

Values only.  Each limit quotes where it comes from; deadlines are in ``ingress``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Fields of a header at the most: ten times what mail has.  Each costs a few µs in everything
#: that looks at the header.
MAX_FIELDS = 2000

#: Extensions that need nothing but this package.  REQUIRETLS is a promise about the
#: next hop too: who can keep it, adds it.
EXTENSIONS = (
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
)


@dataclass(frozen=True)
class ServerSettings:
    """One server's offer and limits; every session of it shares them.

    ``starttls``, ``require_tls``, ``mechanisms``, ``require_auth`` and ``clear_auth`` follow from
    the certificate and the accounts of the server (:meth:`resolved`) where they are None, however
    many other fields are given.
    """

    #: The name in greeting and EHLO reply.
    host: str = "localhost"
    #: Speak LMTP (RFC 2033): LHLO, and one verdict for each recipient.
    lmtp: bool = False
    #: No MAIL before EHLO or HELO (503).  Without it who says neither is served as SMTP of
    #: old: programs that do so are many, and a message is worth more than a greeting.
    require_hello: bool = True
    #: EHLO keywords without parameters; STARTTLS, AUTH, SIZE and LIMITS follow from below.
    extensions: tuple[str, ...] = EXTENSIONS
    #: Offer STARTTLS while in clear.  None: if the server has a certificate.
    starttls: bool | None = None
    #: No MAIL in clear (530).  None: if the server has a certificate.
    require_tls: bool | None = None
    #: SASL mechanisms, in the order of the EHLO reply.  None: those of the server's accounts.
    mechanisms: tuple[str, ...] | None = None
    #: No MAIL without AUTH (530).  None: if the server has accounts.
    require_auth: bool | None = None
    #: Offer and take AUTH in clear: passwords can then be read on the way.  None: no.
    clear_auth: bool | None = None
    #: Octets of a message; SIZE says it, and it is counted too (RFC 1870).
    max_size: int = 50 * 1024 * 1024
    #: Octets of its header.
    max_header: int = 256 * 1024
    #: Fields of its header.
    max_fields: int = MAX_FIELDS
    #: Received fields in it; RFC 5321 section 6.3 asks for 100 at least.
    max_hops: int = 100
    #: Recipients of a message; RFC 5321 section 4.5.3.1.8 asks for 100 at least.
    max_recipients: int = 1000
    #: Messages of a session (LIMITS MAILMAX, RFC 9422); None: any number.
    max_messages: int | None = None
    #: Chunks of a message: a client may not make us work for each octet.
    max_chunks: int = 10_000
    #: Commands that cannot be read, or are out of order, before we hang up.
    max_errors: int = 20
    #: Refused AUTH before we hang up (RFC 4954 section 6 lets us).
    max_auth_failures: int = 3
    #: Refused MAIL and RCPT of a session before we hang up.
    max_refusals: int = 1000
    #: Commands between two messages that bring no message nearer: NOOP, RSET, VRFY, EHLO.
    max_idle_commands: int = 100
    #: Take octets that come before a 354 as content, instead of 554 5.5.0 and the end: for
    #: clients that do not wait for 354.  By them others can smuggle messages in.
    allow_early_input: bool = False
    #: Repair bare CR, bare LF and NUL in content; else such a message is refused.
    repair: bool = False

    def resolved(
        self, *, certificate: bool | None = None, mechanisms: tuple[str, ...] | None = None
    ) -> ServerSettings:
        """These settings with every None replaced by what it stands for.

        Explicit values stay, also False.  Applied to its own result it changes nothing.

        :param certificate: the server has one; None: it has one if ``starttls`` is True.
        :param mechanisms: the mechanisms of the server's accounts; None: it has accounts if
            ``mechanisms`` is not empty.
        """
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
