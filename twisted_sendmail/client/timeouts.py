"""How long each phase of a session may take.

The defaults are those of RFC 5321 section 4.5.3.2, where it has one.  Each is one deadline for one
reply: a server that sends its reply slowly does not extend it.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from twisted_sendmail.smtp import InvalidInput, Verb


def _above_zero(_: object, attribute: Any, value: float | None) -> None:
    # "not >" refuses NaN too.
    if value is not None and not value > 0:
        raise InvalidInput(
            f"the timeout '{attribute.name}' cannot be {value}",
            remedy="give seconds above zero, or None",
        )


def _seconds(default: float) -> Any:
    return field(default=default, validator=_above_zero)


@frozen
class Timeouts:
    """Seconds for each phase; None waits without end.

    :raises InvalidInput: for zero or less.
    """

    #: Name look-up and TCP, all addresses together.
    connect: float | None = _seconds(30.0)
    #: The greeting (section 4.5.3.2.1).
    greeting: float | None = _seconds(300.0)
    #: EHLO, HELO, STARTTLS, RSET, NOOP and unknown commands.
    command: float | None = _seconds(300.0)
    #: The TLS handshake.
    tls: float | None = _seconds(60.0)
    #: Each reply in AUTH: servers ask other servers, and delay wrong passwords.
    auth: float | None = _seconds(300.0)
    #: MAIL (section 4.5.3.2.2).
    mail: float | None = _seconds(300.0)
    #: RCPT (section 4.5.3.2.3).
    rcpt: float | None = _seconds(300.0)
    #: From DATA to the 354 (section 4.5.3.2.4).
    data_init: float | None = _seconds(120.0)
    #: Until the server has taken the next piece of the content, 64 KiB or more (section 4.5.3.2.5).
    data_block: float | None = _seconds(180.0)
    #: From the final dot to its reply (section 4.5.3.2.6).
    data_end: float | None = _seconds(600.0)
    #: From QUIT to the end of the connection, which is closed without waiting for the 221.
    quit: float | None = _seconds(1.0)
    #: One message, from the name look-up to the last reply.
    total: float | None = _seconds(3600.0)

    def of(self, verb: Verb) -> float | None:
        """Return the seconds for the reply to *verb*."""
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
