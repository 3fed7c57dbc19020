"""The states of the server session: state × command → next state when the command succeeds.

The session looks commands up in this table, and the tests check every entry.  A command that is absent is out
of order (503).  A refused command leaves the state as it is, with two exceptions: a refused DATA or
BDAT and the end of a content, accepted or refused, end the transaction.

RFC 5321 section 4.1.4 (order of commands), RFC 3207, RFC 4954, RFC 3030.
"""

from __future__ import annotations

import enum

from twisted_sendmail.smtp.commands import Verb


class ServerState(enum.Enum):
    """The state of a session; the values complete the sentence "the session is …"."""

    # Hashed by identity, for speed: see Verb.
    __hash__ = object.__hash__

    OPENING = "about to greet"
    GREETED = "waiting for EHLO"
    READY = "ready for a message"
    HANDSHAKE = "starting TLS"
    AUTH = "authenticating"
    MAIL = "in a transaction without a recipient"
    RCPT = "in a transaction with recipients"
    DATA = "reading content"
    CHUNKS = "in the middle of a content"
    CLOSED = "over"


_S, _V = ServerState, Verb
_HELLOS = (_V.EHLO, _V.HELO, _V.LHLO)

SERVER_TABLE: dict[tuple[ServerState, Verb], ServerState] = {
    (_S.OPENING, _V.GREETING): _S.GREETED,
    # -- getting ready
    **{(_S.GREETED, verb): _S.READY for verb in _HELLOS},
    (_S.READY, _V.STARTTLS): _S.HANDSHAKE,
    (_S.READY, _V.AUTH): _S.READY,
    (_S.AUTH, _V.AUTH_LINE): _S.READY,
    # -- a transaction
    (_S.READY, _V.MAIL): _S.MAIL,
    (_S.MAIL, _V.RCPT): _S.RCPT,
    (_S.RCPT, _V.RCPT): _S.RCPT,
    (_S.RCPT, _V.DATA): _S.DATA,
    (_S.DATA, _V.CONTENT): _S.READY,
    (_S.RCPT, _V.BDAT): _S.CHUNKS,
    (_S.RCPT, _V.BDAT_LAST): _S.READY,
    (_S.CHUNKS, _V.BDAT): _S.CHUNKS,
    (_S.CHUNKS, _V.BDAT_LAST): _S.READY,
    # -- EHLO again, and RSET, end the transaction (RFC 5321 sections 4.1.4, 4.1.1.5)
    **{
        (state, verb): _S.READY
        for state in (_S.READY, _S.MAIL, _S.RCPT, _S.CHUNKS)
        for verb in (*_HELLOS, _V.RSET)
    },
    (_S.GREETED, _V.RSET): _S.GREETED,
    # -- at any time
    **{
        (state, verb): state
        for state in (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNKS)
        for verb in (_V.NOOP, _V.OTHER)
    },
    **{
        (state, _V.QUIT): _S.CLOSED for state in (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNKS)
    },
}
