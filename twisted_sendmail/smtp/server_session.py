"""The server's half of the conversation: a machine without I/O, clock or memory of content.

Octets go in by :meth:`ServerSession.receive`, what they mean comes out of
:meth:`~ServerSession.next_event`, decisions go in by :meth:`~ServerSession.answer`,
octets for the client come out of :meth:`~ServerSession.output`.  One command is in
work at a time, so pipelined ones wait in the buffer, and the replies are in order.

It knows ``server_table`` and the fixed answers to what is out of order, badly
written, in clear, too much or too large.  Whom to believe and what to accept is
asked of others.

RFC 5321 section 4, RFC 2033 (LMTP), RFC 2920, RFC 3030, RFC 3207, RFC 4954, RFC 9422.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from twisted_sendmail.smtp.command import (
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
    Verb,
)
from twisted_sendmail.smtp.command_parser import (
    MAX_AUTH_LINE,
    max_length,
    parse_auth_line,
    parse_command,
)
from twisted_sendmail.smtp.mail_parameters import (
    read_mail_parameters,
    read_recipient,
)
from twisted_sendmail.smtp.redaction import MASK
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_content import SLACK, ContentIntake, too_large
from twisted_sendmail.smtp.server_conversation import ServerConversation
from twisted_sendmail.smtp.server_event import (
    AuthCancelled,
    AuthContinued,
    AuthStarted,
    ContentArrived,
    ContentEnded,
    ContentOffered,
    HelloSaid,
    Question,
    RecipientGiven,
    SenderGiven,
    TLSWanted,
    TransactionAborted,
)
from twisted_sendmail.smtp.server_offer import hello_reply, offered
from twisted_sendmail.smtp.server_order import Standing, objection
from twisted_sendmail.smtp.server_table import TABLE, ServerState

if TYPE_CHECKING:
    from twisted_sendmail.smtp.command_parser import ServerCommand

_HTTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_IDLE = frozenset({Verb.NOOP, Verb.RSET, Verb.OTHER, Verb.EHLO, Verb.HELO, Verb.LHLO})
#: Verbs of other programs and other times; what is none of them may be a password that strayed.
_KNOWN = frozenset(
    {"EXPN", "ETRN", "HELP", "SAML", "SEND", "SOML", "TURN", "VRFY", "XCLIENT", "XFORWARD"}
)
_NO_SECRET = frozenset({Verb.MAIL, Verb.RCPT, Verb.DATA})
_DEAF = frozenset({ServerState.OPENING, ServerState.HANDSHAKE, ServerState.CLOSED})


def _reply(code: int, text: str) -> Reply:
    return Reply(code, (text,))


class ServerSession(ServerConversation):
    """One connection's conversation.

    :param tls: the connection is in TLS already (port 465).
    """

    # -- decisions ------------------------------------------------------------

    def greet(self, reply: Reply | None = None) -> None:
        """Open the session; anything but 220 ends it at once."""
        what = "LMTP" if self.settings.lmtp else "ESMTP"
        reply = reply or _reply(220, f"{self.settings.host} {what}")
        if reply.code != 220:
            self.close(reply)
            return
        self._write(reply)
        self.state = TABLE[self.state, Verb.GREETING]
        if not self.settings.require_hello:
            self.state = ServerState.READY

    def answer(self, *replies: Reply) -> None:
        """Answer the open question: one reply, or in LMTP one per recipient at the end."""
        question, self._question = self._question, None
        reply = replies[0]
        if question is None or self.state is ServerState.CLOSED:
            return
        if self._chunk is not None and isinstance(question, ContentOffered):
            # BDAT has no 354: what there is to say is said behind the chunk.
            self._chunk_refusal = reply if reply.code >= 400 else None
        elif isinstance(question, ContentEnded):
            self._verdict(replies)
        elif reply.code == 421:
            self.close(reply)
        else:
            self._say(reply)
            if reply.code < 400:
                self._advance(question)
            else:
                self._refused(question)

    def refuse_content(self, reply: Reply) -> None:
        """The content on its way in is refused: the rest of it is read and dropped."""
        if self._intake is not None and self._intake.verdict is None:
            self._intake.verdict = reply

    def tls_started(self) -> None:
        """The handshake is done; what was said before it is forgotten (RFC 3207 section 4.2)."""
        self.transcript.add("--", "TLS started")
        self.tls = True
        self.authenticated = self._esmtp = False
        self.state = ServerState.GREETED
        if self._buffer.octets:
            # They came in clear: nobody knows from whom.
            self.close(_reply(554, "5.5.1 Commands behind STARTTLS are not taken"))

    # -- what answers lead to -------------------------------------------------

    def _advance(self, question: Question) -> None:
        self.state = TABLE[self.state, self._verb]
        if isinstance(question, RecipientGiven):
            self._recipients += 1
        elif isinstance(question, (AuthStarted, AuthContinued)):
            self.authenticated = True
        elif isinstance(question, ContentOffered):
            self._intake = ContentIntake(self.settings, chunked=False, binary=False)

    def _refused(self, question: Question) -> None:
        if isinstance(question, (AuthStarted, AuthContinued)):
            self.state = ServerState.READY
            self._auth_failures += 1
            if self._auth_failures >= self.settings.max_auth_failures:
                self.close(_reply(421, "4.7.0 Too many failed logins"))
        elif isinstance(question, (SenderGiven, RecipientGiven)):
            self._refusals += 1
            if self._refusals > self.settings.max_refusals:
                self.close(_reply(421, "4.7.0 Too many refused addresses"))
        elif isinstance(question, ContentOffered):
            self._abort("refused")
            self.state = ServerState.READY

    # -- commands -------------------------------------------------------------

    def _step(self) -> bool:
        """Make something of the buffer; False when there is nothing to be made."""
        if self.state in _DEAF:
            return False
        if self._complete:
            return self._ask_verdict()
        if self._chunk is not None:
            return self._read_chunk()
        if self.state is ServerState.DATA:
            return self._read_data()
        octets = self._buffer.octets
        if not octets:
            return False
        in_auth = self.state is ServerState.AUTH
        line = self._buffer.take(MAX_AUTH_LINE if in_auth else max_length(octets))
        if line is None:
            return False
        self.lines += 1
        if isinstance(line, Reply):
            self._unreadable(b"", line)
            return True
        command = parse_auth_line(line) if in_auth else parse_command(line)
        if isinstance(command, Reply):
            self._unreadable(line, command)
        else:
            # As it was written, where there is no secret in it: that costs nothing.
            shown = line if command.verb in _NO_SECRET else self._shown_command(command)
            self.transcript.add("C", shown)
            self._obey(command)
        return True

    def _shown_command(self, command: ServerCommand | AuthLine | AuthCancel) -> str:
        """What the transcript keeps of *command*, which may be a password that strayed."""
        if isinstance(command, Auth):
            self._redaction.begin(command.mechanism, command.initial)
            offered = command.mechanism in (self.settings.mechanisms or ())
            return str(command) if offered else f"AUTH {MASK}"
        if isinstance(command, AuthLine):
            self._redaction.response(command.response)
        if isinstance(command, OtherCommand):
            if command.name not in _HTTP | _KNOWN:
                return "(no command)"
            return f"{command.name} {MASK}" if command.argument else command.name
        return str(command)

    def _unreadable(self, line: bytes, reply: Reply) -> None:
        verb = line.split(b" ", 1)[0].upper()
        if self.state is ServerState.AUTH:
            self.state = ServerState.READY
            self._events.append(AuthCancelled())
            verb = b""
        # It may be a password that strayed: only a verb we know is shown.
        known = verb.isalpha() and verb.decode() in Verb.__members__
        self.transcript.add("C", f"{verb.decode()} {MASK}" if known else "(no command)")
        self._error(reply)
        if verb == b"BDAT":
            # Where its chunk ends nobody knows: what follows must not be read as commands.
            self.close(_reply(421, "4.5.2 Cannot go on behind this BDAT"))

    def _obey(self, command: ServerCommand | AuthLine | AuthCancel) -> None:
        verb = self._verb = command.verb
        if verb in _IDLE:
            self._idle += 1
            if self._idle > self.settings.max_idle_commands:
                self.close(_reply(421, "4.7.0 Too many commands without a message"))
                return
        if isinstance(command, AuthCancel):
            self.state = ServerState.READY
            self._events.append(AuthCancelled())
            self._error(_reply(501, "5.7.0 Authentication cancelled"))
            return
        if isinstance(command, AuthLine):
            self._events.append(AuthContinued(command.response))
            return
        standing = Standing(self.state, self.tls, self.authenticated, self._esmtp)
        refusal = objection(self.settings, standing, command)
        if isinstance(command, Bdat):
            self._bdat(command, refusal)
        elif refusal is not None:
            self._error(refusal)
        elif verb is Verb.STARTTLS:
            self._starttls()
        else:
            self._DO[verb](self, command)

    def _idle_command(self, command: Command) -> None:
        if command.verb is Verb.RSET:
            self._abort("RSET")
        self.state = TABLE[self.state, command.verb]
        self._say(_reply(250, "2.0.0 Ok"))

    def _quit(self, command: Quit) -> None:
        self.close(_reply(221, f"2.0.0 {self.settings.host} closing"))

    def _auth(self, command: Auth) -> None:
        self._events.append(AuthStarted(command.mechanism, command.initial))

    def _data(self, command: Data) -> None:
        if self._parameters.body == "BINARYMIME":
            self._error(_reply(503, "5.5.1 BODY=BINARYMIME needs BDAT"))
        else:
            self._events.append(ContentOffered())

    def _hello(self, command: Hello) -> None:
        verb = command.verb
        self._abort(verb.value)
        self.state = TABLE[self.state, verb]
        self._esmtp = verb is not Verb.HELO
        self._words = None
        host = self.settings.host
        self._write(hello_reply(self.settings, tls=self.tls) if self._esmtp else _reply(250, host))
        self._events.append(HelloSaid(command.domain, verb))

    def _starttls(self) -> None:
        if self._buffer.octets:
            # RFC 3207 section 4: nothing may follow it before the handshake.
            self.close(_reply(554, "5.5.1 Commands behind STARTTLS are not taken"))
            return
        self._say(_reply(220, "2.0.0 Go ahead"))
        self.state = TABLE[self.state, Verb.STARTTLS]
        self._events.append(TLSWanted())

    def _offered(self) -> dict[str, str]:
        """What was said in reply to EHLO, for MAIL and RCPT to be held against."""
        if self._words is None:
            self._words = offered(self.settings, tls=self.tls) if self._esmtp else {}
        return self._words

    def _mail(self, command: Mail) -> None:
        limit = self.settings.max_messages
        if limit is not None and self._messages >= limit:
            self.close(_reply(421, "4.7.0 Too many messages in this session"))
            return
        parameters = read_mail_parameters(command, self._offered())
        if isinstance(parameters, Reply):
            self._error(parameters)
        elif parameters.size is not None and parameters.size > self.settings.max_size:
            self._say(too_large(self.settings))
        else:
            self._parameters = parameters
            self._events.append(SenderGiven(command.sender, parameters))

    def _rcpt(self, command: Rcpt) -> None:
        recipient = read_recipient(command, self._offered(), smtputf8=self._parameters.smtputf8)
        if isinstance(recipient, Reply):
            self._error(recipient)
        elif self._recipients >= self.settings.max_recipients:
            self._say(_reply(452, "4.5.3 Too many recipients"))
        else:
            self._events.append(RecipientGiven(recipient))

    def _other(self, command: OtherCommand) -> None:
        name = command.name
        if name in _HTTP:
            self.close(_reply(421, "4.7.0 This is SMTP, not HTTP"))
        elif name == "VRFY":
            self._say(_reply(252, "2.5.2 Send some mail, and see"))
        elif name == "HELP":
            self._say(_reply(214, "2.0.0 See RFC 5321"))
        else:
            self._error(_reply(502, "5.5.1 Command not implemented"))

    # -- content --------------------------------------------------------------

    def _keep(self, content: bytes) -> None:
        if content:
            self._events.append(ContentArrived(content))

    def _read_data(self) -> bool:
        intake = self._intake
        if intake is None or not self._buffer.octets:
            return False
        content, rest = intake.feed(bytes(self._buffer.octets))
        self._buffer.octets = bytearray(rest or b"")
        self._keep(content)
        if rest is not None:
            self._keep(intake.finish())
            self._complete = True
        if intake.endless:
            self.close(too_large(self.settings))
        return True

    def _bdat(self, command: Bdat, refusal: Reply | None) -> None:
        if refusal is None and self.state is ServerState.RCPT:
            binary = self._parameters.body == "BINARYMIME"
            self._intake = ContentIntake(self.settings, chunked=True, binary=binary)
            self._events.append(ContentOffered())
        # In order or not, its octets follow, and are never commands.
        self._chunk, self._chunk_refusal = command.size, refusal
        if refusal is None and self._intake is not None:
            self._intake.chunks += 1
        size = command.size + (0 if self._intake is None else self._intake.size)
        if size > 2 * self.settings.max_size + SLACK:
            self._events.clear()
            self.close(too_large(self.settings))

    def _read_chunk(self) -> bool:
        intake = self._intake
        if self._chunk:
            data = bytes(self._buffer.octets[: self._chunk])
            del self._buffer.octets[: len(data)]
            self._chunk -= len(data)
            if intake is not None and self._chunk_refusal is None:
                self._keep(intake.feed(data)[0])
            return bool(data)
        self._chunk = None
        refusal, self._chunk_refusal = self._chunk_refusal, None
        if refusal is not None or intake is None:
            self._error(refusal or _reply(503, "5.5.1 No transaction"))
            if intake is not None:
                self._abort("refused")
                self.state = ServerState.READY
        elif self._verb is Verb.BDAT_LAST:
            self._keep(intake.finish())
            self._complete = True
        elif (refusal := intake.refusal()) is not None:
            self._say(refusal)
            self._abort("refused")
            self.state = ServerState.READY
        else:
            self._say(_reply(250, f"2.0.0 {intake.size} octets so far"))
            self.state = TABLE[self.state, Verb.BDAT]
        return True

    def _ask_verdict(self) -> bool:
        intake = self._intake
        if intake is None:
            return False
        self._complete = False
        self._verb = Verb.CONTENT
        self.transcript.add("--", f"content of {intake.size} octets")
        refusal = intake.refusal()
        if refusal is None:
            self._events.append(ContentEnded(intake.size))
            return True
        self._events.append(TransactionAborted("refused"))
        self._verdict((refusal,))
        return True

    _DO: ClassVar[dict[Verb, Callable[[Any, Any], None]]] = {
        Verb.EHLO: _hello,
        Verb.HELO: _hello,
        Verb.LHLO: _hello,
        Verb.AUTH: _auth,
        Verb.MAIL: _mail,
        Verb.RCPT: _rcpt,
        Verb.DATA: _data,
        Verb.RSET: _idle_command,
        Verb.NOOP: _idle_command,
        Verb.QUIT: _quit,
        Verb.OTHER: _other,
    }
