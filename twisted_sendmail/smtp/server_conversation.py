"""What a server session is made of, below its commands: octets, events, replies, the end.

``server_session`` builds the conversation on it.  RFC 5321 section 4.2, RFC 2034.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.command import Verb
from twisted_sendmail.smtp.mail_parameters import NOTHING_SAID
from twisted_sendmail.smtp.redaction import Redaction
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_event import Event, Question, SessionEnded, TransactionAborted
from twisted_sendmail.smtp.server_lines import LineBuffer
from twisted_sendmail.smtp.server_table import ServerState
from twisted_sendmail.smtp.transcript import Transcript

if TYPE_CHECKING:
    from twisted_sendmail.smtp.server_content import ContentIntake
    from twisted_sendmail.smtp.server_settings import ServerSettings

#: Octets that may wait while a question is open; the reader is to pause then.
HIGH_WATER = 65536

#: Commands whose replies belong to a SASL exchange.
_EXCHANGE = frozenset({Verb.AUTH, Verb.AUTH_LINE, Verb.AUTH_CANCEL})
_IN_TRANSACTION = frozenset(
    {ServerState.MAIL, ServerState.RCPT, ServerState.DATA, ServerState.CHUNKS}
)


@lru_cache(maxsize=256)
def _with_status(reply: Reply) -> Reply:
    """*reply* with an enhanced status code: most are said over and over."""
    if reply.intermediate or reply.enhanced is not None:
        return reply
    status = f"{reply.code // 100}.0.0 "
    return Reply(reply.code, tuple(status + line for line in reply.lines))


# To be made of replies whose lines are a tuple, as they should be.
octets_of = lru_cache(maxsize=256)(Reply.to_bytes)


class ServerConversation:
    """Buffers, replies and events of one connection.

    :param tls: the connection is in TLS already (port 465).
    """

    def __init__(self, settings: ServerSettings, *, tls: bool = False) -> None:
        self.settings = settings.resolved()
        self.state = ServerState.OPENING
        self.tls = tls
        self.authenticated = False
        #: Lines read so far: whoever times the client sees by it that one has ended.
        self.lines = 0
        #: The dialogue, without secrets and content.
        self.transcript = Transcript()
        self._redaction = Redaction()
        self._buffer = LineBuffer()
        self._output = bytearray()
        self._events: deque[Event] = deque()
        self._question: Question | None = None
        #: The command in work, whose outcome moves the state.
        self._verb = Verb.GREETING
        self._esmtp = False
        #: EHLO keywords as they were said; None: not asked for yet.
        self._words: dict[str, str] | None = None
        self._messages = self._errors = self._refusals = self._idle = self._auth_failures = 0
        self._forget()

    def _forget(self) -> None:
        """No transaction."""
        self._parameters = NOTHING_SAID
        self._recipients = 0
        self._intake: ContentIntake | None = None
        #: Octets of the chunk at hand that are still to come; None between chunks.
        self._chunk: int | None = None
        self._chunk_refusal: Reply | None = None
        self._complete = False

    # -- octets ---------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take octets from the client."""
        if self.state is not ServerState.CLOSED:
            self._buffer.octets += data

    def output(self) -> bytes:
        """Octets for the client, once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    @property
    def full(self) -> bool:
        """Is so much waiting that reading should pause?"""
        return len(self._buffer.octets) >= HIGH_WATER

    @property
    def verbose(self) -> bool:
        """Is so much to be said that nothing more is read before it is taken by ``output``?"""
        return len(self._output) >= HIGH_WATER

    @property
    def reading_content(self) -> bool:
        """Is the client in the middle of sending content?"""
        return self.state is ServerState.DATA or self._chunk is not None

    @property
    def asking(self) -> bool:
        """Is a question open?"""
        return self._question is not None

    def next_event(self) -> Event | None:
        """The next thing to do, or None: octets or an answer are waited for."""
        while True:
            if self._events:
                event = self._events.popleft()
                if isinstance(event, Question):
                    self._question = event
                return event
            if self._question is not None or len(self._output) >= HIGH_WATER or not self._step():
                return None

    def close(self, reply: Reply) -> None:
        """Say *reply* and end the session."""
        if self.state is not ServerState.CLOSED:
            self._say(reply)
            self._end(reply.lines[0])

    def challenge(self, data: bytes) -> None:
        """Answer an AUTH question with a challenge."""
        self._question = None
        text = b64encode(data)
        self._redaction.challenge(text, data)
        self.transcript.add_reply(self._shown(Reply(334)))
        self._output += b"334 " + text + b"\r\n"
        self.state = ServerState.AUTH

    def _write(self, reply: Reply) -> None:
        self.transcript.add_reply(self._shown(reply))
        self._output += octets_of(reply) if type(reply.lines) is tuple else reply.to_bytes()

    def _shown(self, reply: Reply) -> Reply:
        """What the transcript keeps of *reply*."""
        if self._verb in _EXCHANGE:
            return self._redaction.in_exchange(reply)
        return self._redaction.reply(reply) if self._redaction else reply

    def _say(self, reply: Reply) -> None:
        """Write *reply*, with an enhanced status code (RFC 2034 section 4)."""
        if type(reply.lines) is not tuple:
            reply = Reply(reply.code, tuple(reply.lines))  # a receiver may have given a list
        self._write(_with_status(reply))

    def _error(self, reply: Reply) -> None:
        self._say(reply)
        self._errors += 1
        if self._errors > self.settings.max_errors:
            self.close(Reply(421, ("4.7.0 Too many errors",)))

    def _verdict(self, replies: tuple[Reply, ...]) -> None:
        """Say what becomes of the message: the transaction is over."""
        if self.settings.lmtp and len(replies) == 1:
            replies *= self._recipients
        for reply in replies:
            self._say(reply)
        self.state = ServerState.READY
        self._forget()
        if replies[0].code < 400 or any(reply.code < 400 for reply in replies):
            self._messages += 1
            self._idle = 0
        if replies[-1].code == 421:
            self._end(replies[-1].lines[0])

    def _end(self, reason: str) -> None:
        self._abort(reason)
        self.state = ServerState.CLOSED
        self._buffer.octets.clear()
        self._events.append(SessionEnded(reason))

    def _abort(self, why: str) -> None:
        if self.state in _IN_TRANSACTION:
            self._events.append(TransactionAborted(why))
        self._forget()

    def _step(self) -> bool:
        """Make something of the buffer; False when there is nothing to be made."""
        raise NotImplementedError
