"""The SMTP server session: octets in, calls of a handler and octets out.

**The model.**  A session is the dialogue of one connection, without I/O, clock or Twisted.
:meth:`ServerSession.receive` buffers octets.  :meth:`ServerSession.run` reads what is
buffered, line by line and content piece by piece, and executes each command before it reads
the next.  The session decides everything that follows from the grammar (``command_parser``),
from the order of commands (``server_states``) and from the settings: syntax errors, 503, 530,
sizes, counts.  All other decisions are made by a :class:`ServerHandler`: ``mail``, ``rcpt``,
``data``, ``chunk``, ``commit``.  Replies collect in :meth:`ServerSession.output`.

**An answer that comes later.**  A handler returns None (yes), a reply, or :data:`PENDING`.
After PENDING the session reads nothing until :meth:`ServerSession.resume` has brought the
answer; what the client has pipelined stays in the buffer, so replies are always in the order
of commands.  ``run`` is called again after ``resume``::

    C: MAIL FROM:<a@example.org>    handler.mail(…)  -> PENDING
    C: RCPT TO:<b@example.net>      (buffered)
                                    session.resume(None); session.run()
    S: 250 2.0.0 Ok                 handler.rcpt(…)  -> None
    S: 250 2.0.0 Ok

**The states** are those of ``server_states.SERVER_TABLE``.  Beside the state there are three facts.
``_chunk`` counts the octets of a BDAT chunk that are still to come: they are read before
anything else, in every state, whether the BDAT was in order or not.  ``_reader`` is the
content of the transaction, from DATA or the first BDAT on.  ``_skipping`` is True after the
refusal of a line whose CRLF has not been read yet.

**Invariants.**

- Any cutting of the octets gives the same replies and the same calls of the handler, except
  how content is divided among calls of ``chunk``.  There is one way to read octets.
- A line ends with CRLF.  A line that holds another CR or LF, or is too long, is refused once,
  as soon as that is certain, and skipped to its CRLF.  No part of it is executed.
- Octets of a content or of a chunk are never read as commands.  Where the end of a chunk
  cannot be known (a BDAT that cannot be parsed), the session ends.
- The client has to wait for the reply to DATA, AUTH and STARTTLS (RFC 2920 section 3.1).
  Octets that are buffered when such a reply is due cannot be distinguished from content or from
  another client's commands: the reply is 554 5.5.0, and the session ends.
- For each transaction that the handler accepted with ``mail``, ``commit`` or ``abort`` is
  called exactly once, unless ``mail`` or ``commit`` itself failed.
- After the session has ended (state CLOSED) no octet is read and no call is made.

RFC 5321 section 4, RFC 2033 (LMTP), RFC 2034, RFC 2920, RFC 3030, RFC 3207, RFC 4954, RFC 9422.
"""

from __future__ import annotations

import enum
import re
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted_sendmail.smtp.command_parser import (
    TOO_LONG,
    max_length,
    parse_auth_line,
    parse_command,
)
from twisted_sendmail.smtp.commands import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    Command,
    Data,
    Hello,
    Mail,
    OtherCommand,
    Quit,
    Rcpt,
    StartTLS,
    Verb,
)
from twisted_sendmail.smtp.data_reader import SLACK, ContentReader, too_large
from twisted_sendmail.smtp.extensions import NO_PARAMETERS, read_mail_parameters, read_recipient
from twisted_sendmail.smtp.limits import MAX_AUTH_LINE, MAX_COMMAND_LINE
from twisted_sendmail.smtp.redaction import Redaction, shown_line
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_states import SERVER_TABLE, ServerState
from twisted_sendmail.smtp.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.smtp.address import ReversePath
    from twisted_sendmail.smtp.command_parser import ServerCommand
    from twisted_sendmail.smtp.envelope import Recipient
    from twisted_sendmail.smtp.extensions import ExtensionCommand, MailParameters
    from twisted_sendmail.smtp.server_settings import ServerSettings

#: Recipients that a client may give above the limit until a message is accepted, as a multiple of the
#: limit: clients that do not divide their list send all of it.
MAX_EXCESS = 10
#: Octets that may wait in the buffer while an answer is pending; reading is to pause then.
HIGH_WATER = 65536
#: Commands and pieces of content that one ``run`` reads, which bounds the output too.
MAX_STEPS = 200


class Pending(enum.Enum):
    """The type of :data:`PENDING`."""

    PENDING = "the answer comes later"


#: Returned by a handler whose answer comes by :meth:`ServerSession.resume`.
PENDING: Final = Pending.PENDING

HandlerReply = Reply | Pending | None


class ServerHandler:
    """Decides about mail and logins: inherit, and override what matters.

    This one accepts all mail, keeps nothing, and rejects every login.

    Each method that returns an answer may return None (yes), a :class:`Reply` with 2yz (yes,
    in these words), one with 4yz or 5yz (no), one with 421 (no, and the session ends), or
    :data:`PENDING`.
    """

    def hello(self, domain: str, verb: Verb) -> None:
        """Answer EHLO, HELO or LHLO; an earlier transaction was aborted."""

    def start_tls(self) -> None:
        """Write ``output``, which ends with the 220 to STARTTLS, start TLS, and call ``tls_started``."""

    def auth(self, mechanism: str, initial: bytes | None) -> Reply | Pending:
        """Answer AUTH: 235, a refusal, or 334 with the challenge in base64.

        :param initial: the initial response, decoded; None: there was none.
        """
        return Reply(454, ("4.7.0 Cannot authenticate anyone now",))

    def auth_response(self, response: bytes) -> Reply | Pending:
        """Answer the client's response to a challenge, as ``auth`` does."""
        return Reply(454, ("4.7.0 Cannot authenticate anyone now",))

    def auth_cancelled(self) -> None:
        """End the exchange, which the client cancelled; the reply has been written."""

    def command(self, handle: Callable[[Any, str], object], argument: str) -> HandlerReply:
        """Answer a command of an extension; *handle* is that of the ``ExtensionCommand``."""
        return Reply(502, ("5.5.1 Command not implemented",))

    def mail(self, sender: ReversePath, parameters: MailParameters) -> HandlerReply:
        """Answer MAIL."""
        return None

    def rcpt(self, recipient: Recipient) -> HandlerReply:
        """Answer RCPT."""
        return None

    def data(self) -> HandlerReply:
        """Answer DATA, or the first BDAT."""
        return None

    def chunk(self, data: bytes) -> HandlerReply:
        """Take some content, without stuffed dots; a refusal is sent at the end of the content."""
        return None

    def commit(self) -> HandlerReply | Sequence[Reply]:
        """Take responsibility for the complete message.  In LMTP return one reply for all, or one for each recipient."""
        return None

    def abort(self, reason: str) -> None:
        """End the transaction without a message."""


def _reply(code: int, text: str) -> Reply:
    return Reply(code, (text,))


_OK = _reply(250, "2.0.0 Ok")
_OK_LINE = _OK.to_bytes()
_GO_AHEAD = _reply(354, "End with CRLF, dot, CRLF")
_GO_AHEAD_LINE = _GO_AHEAD.to_bytes()
_BAD_LINE_END = _reply(500, "5.5.2 A line ends with CRLF, and holds no other CR or LF")
_HTTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
#: Verbs of other programs and other times; any other word may be a password sent by mistake.
_KNOWN = _HTTP | {
    "EXPN", "ETRN", "HELP", "SAML", "SEND", "SOML", "TURN", "VRFY", "XCLIENT", "XFORWARD",
}  # fmt: skip
#: Commands whose replies belong to a SASL exchange.
_EXCHANGE = frozenset({Verb.AUTH, Verb.AUTH_LINE, Verb.AUTH_CANCEL})
_HELLOS = frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO})
_IDLE = frozenset({Verb.NOOP, Verb.RSET, Verb.OTHER}) | _HELLOS
_OF_MESSAGE = frozenset({Verb.MAIL, Verb.RCPT, Verb.DATA})
# The client waits for their replies before it sends anything else.
_WAITED_FOR = frozenset({Verb.DATA, Verb.AUTH, Verb.STARTTLS})
# Looking up a member of an Enum takes as long as a step of the table.
_READY, _AUTH, _MAIL, _RCPT, _DATA = (
    ServerState.READY,
    ServerState.AUTH,
    ServerState.MAIL,
    ServerState.RCPT,
    ServerState.DATA,
)
_NOT_READING = frozenset({ServerState.OPENING, ServerState.HANDSHAKE, ServerState.CLOSED})
_IN_TRANSACTION = frozenset(
    {ServerState.MAIL, ServerState.RCPT, ServerState.DATA, ServerState.CHUNKS}
)
_BETWEEN_MESSAGES = frozenset(
    {
        ServerState.GREETED,
        _READY,
        ServerState.AUTH,
        ServerState.MAIL,
        ServerState.RCPT,
    }
)
_BARE = re.compile(rb"\n|\r")
_LETTERS = re.compile(rb"[A-Za-z]*")


def _too_early(verb: Verb) -> Reply:
    text = f"5.5.0 SMTP protocol synchronization error: input before the reply to {verb.value}"
    return _reply(554, text)


class ServerSession:
    """The session of one connection; see the module's theory of operation.

    :param settings: what is offered and demanded, and the limits.
    :param handler: decides about mail and logins.
    :param tls: the connection is in TLS already (port 465).
    """

    def __init__(
        self, settings: ServerSettings, handler: ServerHandler, *, tls: bool = False
    ) -> None:
        self.settings = settings.resolved()
        self._table = self.settings.table
        self.handler = handler
        self.state = ServerState.OPENING
        self.tls = tls
        self.authenticated = False
        #: Lines read so far; the client's deadline starts again with each.
        self.lines = 0
        #: Contents begun so far.
        self.contents = 0
        #: The dialogue, without secrets and content.
        self.transcript = Transcript()
        self._redaction = Redaction()
        #: There was an AUTH: what the transcript keeps goes through the redaction.
        self._redacting = False
        #: The session ended while the client may still be sending: read and discard its
        #: octets for a while before closing, or a reset may overtake the last reply.
        self.discarding = False
        self._buffer = b""
        self._skipping = False
        self._output = bytearray()
        #: The command in work.
        self._verb = Verb.GREETING
        #: Called with the answer of the handler that is awaited; None: no answer is awaited.
        self.pending: Callable[[Any], None] | None = None
        #: Written as soon as no message is under way, to end the session.
        self._farewell: Reply | None = None
        self._esmtp = False
        #: The EHLO keywords that were offered, for MAIL and RCPT to be checked against.
        self._offered: dict[str, str] = {}
        self._messages = self._errors = self._refusals = self._auth_failures = 0
        # Since the last message that was accepted: commands outside of a transaction, and recipients
        # above the limit.
        self._idle = self._excess = 0
        self._forget()

    def _forget(self) -> None:
        """Reset the state of the transaction."""
        self._parameters = NO_PARAMETERS
        self._recipients = 0
        self._reader: ContentReader | None = None
        #: Octets of the chunk at hand that are still to come; None between chunks.
        self._chunk: int | None = None
        self._last_chunk = False
        self._chunk_refusal: Reply | None = None

    # -- octets ---------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take octets from the client, for ``run`` to read."""
        if self.state is not ServerState.CLOSED:
            self._buffer = self._buffer + data if self._buffer else data

    def output(self) -> bytes:
        """Return the octets for the client, and clear them."""
        data = bytes(self._output)
        self._output.clear()
        return data

    @property
    def full(self) -> bool:
        """True while the buffer is full: receiving should pause."""
        return len(self._buffer) >= HIGH_WATER

    @property
    def reading_content(self) -> bool:
        """True while content is being received."""
        return self.state is _DATA or self._chunk is not None

    def run(self) -> bool:
        """Read and execute what is buffered, as far as possible now.

        Returns True when there may be more to do: write ``output``, and call it again later, so that
        other connections have their turn.
        """
        for _ in range(MAX_STEPS):
            state = self.state
            if self.pending is not None or state in _NOT_READING:
                return False
            if self._farewell is not None and self._between_messages():
                self.close(self._farewell)
            elif self._chunk is not None:
                if not self._read_chunk():
                    return False
            else:
                read = self._read_data if state is _DATA else self._read_line
                if not (self._buffer and read()):
                    return False
        return True

    # -- decisions ------------------------------------------------------------

    def greet(self, reply: Reply | None = None) -> None:
        """Open the session; anything but 220 ends it at once."""
        what = "LMTP" if self.settings.lmtp else "ESMTP"
        reply = reply or _reply(220, f"{self.settings.host} {what}")
        if reply.code != 220:
            self.close(reply)
            return
        self._write(reply, reply.to_bytes())
        self.state = SERVER_TABLE[self.state, Verb.GREETING]
        if not self.settings.require_hello:
            self.state = _READY

    def resume(self, answer: Reply | Sequence[Reply] | None) -> None:
        """Continue with the answer that was awaited; call ``run`` after it."""
        then, self.pending = self.pending, None
        if then is not None:
            then(answer)

    def tls_started(self) -> None:
        """Continue after the handshake; what was sent before it is forgotten (RFC 3207 section 4.2)."""
        self.transcript.add("--", "TLS started")
        self.tls = True
        self.authenticated = self._esmtp = False
        self._offered = {}
        self.state = ServerState.GREETED
        if self._buffer:
            # The octets came in clear text: their sender is unknown.
            self._hang_up(_too_early(Verb.STARTTLS))

    def close(self, reply: Reply) -> None:
        """Write *reply* and end the session."""
        if self.state is not ServerState.CLOSED:
            self._send_reply(reply)
            self.end(reply.lines[0])

    def close_after_message(self, reply: Reply) -> None:
        """Write *reply* and end the session as soon as ``run`` finds no message under way."""
        self._farewell = reply

    def end(self, reason: str) -> None:
        """End the session without a reply: a transaction under way is aborted."""
        self._abort(reason)
        self.state = ServerState.CLOSED
        self.pending = None
        self._buffer = b""

    def _hang_up(self, reply: Reply) -> None:
        """End the session although the client has not asked for it, and may be sending."""
        if self.state is not ServerState.CLOSED:
            self.discarding = True
            self.close(reply)

    def _between_messages(self) -> bool:
        return self.state in _BETWEEN_MESSAGES and self._chunk is None

    # -- replies --------------------------------------------------------------

    def _write(self, reply: Reply, octets: bytes) -> None:
        self._output += octets
        self.transcript.add_reply(self._shown(reply) if self._redacting else reply)

    def _shown(self, reply: Reply) -> Reply:
        """Return *reply* as the transcript keeps it, after an AUTH."""
        if self._verb in _EXCHANGE:
            return self._redaction.in_exchange(reply)
        return self._redaction.reply(reply) if self._redaction else reply

    def _send_reply(self, reply: Reply) -> None:
        """Write *reply*, with an enhanced status code (RFC 2034 section 4)."""
        if reply.enhanced is None and not reply.intermediate:
            status = f"{reply.code // 100}.0.0 "
            reply = Reply(reply.code, tuple(status + line for line in reply.lines))
        self._write(reply, reply.to_bytes())

    def _error(self, reply: Reply) -> None:
        """Refuse what cannot be read or is out of order."""
        _ = self._send_answer(reply)
        self._errors += 1
        if self._errors > self.settings.max_errors:
            self._hang_up(_reply(421, "4.7.0 Too many errors"))

    def _send_answer(self, answer: Reply | None) -> bool:
        """Write the handler's answer to a command; return True if it is positive."""
        if answer is None:
            self._write(_OK, _OK_LINE)
            return True
        if answer.code == 421:
            self._hang_up(answer)
            return False
        self._send_reply(answer)
        return answer.code < 400

    def _ask(self, then: Callable[[Any], None], call: Callable[..., object], *args: Any) -> None:
        """Call the handler, and *then* with its answer, now or by ``resume``."""
        self.pending = then
        answer = call(*args)
        # While it was called the session may have ended, or the answer have come by ``resume``.
        if answer is not PENDING and self.pending is then:
            self.pending = None
            then(answer)

    def _abort(self, reason: str) -> None:
        if self.state in _IN_TRANSACTION:
            self.handler.abort(reason)
        self._forget()

    def _abandon(self) -> None:
        """End the transaction: DATA or BDAT was refused."""
        if self.state is not ServerState.CLOSED:
            self._abort("refused")
            self.state = _READY
            self._count_refusal("messages")

    def _synchronized(self, verb: Verb, *, refused: bool) -> bool:
        """Return True if no octets came before the reply to *verb*; else end the session.

        RFC 2920 section 3.1, RFC 3207 section 4.

        :param refused: the reply refuses *verb*: what came early cannot be content.
        """
        if not self._buffer or verb not in _WAITED_FOR:
            return True
        if self.settings.allow_early_input and verb is Verb.DATA and not refused:
            return True
        self._hang_up(_too_early(verb))
        return False

    # -- lines ----------------------------------------------------------------

    def _read_line(self) -> bool:
        """Execute one line; return False if there is none."""
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        limit = MAX_COMMAND_LINE
        if not 0 <= end <= limit:
            limit = MAX_AUTH_LINE if self.state is _AUTH else max_length(buffer)
        line = buffer[:end]
        if self._skipping or not 0 <= end <= limit or b"\n" in line or b"\r" in line:
            return self._read_bad_line(end, limit)
        self._buffer = buffer[end + 2 :]
        self.lines += 1
        if self.state is _AUTH:
            self._auth_line(line)
            return True
        command = parse_command(line)
        if isinstance(command, Reply):
            self._unreadable(line, command)
            return True
        verb = self._verb = command.verb
        if verb in _OF_MESSAGE:
            # Their lines hold no secret, and are noted as they were sent.
            self.transcript.add("C", line)
        else:
            self.transcript.add("C", self._shown_command(command))
            self._idle += verb in _IDLE
            if self._idle > self.settings.max_idle_commands:
                self._hang_up(_reply(421, "4.7.0 Too many commands without a message"))
                return True
            not_offered = self._NOT_OFFERED.get(verb)
            refusal = None if not_offered is None else not_offered(self, command)
            if refusal is not None:
                self._refuse(command, refusal)
                return True
        # RFC 5321 section 4.1.4.
        if (self.state, verb) in SERVER_TABLE:
            self._DO[verb](self, command)
        else:
            text = f"503 5.5.1 {verb.value} is out of order: the session is {self.state.value}"
            self._refuse(command, text)
        return True

    def _read_bad_line(self, end: int, limit: int) -> bool:
        """Refuse a line or skip the rest of one, at *end* or before its end has come."""
        buffer = self._buffer
        if not buffer:
            return False
        whole = end >= 0
        if not whole:
            # A CR at the end may be half of a CRLF.
            end = len(buffer) - buffer.endswith(b"\r")
        refusal: Reply | None = None
        if _BARE.search(buffer, 0, min(end, limit + 1)):
            refusal = _BAD_LINE_END
        elif end > limit:
            refusal = TOO_LONG
        if not (whole or refusal or self._skipping):
            return False
        line = buffer[:end]
        self._buffer = buffer[end + 2 if whole else end :]
        skipped, self._skipping = self._skipping, not whole
        if not skipped:
            self.lines += 1
            self._unreadable(line, refusal or _BAD_LINE_END)
        return whole or not skipped

    def _refuse(self, command: ServerCommand, refusal: str) -> None:
        """Refuse a command that is not offered, not allowed or out of order.

        :param refusal: code and text.
        """
        reply = _reply(int(refusal[:3]), refusal[4:])
        if isinstance(command, Bdat):
            # In order or not, its octets follow.
            self._begin_chunk(command, reply)
        elif self._synchronized(command.verb, refused=True):
            self._error(reply)

    def _shown_command(self, command: ServerCommand | AuthLine | AuthCancel) -> str:
        """Return the text of *command* for the transcript; the line may be a misplaced password."""
        if isinstance(command, Auth):
            self._redacting = True
            self._redaction.begin(command.mechanism, command.initial)
            offered = command.mechanism in self.settings.offered_mechanisms(tls=self.tls)
            return str(command) if offered else shown_line("AUTH", argument=True)
        if isinstance(command, AuthLine):
            self._redaction.response(command.response)
        if isinstance(command, OtherCommand):
            known = command.name in _KNOWN or command.name in self._table.commands
            return shown_line(command.name if known else "", argument=bool(command.argument))
        return str(command)

    def _unreadable(self, line: bytes, refusal: Reply) -> None:
        """Refuse a line that is no command.

        :param line: as much of it as has been read.
        """
        in_auth = self.state is _AUTH
        found = _LETTERS.match(line)
        word = found[0].upper().decode() if found and not in_auth else ""
        verb = Verb.AUTH if in_auth else Verb.__members__.get(word)
        self.transcript.add("C", shown_line("" if verb is None else word, argument=True))
        if in_auth:
            self.state = _READY
            self.handler.auth_cancelled()
        # While a line is skipped, the buffer holds nothing, or the CR that belongs to that line.
        if verb and not self._skipping and not self._synchronized(verb, refused=True):
            return
        self._error(refusal)
        if verb is Verb.BDAT:
            # The end of its chunk is unknown: the octets that follow must not be read as commands.
            self._hang_up(_reply(421, "4.5.2 Cannot go on after this BDAT"))

    def _hello_not_offered(self, command: Hello) -> str | None:
        if (command.verb is Verb.LHLO) is self.settings.lmtp:
            return None
        return f"500 5.5.1 Send {'LHLO' if self.settings.lmtp else 'EHLO'} here"

    def _starttls_not_offered(self, command: StartTLS) -> str | None:
        if self.tls:
            return "503 5.5.1 TLS is on already"
        if not self.settings.starttls:
            return "502 5.5.1 STARTTLS is not offered"
        return None if self._esmtp else "503 5.5.1 Send EHLO first"

    def _auth_not_offered(self, command: Auth) -> str | None:
        if self.authenticated:
            return "503 5.5.1 Already authenticated"
        if not self.settings.mechanisms:
            return "502 5.5.1 AUTH is not offered"
        if not self.tls and not self.settings.clear_auth:
            return f"538 5.7.11 {self._encryption_required()}"
        return None if self._esmtp else "503 5.5.1 Send EHLO first"

    def _bdat_not_offered(self, command: Bdat) -> str | None:
        offered = "CHUNKING" in self._table.extensions
        return None if offered else "502 5.5.1 CHUNKING is not offered"

    #: Commands that are not offered are refused before the order of commands is checked.
    #: RFC 2033 (LHLO), RFC 3207 section 4, RFC 4954 section 4.
    _NOT_OFFERED: ClassVar[dict[Verb, Callable[[Any, Any], str | None]]] = {
        Verb.EHLO: _hello_not_offered,
        Verb.HELO: _hello_not_offered,
        Verb.LHLO: _hello_not_offered,
        Verb.STARTTLS: _starttls_not_offered,
        Verb.AUTH: _auth_not_offered,
        Verb.BDAT: _bdat_not_offered,
        Verb.BDAT_LAST: _bdat_not_offered,
    }

    def _encryption_required(self) -> str:
        # STARTTLS is no remedy where only implicit TLS is spoken.
        remedy = ": send STARTTLS first" if self.settings.starttls else ""
        return f"Encryption is required{remedy}"

    # -- commands -------------------------------------------------------------

    def _offer(self) -> dict[str, str]:
        """Return the EHLO keywords with their texts, in the order of the reply to EHLO."""
        texts = {
            keyword: extension.offered(self.settings, tls=self.tls)
            for keyword, extension in self._table.extensions.items()
        }
        return {keyword: text for keyword, text in texts.items() if text is not None}

    def _hello(self, command: Hello) -> None:
        verb, settings = command.verb, self.settings
        self._abort(verb.value)
        self.state = SERVER_TABLE[self.state, verb]
        self._esmtp = verb is not Verb.HELO
        self._offered = self._offer() if self._esmtp else {}
        words = (f"{k} {v}".rstrip() for k, v in self._offered.items())
        reply = Reply(250, (settings.host, *words))
        self._write(reply, reply.to_bytes())
        self.handler.hello(command.domain, verb)

    def _starttls(self, command: StartTLS) -> None:
        if not self._synchronized(Verb.STARTTLS, refused=False):
            return
        self._send_reply(_reply(220, "2.0.0 Go ahead"))
        self.state = SERVER_TABLE[self.state, command.verb]
        self.handler.start_tls()

    def _auth(self, command: Auth) -> None:
        if command.mechanism not in self.settings.offered_mechanisms(tls=self.tls):
            self._refuse(command, "504 5.5.4 That mechanism is not offered")
            return
        if not self._synchronized(Verb.AUTH, refused=False):
            return
        self._ask(self._auth_answered, self.handler.auth, command.mechanism, command.initial)

    def _auth_line(self, line: bytes) -> None:
        command = parse_auth_line(line)
        if isinstance(command, Reply):
            self._unreadable(line, command)
            return
        self._verb = command.verb
        self.transcript.add("C", self._shown_command(command))
        if not self._synchronized(Verb.AUTH, refused=False):
            return
        if isinstance(command, AuthLine):
            self._ask(self._auth_answered, self.handler.auth_response, command.response)
        else:
            self.state = _READY
            self.handler.auth_cancelled()
            self._error(_reply(501, "5.7.0 Authentication cancelled"))

    def _auth_answered(self, reply: Reply) -> None:
        if not self._synchronized(Verb.AUTH, refused=False):
            return
        if reply.code == 334:
            text = reply.lines[0].encode("ascii")
            self._redaction.challenge(text, b64decode(text))
            self._write(Reply(334), reply.to_bytes())
            self.state = _AUTH
        else:
            self.state = _READY
            self.authenticated = self._send_answer(reply)
            if self.authenticated or self.state is ServerState.CLOSED:
                return
            self._auth_failures += 1
            if self._auth_failures >= self.settings.max_auth_failures:
                self._hang_up(_reply(421, "4.7.0 Too many failed logins"))

    def _mail(self, command: Mail) -> None:
        settings = self.settings
        if settings.require_tls and not self.tls:
            self._refuse(command, f"530 5.7.0 {self._encryption_required()}")
            return
        if settings.require_auth and not self.authenticated:
            self._refuse(command, "530 5.7.0 Authentication is required")
            return
        limit = settings.max_messages
        if limit is not None and self._messages >= limit:
            self._hang_up(_reply(421, "4.7.0 Too many messages in this session"))
            return
        parameters = read_mail_parameters(command, self._table, self._offered)
        if isinstance(parameters, Reply):
            self._error(parameters)
        elif parameters.size is not None and parameters.size > settings.max_size:
            self._send_reply(too_large(settings))
            self._count_refusal("addresses")
        else:
            self._parameters = parameters
            self._ask(self._mail_answered, self.handler.mail, command.sender, parameters)

    def _mail_answered(self, answer: Reply | None) -> None:
        if self._send_answer(answer):
            self.state = _MAIL
        else:
            self._count_refusal("addresses")

    def _rcpt(self, command: Rcpt) -> None:
        recipient = read_recipient(
            command, self._table, self._offered, smtputf8=self._parameters.smtputf8
        )
        if isinstance(recipient, Reply):
            self._error(recipient)
        elif self._recipients >= self.settings.max_recipients:
            self._send_reply(_reply(452, "4.5.3 Too many recipients"))
            self._excess += 1
            if self._excess > MAX_EXCESS * self.settings.max_recipients:
                self._hang_up(_reply(421, "4.5.3 Too many recipients"))
        else:
            self._ask(self._rcpt_answered, self.handler.rcpt, recipient)

    def _rcpt_answered(self, answer: Reply | None) -> None:
        if self._send_answer(answer):
            self._recipients += 1
            self.state = _RCPT
        else:
            self._count_refusal("addresses")

    def _count_refusal(self, what: str) -> None:
        self._refusals += 1
        if self._refusals > self.settings.max_refusals:
            self._hang_up(_reply(421, f"4.7.0 Too many refused {what}"))

    def _idle_command(self, command: Command) -> None:
        if command.verb is Verb.RSET:
            self._abort("RSET")
        self.state = SERVER_TABLE[self.state, command.verb]
        self._send_reply(_OK)

    def _quit(self, command: Quit) -> None:
        self.close(_reply(221, f"2.0.0 {self.settings.host} closing"))

    def _other(self, command: OtherCommand) -> None:
        name = command.name
        extension, known = self._table.commands.get(name, ("", None))
        if known is not None and known.handle is not None and extension in self._offered:
            self._ask(
                lambda answer: self._extension_answered(known, answer),
                self.handler.command,
                known.handle,
                command.argument,
            )
        elif name in _HTTP:
            self._hang_up(_reply(421, "4.7.0 This is SMTP, not HTTP"))
        elif name == "VRFY":
            self._send_reply(
                _reply(252, "2.5.2 Cannot VRFY user, but will accept message and attempt delivery")
            )
        elif name == "HELP":
            self._send_reply(_reply(214, "2.0.0 See RFC 5321"))
        else:
            self._error(_reply(502, "5.5.1 Command not implemented"))

    def _extension_answered(self, command: ExtensionCommand, answer: Reply | None) -> None:
        if self._send_answer(answer) and command.restarts:
            self._abort(command.verb)
            self._offered = {}
            self._esmtp = False
            self.state = ServerState.GREETED

    # -- content --------------------------------------------------------------

    def _data(self, command: Data) -> None:
        if self._parameters.body == "BINARYMIME":
            self._refuse(command, "503 5.5.1 BODY=BINARYMIME needs BDAT")
            return
        if not self._synchronized(Verb.DATA, refused=False):
            return
        self._ask(self._data_answered, self.handler.data)

    def _data_answered(self, answer: Reply | None) -> None:
        refused = answer is not None and answer.code >= 400
        if self._buffer and not self._synchronized(Verb.DATA, refused=refused):
            return
        if not refused:
            self._write(_GO_AHEAD, _GO_AHEAD_LINE)
            self.state = _DATA
            self._reader = ContentReader(self.settings, chunked=False)
            self.contents += 1
        elif not self._send_answer(answer):
            self._abandon()

    def _read_data(self) -> bool:
        reader = self._reader
        if reader is None:
            return False
        content, self._buffer = reader.feed(self._buffer)
        if reader.endless:
            self._hang_up(too_large(self.settings))
        else:
            self._hand_on(reader, content)
        return True

    def _bdat(self, command: Bdat) -> None:
        self._begin_chunk(command, None)

    def _begin_chunk(self, command: Bdat, refusal: Reply | None) -> None:
        size = command.size + (0 if self._reader is None else self._reader.size)
        if size > 2 * self.settings.max_size + SLACK:
            self._hang_up(too_large(self.settings))
            return
        # Octets of a refused chunk are discarded; they are never commands.
        self._chunk, self._last_chunk, self._chunk_refusal = command.size, command.last, refusal
        if refusal is not None:
            # A content of its own, whose time does not depend on the contents before it.
            self.contents += self._reader is None
            return
        first = self._reader is None
        if self._reader is None:
            binary = self._parameters.body == "BINARYMIME"
            self._reader = ContentReader(self.settings, chunked=True, binary=binary)
            self.contents += 1
        self._reader.chunks += 1
        if first:
            self._ask(self._bdat_answered, self.handler.data)

    def _bdat_answered(self, answer: Reply | None) -> None:
        # BDAT has no 354: the reply follows the chunk.
        if answer is not None and answer.code >= 400:
            self._chunk_refusal = answer

    def _read_chunk(self) -> bool:
        """Read octets of a chunk, and reply at its end; False: there are none yet."""
        left = self._chunk or 0
        data = self._buffer[:left]
        if left and not data:
            return False
        self._buffer = self._buffer[left:]
        self._chunk = left = left - len(data)
        reader = self._reader
        if reader is not None and self._chunk_refusal is None:
            content, _ = reader.feed(data, last=self._last_chunk and not left)
            self._hand_on(reader, content)
        elif not left:
            self._chunk_ended()
        return True

    def _chunk_ended(self) -> None:
        refusal, reader = self._chunk_refusal, self._reader
        self._chunk = self._chunk_refusal = None
        if refusal is not None or reader is None:
            self._error(refusal or _reply(503, "5.5.1 No transaction"))
        elif (refusal := reader.refusal) is not None:
            _ = self._send_answer(refusal)
        else:
            self._send_reply(_reply(250, f"2.0.0 {reader.size} octets received"))
            self.state = ServerState.CHUNKS
            return
        if reader is not None:
            self._abandon()

    def _hand_on(self, reader: ContentReader, content: bytes) -> None:
        """Give a piece of *content* to the handler, and do what follows it."""
        if content:
            self._ask(self._handed_on, self.handler.chunk, content)
        else:
            self._handed_on(None)

    def _handed_on(self, answer: Reply | None) -> None:
        reader = self._reader
        if reader is None:
            return
        if answer is not None and answer.code >= 400:
            # Sent at the end; until then the rest of the content is read and discarded.
            reader.handler_refusal = answer
        if reader.ended:
            self._content_ended(reader)
        elif self._chunk == 0:
            self._chunk_ended()

    def _content_ended(self, reader: ContentReader) -> None:
        self._chunk = None
        self.transcript.add("--", f"content of {reader.size} octets")
        refusal = reader.refusal
        if refusal is None:
            self._ask(self._committed, self.handler.commit)
        else:
            self.handler.abort("refused")
            self._committed(refusal)

    def _committed(self, answer: Reply | Sequence[Reply] | None) -> None:
        """Reply to the message, and end the transaction."""
        if answer is None or isinstance(answer, Reply):
            reply = answer or _OK
            replies: Sequence[Reply] = [reply] * (self._recipients if self.settings.lmtp else 1)
        else:
            replies = answer
        self.state = _READY
        self._forget()
        for reply in replies:
            self._send_reply(reply)
        codes = [reply.code for reply in replies]
        if 421 in codes:
            # A client of LMTP awaits the replies for the other recipients too.
            self.discarding = True
            self.end(replies[codes.index(421)].lines[0])
        elif min(codes) < 400:
            self._messages += 1
            self._idle = self._excess = 0
        else:
            self._count_refusal("messages")

    _DO: ClassVar[dict[Verb, Callable[[Any, Any], None]]] = {
        Verb.EHLO: _hello,
        Verb.HELO: _hello,
        Verb.LHLO: _hello,
        Verb.STARTTLS: _starttls,
        Verb.AUTH: _auth,
        Verb.MAIL: _mail,
        Verb.RCPT: _rcpt,
        Verb.DATA: _data,
        Verb.BDAT: _bdat,
        Verb.BDAT_LAST: _bdat,
        Verb.RSET: _idle_command,
        Verb.NOOP: _idle_command,
        Verb.QUIT: _quit,
        Verb.OTHER: _other,
    }
