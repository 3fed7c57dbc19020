"""The client's side of one SMTP session: what may be said, and what a reply means.

A machine without I/O.  Commands go in (:meth:`ClientSession.send`), bytes for the
server come out (:meth:`~ClientSession.data_to_send`); bytes from the server go in
(:meth:`~ClientSession.receive`), events come out (:attr:`~ClientSession.events`).

It walks the FIFO of ``client_queue`` by the table in ``client_table``.  The cursor
*confirmed* moves when a reply is read; *hoped* moves when a command is written, as if
it will succeed, and decides what may be written behind it.  Pipelining is thus a
property of the session.  A group of commands is written and heard as a whole as long
as all goes well (``command_group``).

It owns the answers to what a hostile server does with the order of replies, too:
one nobody waits for, one behind the 220 to STARTTLS, one before the content ended.

It does not encrypt, time out, or decide what to say next.

RFC 5321, RFC 2920 (PIPELINING), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3030 (BDAT).
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.capabilities import Capabilities
from twisted_sendmail.smtp.client_faults import (
    answers_content,
    in_doubt,
    meaning,
    not_allowed,
    starttls_injected,
    too_early,
    unasked,
)
from twisted_sendmail.smtp.client_queue import (
    WINDOW_COMMANDS,
    WINDOW_OCTETS,
    ClientQueue,
    Event,
    one_by_one,
)
from twisted_sendmail.smtp.client_states import (
    ENDS_GROUP,
    HOPES,
    TABLE,
    ClientState,
    ReplyKind,
    kind_of,
)
from twisted_sendmail.smtp.command_group import CommandGroup, WholeContent
from twisted_sendmail.smtp.commands import Auth, AuthLine, Content, Verb
from twisted_sendmail.smtp.data_encoding import DotStuffer
from twisted_sendmail.smtp.errors import (
    CommandNotAllowed,
    ConnectionClosed,
    SendmailError,
    ServiceClosing,
    UnexpectedResponse,
)
from twisted_sendmail.smtp.redaction import Challenge, Redaction
from twisted_sendmail.smtp.reply_parser import ReplyParser
from twisted_sendmail.smtp.transcript import Transcript

if TYPE_CHECKING:
    from twisted_sendmail.smtp.command_group import Entry
    from twisted_sendmail.smtp.commands import Command
    from twisted_sendmail.smtp.reply import Reply

_HELLO = frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO})
_AUTH = frozenset({Verb.AUTH, Verb.AUTH_LINE})
#: Their replies belong to a SASL exchange.
_EXCHANGE = _AUTH | {Verb.AUTH_CANCEL}
_CHUNKS = frozenset({Verb.BDAT, Verb.BDAT_LAST})
#: A line that is not the last of its reply.
_CONTINUED = re.compile(rb"^\d{3}-", re.MULTILINE)
_CONTENT = Content()


class ClientSession(ClientQueue):
    """One session, from the greeting to its end; not used twice."""

    def __init__(self, greeting_tag: object = None, transcript: Transcript | None = None) -> None:
        super().__init__(greeting_tag)
        self._out: list[bytes] = []
        self._parser = ReplyParser()
        self._stuffer: DotStuffer | None = None
        #: What the server offers; forgotten at STARTTLS.
        self.capabilities = Capabilities()
        #: What it offered before TLS: to show and to compare, never to act on.
        self.offered_in_clear = Capabilities()
        # After a 421: the server may have done what was written after the command it answered.
        self._went_on = False
        #: Commands may follow the final dot of DATA before its reply.  RFC 2920 allows it, but
        #: there are servers that lose them.
        self.pipelines_after_data = False
        #: TLS is on.
        self.secured = False
        #: AUTH succeeded.
        self.authenticated = False
        self.transcript = transcript if transcript is not None else Transcript()
        self._content_octets = 0
        # What a server may not be quoted with: it may echo what we sent in AUTH.
        self._redaction = Redaction()

    # -- out -----------------------------------------------------------------

    def content(self, chunk: bytes) -> None:
        """Queue a piece of the content after a 354; it is dot-stuffed here.

        :param chunk: canonical octets (every line ends with CRLF), cut anywhere.
        """
        if self._stuffer is None:
            msg = "content cannot be sent now"
            raise CommandNotAllowed(msg, detail=f"the session is {self.confirmed.value}")
        self._content_octets += len(chunk)
        self._out.append(self._stuffer.feed(chunk))

    def end_content(self) -> None:
        """Queue the final dot.  From here on the message is in doubt until its reply."""
        if self._stuffer is None:
            msg = "the end of the content cannot be sent now"
            raise CommandNotAllowed(msg, detail=f"the session is {self.confirmed.value}")
        self._out.append(self._stuffer.finish())
        self._stuffer = None
        self.transcript.add("--", f"{self._content_octets} octets of content")
        self.transcript.add("C", ".")

    def send_content(self, content: bytes, tag: object) -> None:
        """Queue the whole content after a 354, and its end; *content* is canonical.

        :raises CommandNotAllowed: the server does not wait for it.
        """
        if self.confirmed is not ClientState.DATA or not self.idle or self.closing:
            raise not_allowed(_CONTENT, self.confirmed)
        stuffer = DotStuffer()
        self._out += (stuffer.feed(content), stuffer.finish())
        self._owe(WholeContent(tag))
        self.hoped = self._planned = ClientState.READY
        self.transcript.add_content(len(content))

    @property
    def content_open(self) -> bool:
        """A 354 came, content may be given, and its end was not given yet."""
        return self._stuffer is not None

    def data_to_send(self) -> bytes:
        """Take all that may be written now, for one write to the transport."""
        while self._waiting and self._may_write:
            if not self._owed and self._parser.pending:
                # Whatever that becomes, it is no answer to what we would say now.
                self.finish(unasked(None))
                return b""
            first = self._waiting[0]
            if not (
                self._write_group(first)
                if isinstance(first, CommandGroup)
                else self._write_command(first)
            ):
                break
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    @property
    def _may_write(self) -> bool:
        """Another command may be written, in spite of the replies that are owed."""
        if self._stuffer is not None or self.closing is not None:
            return False
        if not self._owed:
            return True
        last = self._owed[-1].verb
        return self.capabilities.pipelining and (
            last not in ENDS_GROUP or (last is Verb.CONTENT and self.pipelines_after_data)
        )

    def _window_takes(self, commands: int, octets: int) -> bool:
        """So many more commands may be unanswered; one alone always may."""
        return not self._owed or (
            self._owed_commands + commands <= WINDOW_COMMANDS
            and self._owed_octets + octets <= WINDOW_OCTETS
        )

    def _write_group(self, group: CommandGroup) -> bool:
        """Write the first of what waits, or take it apart; False if it has to wait."""
        if not (
            self.hoped is group.stands
            and self.capabilities.pipelining
            and group.size <= WINDOW_COMMANDS
            and group.octets <= WINDOW_OCTETS
        ):
            self._waiting.popleft()
            self._waiting.extendleft(reversed(group.entries()))
            return True
        if not self._window_takes(group.size, group.octets):
            return False
        self._waiting.popleft()
        self._owe(group)
        self._out.append(group.wire)
        payload = group.payload
        self.hoped = group.leads
        if payload:
            self._out.append(payload)
        self.transcript.add_group(group.wire, len(payload) if payload else 0)
        return True

    def _write_command(self, entry: Entry) -> bool:
        """Write the first of what waits, or drop it if nobody can want it; False if it has to wait."""
        line = b"" if entry.verb is Verb.CONTENT else entry.command.line()
        # Chunks are held back by the transport, and their number by nothing else.
        if entry.verb not in _CHUNKS and not self._window_takes(1, len(line)):
            return False
        self._waiting.popleft()
        hoped = HOPES.get((self.hoped, entry.verb))
        if hoped is None:
            # Something before it was refused.
            self.events.append(
                Event(entry.command, entry.tag, not_allowed(entry.command, self.hoped))
            )
            self._resume_plan()
            return True
        self.hoped = hoped
        entry.octets = len(line)
        self._owe(entry)
        if entry.verb is Verb.CONTENT:
            self._stuffer = DotStuffer()
            self._content_octets = 0
            return True
        self._out.append(line)
        if entry.verb in _AUTH:
            self._conceal_line(entry.command)
            self.transcript.add("C", str(entry.command))
        else:
            self.transcript.add("C", line[:-2])
        if entry.payload:
            self.transcript.add("--", f"{len(entry.payload)} octets of content")
            self._out.append(entry.payload)
        return True

    # -- in ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the server; what they mean is in :attr:`events` and :attr:`over`."""
        if self.over:
            return
        # Looked for once in all that came, not in each line of it.
        masking = bool(self._redaction) and self._may_quote(data)
        replies = self._parser.feed(data)
        i, end = 0, len(replies)
        while i < end:
            first = self._owed[0] if self._owed else None
            if isinstance(first, CommandGroup):
                answers = replies[i : i + first.size]
                if not masking and self._group_heard(first, answers):
                    i += first.size
                    continue
            reply = heard = replies[i]
            i += 1
            if masking or heard.code == 334 or (first is not None and first.verb in _EXCHANGE):
                reply = self._shown(first, heard)
            self.transcript.add_reply(reply)
            more = i < end or self._parser.pending or self._parser.breach is not None
            self._reply(reply, heard, more_behind=more)
            if self.over:
                return
        if self._parser.breach:
            self.finish(self._parser.breach)
        elif self._parser.pending:
            self._begun()

    def _may_quote(self, data: bytes) -> bool:
        """May a reply in *data* quote a secret?

        It may have begun in what came before, or be spread over the lines of one reply.
        """
        return (
            self._parser.pending
            or _CONTINUED.search(data) is not None
            or self._redaction.concerns(data)
        )

    def _shown(self, owed: Entry | CommandGroup | None, heard: Reply) -> Reply:
        """What may be shown of *heard*, the reply to *owed*."""
        if owed is not None and owed.verb in _EXCHANGE:
            return self._redaction.in_exchange(heard)
        return self._redaction.reply(heard)

    def _group_heard(self, group: CommandGroup, answers: list[Reply]) -> bool:
        """Take *answers* for *group*, if that is what they are and all is well."""
        if self.confirmed is not group.stands or self.closing or not group.succeeded(answers):
            return False
        self.transcript.add_replies(answers)
        self._advance(group.leads)
        self.events.append(Event(group, group.tag, answers))
        return True

    def _begun(self) -> None:
        """Half a reply came: was it asked for?"""
        if not self._owed:
            if not self._parser.may_be(b"421"):
                self.finish(unasked(None))
        elif self._stuffer is not None and not self._parser.begins_refusal:
            # Completed behind our final dot it would pass for the verdict.
            self.finish(too_early(None))

    @property
    def redaction(self) -> Redaction:
        """What may not be shown of this connection."""
        return self._redaction

    def _conceal_line(self, command: Command) -> None:
        if isinstance(command, Auth):
            self._redaction.begin(command.mechanism, command.initial)
        elif isinstance(command, AuthLine):
            self._redaction.response(command.response)
        # A line that is no reply may be half of a secret: it is not quoted from here on.
        self._parser.quoting = False

    def _reply(self, reply: Reply, heard: Reply, *, more_behind: bool) -> None:
        """Act on *reply*; *heard* is the same with the secrets still in it."""
        if reply.code == 421 and self.closing is None and self._closes(reply):
            return
        if not self._owed:
            self.finish(unasked(reply))
            return
        entry = self._first_owed()
        verb = entry.verb
        kind = kind_of(verb, reply.code)
        following = TABLE.get((self.confirmed, verb, kind))
        if following is None:
            self.finish(
                UnexpectedResponse(f"{entry.command} not understood", phase=verb.value, reply=reply)
            )
            return
        if verb is Verb.CONTENT and self._stuffer is not None:
            self._early(entry, reply, kind)
            return
        if more_behind and following is ClientState.HANDSHAKE:
            self.finish(starttls_injected())  # RFC 3207: nothing may follow
            return
        before = self._advance(following)
        if kind is ReplyKind.YES:
            self._learn(verb, reply)
        if kind is ReplyKind.MORE and verb in _AUTH:
            # The mechanism needs it as it is.
            reply = Challenge(*heard)
            self._conceal_challenge(heard)
        refused = kind is ReplyKind.NO
        result = meaning(entry.command, reply, before, self.closing) if refused else reply
        self.events.append(Event(entry.command, entry.tag, result))
        if self.closing is not None:
            self._went_on = self._went_on or reply.code != 421
            if not any(self._ends_owed()):
                self.finish(self.closing)

    def _conceal_challenge(self, challenge: Reply) -> None:
        text = "".join(challenge.lines).encode("utf-8", "replace")
        try:
            decoded = b64decode(text, validate=True)
        except ValueError:
            decoded = b""
        self._redaction.challenge(text, decoded)

    def _closes(self, reply: Reply) -> bool:
        """Note a 421; True if it ends the session at once.

        In answer to the end of a content it refuses that message for now, and says nothing of
        the messages after it.  In answer to anything else it says that nothing after it is done.
        """
        self.closing = ServiceClosing("connection closed", phase=self._phase(), reply=reply)
        self.closing.transcript = self.transcript
        ends = self._ends_owed()
        if ends and ends[0]:
            self._went_on = answers_content(self._first_owed().verb, self.confirmed)
        if any(ends):
            return False  # a server that does not close as it says may take a message
        self.finish(self.closing)
        return True

    def _ends_owed(self) -> list[bool]:
        """For each command whose reply is owed: is it the end of a content?"""
        return list(map(self._is_end, one_by_one(self._owed)))

    def _is_end(self, entry: Entry) -> bool:
        return entry.verb is Verb.BDAT_LAST or (
            entry.verb is Verb.CONTENT and self._stuffer is None
        )

    def _learn(self, verb: Verb, reply: Reply) -> None:
        """What a success changes besides the state."""
        if verb in _HELLO:
            helo = verb is Verb.HELO
            self.capabilities = Capabilities() if helo else Capabilities.from_reply(reply)
        elif verb in _AUTH:
            self.authenticated = True

    def _early(self, entry: Entry, reply: Reply, kind: ReplyKind) -> None:
        """A reply while the content is still on its way (RFC 5321 section 4.2.5 knows none)."""
        if kind is not ReplyKind.NO:
            self.finish(too_early(reply))
            return
        # A refusal is believed; but a dot would deliver what was sent so far.
        self._answered()
        self._stuffer = None
        self.events.append(Event(entry.command, entry.tag, reply))
        self.finish(ConnectionClosed("content broken off", phase="content", reply=reply))

    def begin_tls(self) -> None:
        """The handshake begins: nothing said before it counts (RFC 3207 section 4.2)."""
        self._parser = ReplyParser()
        self._parser.quoting = not self._redaction
        self.offered_in_clear, self.capabilities = self.capabilities, Capabilities()
        self.authenticated = False

    def tls_begun(self, note: str) -> None:
        """The handshake is complete; *note* describes it in the transcript."""
        self.secured = True
        self.transcript.add("--", note)
        if self.confirmed is ClientState.HANDSHAKE:
            self.confirmed = self.hoped = ClientState.SECURED
            self._resume_plan()

    def withhold(self, *keywords: str) -> None:
        """Treat *keywords* as not offered (a server known to get them wrong)."""
        self.capabilities = self.capabilities.without(*keywords)

    # -- the end -------------------------------------------------------------

    def finish(self, why: SendmailError, *, by_server: bool = False) -> None:
        """End the session: every command without a reply gets an event that says *why*.

        A message whose end was written and whose reply is owed is in doubt.  But what is owed
        after a 421 to a command was not done if the server then closed, as it has to (RFC 5321
        section 3.8).

        :param by_server: it is the server that ended it.
        """
        if self.over:
            return
        closed = by_server and self.closing is not None and not self._went_on
        why = (closed and self.closing) or why
        self.over = why
        why.transcript = self.transcript
        why.detail = self._redaction.text(why.detail)
        why.phase = why.phase or self._phase()
        ended = self.confirmed is ClientState.QUIT and not self._owed
        self.transcript.add("--", "connection closed" if ended else str(why))
        for entry in one_by_one(self._owed):
            doubtful = self._is_end(entry) and not closed
            self.events.append(Event(entry.command, entry.tag, in_doubt(why) if doubtful else why))
        for entry in one_by_one(self._waiting):
            self.events.append(Event(entry.command, entry.tag, why))
        self._owed.clear()
        self._waiting.clear()
        self._out.clear()
        self._stuffer = None
        self.confirmed = self.hoped = self._planned = ClientState.CLOSED
