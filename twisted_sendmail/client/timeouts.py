"""How long each phase of a session may take.

The defaults are those of RFC 5321 section 4.5.3.2, where it names one.  Each is one
deadline for one reply: a server that trickles cannot extend it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from twisted_sendmail.smtp import InvalidInput, Verb


@dataclass(frozen=True)
class Timeouts:
    """Seconds; None waits for ever.

    :raises InvalidInput: for zero or less.
    """

    #: Name look-up and TCP, all addresses together.
    connect: float | None = 30.0
    #: Section 4.5.3.2.1.
    greeting: float | None = 300.0
    #: EHLO, HELO, STARTTLS, RSET, NOOP and verbs we do not know.
    command: float | None = 300.0
    #: The TLS handshake.
    tls: float | None = 60.0
    #: Each reply in AUTH: servers ask other servers, and slow down guessing.
    auth: float | None = 300.0
    #: Section 4.5.3.2.2.
    mail: float | None = 300.0
    #: Section 4.5.3.2.3.
    rcpt: float | None = 300.0
    #: Until the 354, section 4.5.3.2.4.
    data_init: float | None = 120.0
    #: Until the server took the next piece of the content (64 KiB or more), section 4.5.3.2.5.
    data_block: float | None = 180.0
    #: From the final dot to its reply, section 4.5.3.2.6.
    data_end: float | None = 600.0
    #: From QUIT to the end of the connection, which is closed without waiting for the reply.
    #: Nobody waits for it, and nobody's mail depends on it.
    quit: float | None = 1.0
    #: One message, from the first look-up to the last reply.
    total: float | None = 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # "not >" and not "<=", so that NaN is refused too.
            if value is not None and not value > 0:
                msg = f"the timeout '{field.name}' cannot be {value}"
                raise InvalidInput(msg, remedy="give seconds above zero, or None")

    def of(self, verb: Verb) -> float | None:
        """The time for the reply to *verb*."""
        value: float | None = getattr(self, _FIELDS.get(verb, "command"))
        return value


_FIELDS = {
    Verb.GREETING: "greeting",
    Verb.AUTH: "auth",
    Verb.AUTH_LINE: "auth",
    Verb.AUTH_CANCEL: "auth",
    Verb.MAIL: "mail",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data_init",
    Verb.CONTENT: "data_end",
    Verb.LONE_DOT: "data_end",
    Verb.BDAT: "data_block",
    Verb.BDAT_LAST: "data_end",
    Verb.QUIT: "quit",
}
