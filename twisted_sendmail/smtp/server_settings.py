"""What a server session offers, asks for and puts up with.

Values only.  Each limit quotes where it comes from; what takes time (deadlines) is
the concern of ``ingress``.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """One server's offer and limits; every session of it shares them."""

    #: The name in greeting and EHLO reply.
    host: str = "localhost"
    #: Speak LMTP (RFC 2033): LHLO, and one verdict for each recipient.
    lmtp: bool = False
    #: No MAIL before EHLO or HELO (503).  Without it who says neither is served as SMTP of
    #: old: programs that do so are many, and a message is worth more than a greeting.
    require_hello: bool = True
    #: EHLO keywords without parameters; STARTTLS, AUTH, SIZE and LIMITS follow from below.
    extensions: tuple[str, ...] = EXTENSIONS
    #: Offer STARTTLS while in clear.
    starttls: bool = False
    #: No MAIL in clear (530).
    require_tls: bool = True
    #: SASL mechanisms, in the order they are said.
    mechanisms: tuple[str, ...] = ()
    #: No MAIL without AUTH (530).
    require_auth: bool = False
    #: Offer and take AUTH in clear: passwords can then be read on the way.
    clear_auth: bool = False
    #: Octets of a message; SIZE says it, and it is counted too (RFC 1870).
    max_size: int = 50 * 1024 * 1024
    #: Octets of its header.
    max_header: int = 256 * 1024
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
    #: Repair bare CR, bare LF and NUL in content; else such a message is refused.
    repair: bool = False
