"""The table of the client's session: state × (command, kind of reply) → next state.

Data only: the session reads the table, the documentation draws it, the tests go through it
entry by entry.  An absent entry is a breach of protocol.

RFC 5321 section 4.1.4 (order of commands), RFC 2920 section 3.1 (groups).
"""

from __future__ import annotations

import enum
from functools import lru_cache

from twisted_sendmail.smtp.commands import Verb


class ClientState(enum.Enum):
    """The state of a session; the values complete the sentence "the session is …"."""

    # By identity, for speed: see Verb.
    __hash__ = object.__hash__

    CONNECTED = "waiting for the greeting"
    GREETED = "greeted"
    UNWELCOME = "refused by the greeting"
    HANDSHAKE = "starting TLS"
    SECURED = "secured, before EHLO"
    READY = "ready for a message"
    AUTH = "authenticating"
    MAIL = "in a transaction without a recipient"
    RCPT = "in a transaction with recipients"
    DATA = "waiting for content"
    LONE_DOT = "waiting for a content without recipients"
    CHUNKS = "in the middle of a content"
    BROKEN = "in a broken transaction"
    QUIT = "ending after QUIT"
    CLOSED = "over"


class ReplyKind(enum.Enum):
    """The kind of a reply: success, intermediate, refusal, or none of them."""

    __hash__ = object.__hash__

    #: It succeeded.
    YES = "yes"
    #: The server awaits more: 334 in AUTH, any 3yz to an unknown command.
    MORE = "more"
    #: Refused, 4yz or 5yz.
    NO = "no"
    #: A positive code that does not belong to this command.
    UNEXPECTED = "unexpected"


_S, _V, _YES, _MORE, _NO = ClientState, Verb, ReplyKind.YES, ReplyKind.MORE, ReplyKind.NO

#: Commands whose success has one code only.
EXACT = {
    Verb.GREETING: 220,
    Verb.STARTTLS: 220,
    Verb.AUTH: 235,
    Verb.AUTH_LINE: 235,
    Verb.DATA: 354,
}

_NOT_YES = frozenset({220, 221, 235})
_ANY_SUCCESS = frozenset({Verb.QUIT, Verb.OTHER, Verb.RESTART})

CLIENT_TABLE: dict[tuple[ClientState, Verb, ReplyKind], ClientState] = {
    (_S.CONNECTED, _V.GREETING, _YES): _S.GREETED,
    (_S.CONNECTED, _V.GREETING, _NO): _S.UNWELCOME,
    # -- getting ready
    (_S.GREETED, _V.EHLO, _YES): _S.READY,
    (_S.GREETED, _V.EHLO, _NO): _S.GREETED,
    (_S.GREETED, _V.HELO, _YES): _S.READY,
    (_S.GREETED, _V.HELO, _NO): _S.GREETED,
    (_S.GREETED, _V.LHLO, _YES): _S.READY,
    (_S.GREETED, _V.LHLO, _NO): _S.GREETED,
    (_S.SECURED, _V.EHLO, _YES): _S.READY,
    (_S.SECURED, _V.EHLO, _NO): _S.SECURED,
    (_S.SECURED, _V.LHLO, _YES): _S.READY,
    (_S.SECURED, _V.LHLO, _NO): _S.SECURED,
    (_S.READY, _V.EHLO, _YES): _S.READY,
    (_S.READY, _V.EHLO, _NO): _S.READY,
    (_S.READY, _V.STARTTLS, _YES): _S.HANDSHAKE,
    (_S.READY, _V.STARTTLS, _NO): _S.READY,
    (_S.READY, _V.AUTH, _YES): _S.READY,
    (_S.READY, _V.AUTH, _MORE): _S.AUTH,
    (_S.READY, _V.AUTH, _NO): _S.READY,
    (_S.AUTH, _V.AUTH_LINE, _YES): _S.READY,
    (_S.AUTH, _V.AUTH_LINE, _MORE): _S.AUTH,
    (_S.AUTH, _V.AUTH_LINE, _NO): _S.READY,
    (_S.AUTH, _V.AUTH_CANCEL, _NO): _S.READY,
    # -- EHLO is required again
    (_S.READY, _V.RESTART, _YES): _S.GREETED,
    (_S.READY, _V.RESTART, _NO): _S.READY,
    # -- a transaction
    (_S.READY, _V.MAIL, _YES): _S.MAIL,
    (_S.READY, _V.MAIL, _NO): _S.READY,
    (_S.MAIL, _V.RCPT, _YES): _S.RCPT,
    (_S.MAIL, _V.RCPT, _NO): _S.MAIL,
    (_S.RCPT, _V.RCPT, _YES): _S.RCPT,
    (_S.RCPT, _V.RCPT, _NO): _S.RCPT,
    (_S.RCPT, _V.DATA, _YES): _S.DATA,
    (_S.RCPT, _V.DATA, _NO): _S.BROKEN,
    (_S.DATA, _V.CONTENT, _YES): _S.READY,
    (_S.DATA, _V.CONTENT, _NO): _S.READY,
    (_S.RCPT, _V.BDAT, _YES): _S.CHUNKS,
    (_S.RCPT, _V.BDAT, _NO): _S.BROKEN,
    (_S.RCPT, _V.BDAT_LAST, _YES): _S.READY,
    (_S.RCPT, _V.BDAT_LAST, _NO): _S.BROKEN,
    (_S.CHUNKS, _V.BDAT, _YES): _S.CHUNKS,
    (_S.CHUNKS, _V.BDAT, _NO): _S.BROKEN,
    (_S.CHUNKS, _V.BDAT_LAST, _YES): _S.READY,
    (_S.CHUNKS, _V.BDAT_LAST, _NO): _S.BROKEN,
    # -- commands that were on their way when an earlier one was refused
    (_S.READY, _V.RCPT, _NO): _S.READY,
    (_S.READY, _V.DATA, _NO): _S.READY,
    (_S.READY, _V.DATA, _YES): _S.LONE_DOT,
    (_S.MAIL, _V.DATA, _NO): _S.BROKEN,
    (_S.MAIL, _V.DATA, _YES): _S.LONE_DOT,
    (_S.LONE_DOT, _V.LONE_DOT, _YES): _S.READY,
    (_S.LONE_DOT, _V.LONE_DOT, _NO): _S.READY,
    (_S.READY, _V.BDAT, _NO): _S.BROKEN,
    (_S.READY, _V.BDAT_LAST, _NO): _S.BROKEN,
    (_S.MAIL, _V.BDAT, _NO): _S.BROKEN,
    (_S.MAIL, _V.BDAT_LAST, _NO): _S.BROKEN,
    # ... a content without recipients that is accepted all the same: RSET ends what is left of it
    (_S.READY, _V.BDAT_LAST, _YES): _S.BROKEN,
    (_S.MAIL, _V.BDAT_LAST, _YES): _S.BROKEN,
    (_S.BROKEN, _V.BDAT, _NO): _S.BROKEN,
    (_S.BROKEN, _V.BDAT_LAST, _NO): _S.BROKEN,
    # ... the next message: some servers accept it, some require RSET first
    (_S.BROKEN, _V.MAIL, _YES): _S.MAIL,
    (_S.BROKEN, _V.MAIL, _NO): _S.BROKEN,
    (_S.BROKEN, _V.RCPT, _NO): _S.BROKEN,
    (_S.BROKEN, _V.DATA, _NO): _S.BROKEN,
    # -- at any time
    **{
        (state, _V.RSET, kind): following
        for state in (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNKS, _S.BROKEN)
        for kind, following in (
            (_YES, _S.GREETED if state is _S.GREETED else _S.READY),
            (_NO, state),
        )
    },
    **{
        (state, verb, kind): state
        for state in (_S.GREETED, _S.SECURED, _S.READY, _S.MAIL, _S.RCPT, _S.BROKEN)
        for verb in (_V.NOOP, _V.OTHER)
        for kind in (_YES, _MORE, _NO)
        if verb is _V.OTHER or kind is not _MORE
    },
    **{
        (state, _V.QUIT, kind): _S.QUIT
        for state in (
            _S.GREETED,
            _S.UNWELCOME,
            _S.SECURED,
            _S.READY,
            _S.MAIL,
            _S.RCPT,
            _S.CHUNKS,
            _S.BROKEN,
        )
        for kind in (_YES, _NO)
    },
}

_NOT_OPTIMISTIC = frozenset(
    {
        (_S.READY, _V.DATA),
        (_S.MAIL, _V.DATA),
        (_S.READY, _V.BDAT_LAST),
        (_S.MAIL, _V.BDAT_LAST),
        (_S.BROKEN, _V.MAIL),
    }
)

#: Which command may be written in which state, and the state its success leads to.  A content
#: without recipients is not written, nor is a MAIL in a broken transaction.
OPTIMISTIC: dict[tuple[ClientState, Verb], ClientState] = {
    (_S.AUTH, _V.AUTH_CANCEL): _S.READY,
    **{
        (state, verb): following
        for (state, verb, kind), following in CLIENT_TABLE.items()
        if kind is ReplyKind.YES and (state, verb) not in _NOT_OPTIMISTIC
    },
}

#: Commands after which nothing may be written before their reply (RFC 2920
#: section 3.1; AUTH and STARTTLS by their own RFCs; unknown verbs, to be safe; a content's
#: final dot because there are servers that lose the command after it).
ENDS_GROUP = frozenset(
    {
        Verb.GREETING,
        Verb.EHLO,
        Verb.HELO,
        Verb.LHLO,
        Verb.STARTTLS,
        Verb.AUTH,
        Verb.AUTH_LINE,
        Verb.AUTH_CANCEL,
        Verb.DATA,
        Verb.CONTENT,
        Verb.LONE_DOT,
        Verb.NOOP,
        Verb.QUIT,
        Verb.OTHER,
        Verb.RESTART,
    }
)


# Called twice for every group; most groups are of a few forms.
@lru_cache(maxsize=256)
def in_one_piece(state: ClientState, verbs: tuple[Verb, ...]) -> tuple[int, ClientState]:
    """Return how many of *verbs* may be written together, and the state that their success leads to.

    Up to one that ends a group, or that does not fit the state.
    """
    for at, verb in enumerate(verbs):
        following = OPTIMISTIC.get((state, verb))
        if following is None:
            return at, state
        state = following
        if verb in ENDS_GROUP:
            return at + 1, state
    return len(verbs), state


# Called for every reply; servers send a few codes.
@lru_cache(maxsize=1024)
def transition(state: ClientState, verb: Verb, code: int) -> tuple[ReplyKind, ClientState | None]:
    """Return the kind of a reply with *code* to *verb*, and the next state; None for a breach."""
    kind = reply_kind(verb, code)
    return kind, CLIENT_TABLE.get((state, verb, kind))


def reply_kind(verb: Verb, code: int) -> ReplyKind:
    """Return the kind of a reply with *code* to *verb*; a 421 is handled before."""
    if code >= 400:
        return ReplyKind.NO
    exact = EXACT.get(verb)
    if exact is not None:
        if code == exact:
            return ReplyKind.YES
        return ReplyKind.MORE if code == 334 and exact == 235 else ReplyKind.UNEXPECTED
    if code < 300:
        # 220, 221 and 235 belong to one command each: as the reply to any other command they
        # are a reply that came at the wrong time.
        return (
            ReplyKind.UNEXPECTED if code in _NOT_YES and verb not in _ANY_SUCCESS else ReplyKind.YES
        )
    return ReplyKind.MORE if verb is Verb.OTHER else ReplyKind.UNEXPECTED
