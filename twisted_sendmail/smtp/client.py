"""The client's side of an SMTP session: which commands may be sent, and what a reply means.

**Theory of operation.**

:class:`ClientSession` does no I/O.  Groups of commands go in (:meth:`ClientSession.send`), bytes
for the server come out (:meth:`~ClientSession.data_to_send`); bytes from the server go in
(:meth:`~ClientSession.receive`), groups that are complete come out
(:attr:`~ClientSession.completed`)::

    group = session.send(Mail(sender), Rcpt(recipient), Data())
    sock.sendall(session.data_to_send())        # the three lines in one piece, with PIPELINING
    session.receive(sock.recv(65536))
    session.completed.popleft().replies         # [250, 250, 354]

**Queue.**  Replies come in the order of the commands, so the session is a FIFO of
:class:`CommandGroup`.  A single command is a group of one.  Of each group some commands are
answered, some are written and their replies are *owed*, and some wait to be written.  A group
is complete when every command has a result: its reply, be it a refusal, or the error of a
command that gets no reply.

**Table.**  ``client_states.CLIENT_TABLE`` maps state × (command, kind of reply) to the next state.  A
reply that the table does not hold is a breach of protocol and ends the session.  Three cursors
move over the table: *confirmed* when a reply is read; *optimistic* when a command is written,
assuming that the command succeeds; *planned* when a command is given.  The optimistic cursor
decides what may be written next, and the planned one what may be given.

**Writing.**  Without PIPELINING one command is written at a time.  With PIPELINING a group is
written in one piece, up to a command that ends a group (RFC 2920 section 3.1), and no more than
:data:`WINDOW_COMMANDS` commands and :data:`WINDOW_OCTETS` octets are unanswered.  A command that
was given, and whose state is not reached because an earlier command was refused, is not written:
its result is :class:`~twisted_sendmail.smtp.errors.CommandNotAllowed`.

**Invariants.**  The session ends (:attr:`~ClientSession.over`)

- at a reply, or a part of one, that no command waits for; a 421 announces the end of the connection;
- at any octet after the 220 to STARTTLS, before the handshake;
- at a positive reply to a content that is not complete.

After the end every command has a result, and nothing is written.  A message whose end was
written and whose reply is owed is *in doubt*.  Capabilities are forgotten at STARTTLS.  Secrets
are in no transcript, error or result, except that the challenges of AUTH are passed on.

The session does not encrypt, keep time or decide what to send next.

RFC 5321, RFC 2920 (PIPELINING), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3030 (BDAT).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter, itemgetter, methodcaller
from typing import TYPE_CHECKING, TypeAlias

from twisted_sendmail.smtp.arguments import check_callable, check_type
from twisted_sendmail.smtp.capabilities import NO_CAPABILITIES, Capabilities
from twisted_sendmail.smtp.client_states import (
    ENDS_GROUP,
    OPTIMISTIC,
    ClientState,
    ReplyKind,
    in_one_piece,
    transition,
)
from twisted_sendmail.smtp.commands import Auth, AuthLine, Command, Greeting, Verb
from twisted_sendmail.smtp.data_encoding import DotStuffer
from twisted_sendmail.smtp.errors import (
    ChunkingFailure,
    CommandNotAllowed,
    ConnectionClosed,
    DeliveryInDoubt,
    DeliveryWithdrawn,
    ProtocolBreach,
    SendmailError,
    ServiceClosing,
    UnexpectedResponse,
)
from twisted_sendmail.smtp.extensions import extended_table
from twisted_sendmail.smtp.redaction import Challenge, Redaction
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.reply_meaning import UNKNOWN_COMMAND
from twisted_sendmail.smtp.reply_parser import ReplyParser
from twisted_sendmail.smtp.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted_sendmail.smtp.extensions import Extension

#: The result of a command: its reply, or why there is none.
CommandResult: TypeAlias = Reply | SendmailError

#: Commands that may be unanswered at once on a connection with PIPELINING.  Haraka processes
#: the commands it has received in one recursion: 3.0.3 on Node.js 20 runs out of stack and
#: stalls at 455 unanswered RCPT with one plugin, at 159 with eleven, whatever their octets.
WINDOW_COMMANDS = 144
#: Octets of such commands: the receive buffer of most servers is larger, so that neither side
#: waits for the other to read (RFC 2920 section 3.1).
WINDOW_OCTETS = 16 * 1024
# A window that was full is refilled when a quarter of it is free: not line by line.
_REFILL_COMMANDS = WINDOW_COMMANDS * 3 // 4
_REFILL_OCTETS = WINDOW_OCTETS * 3 // 4

# Looking up a member of an Enum takes longer than a step of the table.
_YES = ReplyKind.YES
_CONTENT, _BDAT_LAST = Verb.CONTENT, Verb.BDAT_LAST

# Getters for the commands of a group, and for replies that came together.
_VERB, _LINE, _CODE = attrgetter("verb"), methodcaller("line"), itemgetter(0)

_HELLO = frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO})
_AUTH = frozenset({Verb.AUTH, Verb.AUTH_LINE})
# Verbs whose success changes more than the state.
_TELLING = _HELLO | _AUTH | {Verb.STARTTLS, Verb.RESTART}
# Verbs whose replies belong to a SASL exchange.
_EXCHANGE = _AUTH | {Verb.AUTH_CANCEL}
# The transport's back-pressure bounds chunks; the window does not.
_CHUNKS = frozenset({Verb.BDAT, Verb.BDAT_LAST})
# A line that is not the last of its reply.
_CONTINUED = re.compile(rb"\n\d{3}-")


class CommandGroup:
    """Commands that are sent together, and their results.

    :param commands: one at least.
    :param payload: the octets after the last line: the chunk of a BDAT, or the whole content
        after a 354, canonical and not stuffed.  A content without payload is given by
        :meth:`ClientSession.content`.
    :param done: called by the session's owner with :attr:`replies` when the group is complete.
    :param may_end: called each time before the end of a message is written, in the call that writes it;
        if it returns False, the end is not written, and its result is
        :class:`~twisted_sendmail.smtp.errors.DeliveryWithdrawn`.
    """

    __slots__ = (
        "commands",
        "done",
        "lines",
        "may_end",
        "owed_octets",
        "payload",
        "replies",
        "verbs",
        "written",
    )

    def __init__(
        self,
        commands: Sequence[Command],
        payload: bytes | None = None,
        done: Callable[[list[CommandResult]], object] | None = None,
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        self.commands = commands
        self.payload = payload
        self.done = done
        self.may_end = may_end
        self.verbs = tuple(map(_VERB, commands))
        self.lines = list(map(_LINE, commands))
        #: How many commands were written, or will not be written.
        self.written = 0
        #: Octets of the lines whose replies are owed.
        self.owed_octets = 0
        #: The results so far, in the order of the commands.
        self.replies: list[CommandResult] = []

    @property
    def complete(self) -> bool:
        """True if every command has a result."""
        return len(self.replies) == len(self.commands)


class ClientSession:
    """One session, from the greeting to its end; not used twice.

    :param greeted: called by the session's owner with the greeting.
    :param extensions: those of an application; the package's own are always there.
    """

    def __init__(
        self,
        transcript: Transcript | None = None,
        greeted: Callable[[list[CommandResult]], object] | None = None,
        extensions: Iterable[Extension] = (),
    ) -> None:
        if transcript is not None:
            check_type("transcript", transcript, Transcript, "a Transcript, or None")
        if greeted is not None:
            check_callable("greeted", greeted, "a function of the results, or None")
        #: The parameters and commands of extensions, for those who make commands.
        self.extensions = extended_table(extensions)
        #: The state that the replies have led to.
        self.confirmed = ClientState.CONNECTED
        #: The state that the commands written so far lead to if all succeed.
        self.optimistic = ClientState.CONNECTED
        # ... and the commands that wait to be written, too.
        self._planned = ClientState.GREETED
        #: The group of the greeting, which answers no command.
        self.greeting = CommandGroup((Greeting(),), done=greeted)
        self.greeting.written = 1
        # Groups with replies owed, and groups with commands that are not written; in order.
        self._owed: deque[CommandGroup] = deque([self.greeting])
        self._waiting: deque[CommandGroup] = deque()
        # How many commands were written, and the octets of the lines whose replies are owed.
        self._written, self._owed_octets = 1, 0
        self._last_written = Verb.GREETING
        #: How many replies were read; it stays the same while one reply is awaited.
        self.turn = 0
        #: Groups that are complete, oldest first; take them off with ``popleft()``.
        self.completed: deque[CommandGroup] = deque()
        #: Why the session is over; nothing is written or read any more.
        self.over: SendmailError | None = None
        #: The error of a 421: nothing more is written, and owed replies may come yet.
        self.closing: ServiceClosing | None = None
        # After a 421: the server may have done what was written after the command it answered.
        self._went_on = False
        #: Extensions that the server offers; forgotten at STARTTLS.
        self.capabilities: Capabilities = NO_CAPABILITIES
        #: Extensions that it offered before TLS: to show and to compare, never to act on.
        self.offered_in_clear = NO_CAPABILITIES
        #: TLS is on.
        self.secured = False
        #: AUTH succeeded.
        self.authenticated = False
        #: Commands may follow the final dot of DATA before its reply.  RFC 2920 allows
        #: that, but there are servers that lose them.
        self.pipelines_after_data = False
        self.transcript = transcript if transcript is not None else Transcript()
        #: Secrets of this connection that may not be shown: a server may echo octets of AUTH.
        self.redaction = Redaction()
        self._parser = ReplyParser()
        # Replies that came together.
        self._arrived: list[Reply] = []
        self._out: list[bytes] = []
        # While a content is given piece by piece.
        self._stuffer: DotStuffer | None = None
        self._content_octets = 0

    # -- commands --------------------------------------------------------------------------

    def send(
        self,
        *commands: Command,
        payload: bytes | None = None,
        done: Callable[[list[CommandResult]], object] | None = None,
        may_end: Callable[[], bool] | None = None,
    ) -> CommandGroup:
        """Queue *commands* as a group, whose parameters are those of :class:`CommandGroup`.

        :raises SendmailError: see :meth:`send_group`.
        """
        group = CommandGroup(commands, payload, done, may_end)
        self.send_group(group)
        return group

    def send_group(self, group: CommandGroup) -> None:
        """Queue *group*.

        :raises CommandNotAllowed: a command does not fit even if all before it succeed; nothing
            is queued.
        :raises SendmailError: the session is over, and why.
        """
        if self.over is not None or self.closing is not None:
            raise self.over or self.closing  # type: ignore[misc]  # one of them is there
        verbs, state, end = group.verbs, self._planned, 0
        while end < len(verbs):
            count, state = in_one_piece(state, verbs[end : end + WINDOW_COMMANDS])
            if not count:
                raise not_allowed(group.commands[end], state)
            end += count
        self._planned = state
        self._waiting.append(group)

    def withdraw(self, group: CommandGroup) -> bool:
        """Take *group* back; False if some of it was written."""
        if group.written or group not in self._waiting:
            return False
        self._waiting.remove(group)
        self._replan()
        return True

    def content(self, chunk: bytes) -> None:
        """Queue a piece of the content after a 354, to be dot-stuffed.

        :param chunk: canonical octets (every line ends with CRLF), cut anywhere.
        """
        if self._stuffer is None:
            msg = "content cannot be sent now"
            raise CommandNotAllowed(msg, detail=f"the session is {self.confirmed.value}")
        self._content_octets += len(chunk)
        self._out.append(self._stuffer.feed(chunk))

    def end_content(self) -> None:
        """Queue the final dot.  From here on the message is in doubt until its reply.

        If the message may not end, the session ends: after a 354 any end delivers a message.
        """
        if self._stuffer is None:
            msg = "the end of the content cannot be sent now"
            raise CommandNotAllowed(msg, detail=f"the session is {self.confirmed.value}")
        may_end = self._owed[0].may_end
        if may_end is not None and not may_end():
            self.finish(_withdrawn())
            return
        self._out.append(self._stuffer.finish())
        self._stuffer = None
        self.transcript.add_content(self._content_octets)

    @property
    def content_open(self) -> bool:
        """True if content may be given: a 354 came, and the end was not given yet."""
        return self._stuffer is not None

    @property
    def idle(self) -> bool:
        """True if nothing is owed and nothing waits to be written."""
        return not self._owed and not self._waiting

    @property
    def next_flight(self) -> bool:
        """True if commands wait to be written and no reply is owed."""
        if self.confirmed is ClientState.UNWELCOME:
            return False  # they are not written
        return not self._owed and bool(self._waiting)

    @property
    def owed(self) -> Command | None:
        """The command whose reply comes next."""
        return self._owed[0].commands[len(self._owed[0].replies)] if self._owed else None

    @property
    def owed_verb(self) -> Verb | None:
        """The verb of the command whose reply comes next."""
        return self._owed[0].verbs[len(self._owed[0].replies)] if self._owed else None

    @property
    def reply_pending(self) -> bool:
        """True if a part of the next reply has come, and its last line has not."""
        return self._parser.pending

    def data_to_send(self) -> bytes:
        """Take all that may be written now, for one write to the transport."""
        while self._waiting and self._may_write():
            if not self._owed and self._parser.pending:
                # A reply that began before a command was written does not answer that command.
                self.finish(_unsolicited(None))
                return b""
            if not self._write(self._waiting[0]):
                break
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def _may_write(self) -> bool:
        """Return True if another command may follow the commands whose replies are owed."""
        if self._stuffer is not None or self.closing is not None:
            return False
        if not self._owed:
            return True
        last = self._last_written
        return self.capabilities.pipelining and (
            last not in ENDS_GROUP or (last is _CONTENT and self.pipelines_after_data)
        )

    def _write(self, group: CommandGroup) -> bool:
        """Write as much of *group* as is allowed; False if the rest has to wait."""
        start = group.written
        verbs = group.verbs[
            start : start + (WINDOW_COMMANDS if self.capabilities.pipelining else 1)
        ]
        count, state = in_one_piece(self.optimistic, verbs)
        lines = group.lines[start : start + count]
        wire = b"".join(lines)
        octets = self._owed_octets + len(wire)
        if octets > _REFILL_OCTETS or self._owed_commands + count > _REFILL_COMMANDS:
            allowed = self._count_in_window(verbs, lines)
            if allowed < count:
                count, state = in_one_piece(self.optimistic, verbs[:allowed])
                wire = b"".join(lines[:allowed])
                octets = self._owed_octets + len(wire)
        if not count:
            if self._owed:
                return False
            self._drop_next(group)
            return True
        last = verbs[count - 1]
        if last is _BDAT_LAST and group.may_end is not None and not group.may_end():
            return self._withdraw_rest(group)
        if start == len(group.replies):
            self._owed.append(group)
        self.optimistic, self._last_written = state, last
        self._written += count
        self._owed_octets = octets
        group.owed_octets += len(wire)
        group.written = start + count
        if group.written == len(group.verbs):
            self._waiting.popleft()
        if last is _CONTENT:
            self._begin_content(group)
        else:
            self._put_out(group, wire, last)
        return True

    @property
    def _owed_commands(self) -> int:
        return self._written - self.turn

    def _count_in_window(self, verbs: tuple[Verb, ...], lines: list[bytes]) -> int:
        """Return how many of these commands may be written, as many as may be unanswered."""
        commands, octets = self._owed_commands, self._owed_octets
        full = commands > _REFILL_COMMANDS or octets > _REFILL_OCTETS
        for at, line in enumerate(lines):
            octets += len(line)
            if (
                commands
                and (full or commands >= WINDOW_COMMANDS or octets > WINDOW_OCTETS)
                and verbs[at] not in _CHUNKS
            ):
                return at
            full = False
            commands += 1
        return len(lines)

    def _begin_content(self, group: CommandGroup) -> None:
        self._stuffer = DotStuffer()
        self._content_octets = 0
        if group.payload is not None:
            self.content(group.payload)
            self.end_content()

    def _put_out(self, group: CommandGroup, wire: bytes, last: Verb) -> None:
        """Put out lines of *group*, and its payload if *last*, the last of their verbs, has one."""
        self._out.append(wire)
        octets = 0
        if last in _CHUNKS and group.payload:
            self._out.append(group.payload)
            octets = len(group.payload)
        elif last in _AUTH:
            command = group.commands[group.written - 1]
            self._conceal_line(command)
            wire = wire[: -len(command.line())] + str(command).encode() + b"\r\n"
        self.transcript.add_group(wire, octets)

    def _drop_next(self, group: CommandGroup) -> None:
        """Do not write the next command of *group*: an earlier command was refused."""
        group.replies.append(not_allowed(group.commands[group.written], self.optimistic))
        group.written += 1
        if group.complete:
            self._waiting.popleft()
            self.completed.append(group)
        self._replan()

    def _withdraw_rest(self, group: CommandGroup) -> bool:
        """Do not write the rest of *group*, whose message may not end; False if it has to wait.

        Unlike a content after a 354, a chunk that was not announced leaves the session as it is.
        """
        if self._owed:
            return False  # replies come in order
        error = _withdrawn()
        error.connection_usable = True
        group.replies += [error] * (len(group.commands) - group.written)
        group.written = len(group.commands)
        _ = self._waiting.popleft()
        self.completed.append(group)
        self._replan()
        return True

    def _replan(self) -> None:
        """Compute the planned state again."""
        state = self.optimistic
        for group in self._waiting:
            for verb in group.verbs[group.written :]:
                state = OPTIMISTIC.get((state, verb), state)
        self._planned = state

    # -- replies ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the server; see :attr:`completed` and :attr:`over` then."""
        if self.over:
            return
        # Search all that came at once, not each line.
        redaction = self.redaction if self.redaction and self._may_quote(data) else None
        self._arrived = replies = self._parser.feed(data)
        taken = 0
        while taken < len(replies) and self.over is None:
            if self._owed:
                taken = self._take(self._owed[0], replies, taken, redaction)
            else:
                self._unexpected(self.redaction.reply(replies[taken]))
        if self.over is not None:
            return
        if self._parser.breach:
            self.finish(self._parser.breach)
        elif self._parser.pending:
            self._reply_begun()

    def _may_quote(self, data: bytes) -> bool:
        """Return True if a reply in *data* may quote a secret.

        The secret may have begun in earlier data, or be spread over the lines of one reply.
        """
        return (
            self._parser.pending
            or data[3:4] == b"-"
            or _CONTINUED.search(data) is not None
            or self.redaction.concerns(data)
        )

    def _reply_begun(self) -> None:
        """End the session if a part of a reply cannot become an expected one."""
        if not self._owed:
            if not self._parser.may_be(b"421"):
                self.finish(_unsolicited(None))
        elif self._stuffer is not None and not self._parser.begins_refusal:
            # Completed after the final dot it would pass for the verdict.
            self.finish(_too_early(None))

    def _conceal_line(self, command: Command) -> None:
        if isinstance(command, Auth):
            self.redaction.begin(command.mechanism, command.initial)
        elif isinstance(command, AuthLine):
            self.redaction.response(command.response)
        # A line that is no reply may be half of a secret: errors do not quote it any more.
        self._parser.quoting = False

    def _take(
        self, group: CommandGroup, replies: list[Reply], first: int, redaction: Redaction | None
    ) -> int:
        """Take those of *replies*, from *first* on, that answer *group*, whose replies are owed first.

        :param redaction: the secrets that *replies* may quote, if there are any.
        :returns: where the replies that were not taken begin; they do not count when the session is over.
        """
        results = group.replies
        answered = len(results)
        successes = replies[first : first + group.written - answered]
        at, end = first, first + len(successes)
        if redaction is None and self.closing is None and self._stuffer is None:
            verbs = group.verbs[answered : answered + len(successes)]
            count, self.confirmed = _leading_successes(
                self.confirmed, verbs, tuple(map(_CODE, successes))
            )
            if count:
                if count < len(successes):
                    del successes[count:]
                results += successes
                self.transcript.add_reply(*successes)
                at += count
        while at < end and self.over is None:
            at += 1
            self._consider(group, replies[at - 1], len(replies) - at, redaction)
        self.turn += at - first
        if len(results) < group.written:
            octets = sum(map(len, group.lines[answered : len(results)]))
            group.owed_octets -= octets
            self._owed_octets -= octets
        elif self.over is None:
            self._owed_octets -= group.owed_octets
            group.owed_octets = 0
            self._owed.popleft()
            if not self._owed:
                self.optimistic = self.confirmed
                if not self._waiting:
                    self._planned = self.confirmed
            if len(results) == len(group.commands):
                self.completed.append(group)
        return at

    def _consider(
        self, group: CommandGroup, raw_reply: Reply, left: int, redaction: Redaction | None
    ) -> None:
        """Take a reply to *group* that may be more than a success.

        :param left: how many others came after it.
        """
        at, before, code = len(group.replies), self.confirmed, raw_reply.code
        verb = group.verbs[at]
        reply = raw_reply
        if verb in _EXCHANGE:
            reply = self.redaction.in_exchange(raw_reply)
        elif redaction is not None or code == 334:
            reply = self.redaction.reply(raw_reply)
        self.transcript.add_reply(reply)
        if code == 421 and self.closing is None and self._close_begins(reply):
            return
        kind, following = transition(before, verb, code)
        if following is None or self._stuffer is not None or self._injected(following, left):
            self._out_of_order(group, reply, kind, following)
            return
        self.confirmed = following
        result: CommandResult = reply
        if kind is ReplyKind.NO:
            if verb in _CHUNKS and reply.code in UNKNOWN_COMMAND:
                self._chunk_unknown(reply, self._arrived[len(self._arrived) - left :])
                return
            result = self._refusal(group.commands[at], reply, before)
        elif verb in _TELLING:
            result = self._learn(verb, kind, raw_reply, reply)
        group.replies.append(result)
        if self.closing is not None:
            self._closing_goes_on(reply)

    def _injected(self, following: ClientState, left: int) -> bool:
        """Return True if octets follow the 220 to STARTTLS, which is forbidden (RFC 3207 section 4.2)."""
        more = left or self._parser.pending or self._parser.breach is not None
        return following is ClientState.HANDSHAKE and bool(more)

    def _unexpected(self, reply: Reply) -> None:
        """End the session at a reply that no command waits for; a 421 only closes it."""
        self.transcript.add_reply(reply)
        if reply.code != 421 or self.closing is not None or not self._close_begins(reply):
            self.finish(_unsolicited(reply))

    def _out_of_order(
        self, group: CommandGroup, reply: Reply, kind: ReplyKind, following: ClientState | None
    ) -> None:
        """End the session at a reply that is not in the table, or came too early."""
        command = group.commands[len(group.replies)]
        if following is None:
            what = f"{command} not understood"
            self.finish(UnexpectedResponse(what, phase=command.verb.value, reply=reply))
        elif following is ClientState.HANDSHAKE:
            self.finish(_starttls_injected())
        elif kind is ReplyKind.NO:
            # RFC 5321 section 4.2.5 has no refusal during the content.  It counts all the same, but a
            # final dot would deliver the octets sent so far.
            group.replies.append(reply)
            self.finish(ConnectionClosed("content broken off", phase="content", reply=reply))
        else:
            self.finish(_too_early(reply))

    def _learn(self, verb: Verb, kind: ReplyKind, raw_reply: Reply, reply: Reply) -> Reply:
        """Note what a reply to *verb* that is no refusal changes besides the state; return the result."""
        if verb in _HELLO:
            known = verb is not Verb.HELO
            self.capabilities = Capabilities.from_reply(reply) if known else NO_CAPABILITIES
        elif verb is Verb.RESTART:
            self.capabilities = NO_CAPABILITIES
            self.authenticated = False
        elif verb in _AUTH and kind is ReplyKind.YES:
            self.authenticated = True
        elif verb in _AUTH:
            self._conceal_challenge(raw_reply)
            return Challenge(*raw_reply)  # as the mechanism needs it
        return reply

    def _refusal(self, command: Command, reply: Reply, before: ClientState) -> CommandResult:
        """Return *reply*, or the error that it is for a command that is not to blame."""
        if reply.code == 421 and self.closing is not None:
            return reply if _answers_content(command.verb, before) else self.closing
        # The MAIL after a broken transaction is refused because of that transaction.
        cascades = before is ClientState.BROKEN and command.verb is Verb.MAIL
        return not_allowed(command, before) if cascades else reply

    def _chunk_unknown(self, reply: Reply, rest: list[Reply]) -> None:
        """End the session: the server does not implement BDAT, and may read the chunk as commands.

        :param rest: what came after *reply*.  If the server accepted anything, the messages that
            were written are in doubt.
        """
        for each in rest:
            self.transcript.add_reply(self.redaction.reply(each))
        begun = self._parser.pending
        error = ChunkingFailure(
            "BDAT not known",
            phase="content",
            reply=reply,
            detail="the server offers CHUNKING all the same: add CHUNKING to its ignore-extensions",
        )
        error.only_reply = not rest and not begun
        accepted = any(each.code < 400 for each in rest)
        doubtful = accepted or (begun and not self._parser.begins_refusal)
        group = self._owed[0]
        if doubtful and not self._ends_message(group.verbs[len(group.replies)]):
            group.replies.append(_in_doubt(error))  # a chunk that is not the last
        self.finish(error, undone=not doubtful)

    def _conceal_challenge(self, challenge: Reply) -> None:
        text = "".join(challenge.lines).encode("utf-8", "replace")
        try:
            decoded = b64decode(text, validate=True)
        except ValueError:
            decoded = b""
        self.redaction.challenge(text, decoded)

    # -- TLS -------------------------------------------------------------------------------

    def begin_tls(self) -> None:
        """Begin the handshake: nothing received before it counts (RFC 3207 section 4.2)."""
        self._parser = ReplyParser()
        self._parser.quoting = not self.redaction
        self.offered_in_clear, self.capabilities = self.capabilities, NO_CAPABILITIES
        self.authenticated = False

    def tls_begun(self, note: str) -> None:
        """End the handshake; *note* describes it in the transcript."""
        self.secured = True
        self.transcript.add("--", note)
        if self.confirmed is ClientState.HANDSHAKE:
            self.confirmed = self.optimistic = ClientState.SECURED
            self._replan()

    def withhold(self, *keywords: str) -> None:
        """Treat *keywords* as not offered (a server known to get them wrong)."""
        self.capabilities = self.capabilities.without(*keywords)

    # -- 421, and the end ------------------------------------------------------------------

    def _close_begins(self, reply: Reply) -> bool:
        """Note a 421; True if it ends the session at once.

        In answer to the end of a content it refuses that message for now, and not the messages
        after it.  In answer to anything else it means that nothing after it is done.
        """
        self.closing = ServiceClosing("connection closed", phase=self._phase(), reply=reply)
        self.closing.transcript = self.transcript
        ends = list(map(self._ends_message, self._owed_verbs()))
        if ends and ends[0]:
            self._went_on = _answers_content(next(self._owed_verbs()), self.confirmed)
        if any(ends):
            return False  # a server that does not close after its 421 may accept a message
        self.finish(self.closing)
        return True

    def _closing_goes_on(self, reply: Reply) -> None:
        """Note that another reply came after a 421."""
        self._went_on = self._went_on or reply.code != 421
        if self.closing and not any(map(self._ends_message, self._owed_verbs())):
            self.finish(self.closing)

    def _owed_verbs(self) -> Iterator[Verb]:
        """Yield the verbs whose replies are owed, in order."""
        for group in self._owed:
            yield from group.verbs[len(group.replies) : group.written]

    def _ends_message(self, verb: Verb) -> bool:
        """Return True if the end of a message was written with *verb*, whose reply is owed."""
        return verb is Verb.BDAT_LAST or (verb is Verb.CONTENT and self._stuffer is None)

    def _phase(self) -> str:
        verb = self.owed_verb
        return self.confirmed.value if verb is None else verb.value

    def finish(self, why: SendmailError, *, by_server: bool = False, undone: bool = False) -> None:
        """End the session: the result of every command without a reply is *why*.

        A message whose end was written and whose reply is owed is in doubt.  But what is owed
        after a 421 to a command was not done if the server then closed, as it has to (RFC 5321
        section 3.8).

        :param by_server: the server has closed the connection.
        :param undone: the server did nothing of what is owed.
        """
        if self.over:
            return
        if by_server and self.closing is not None and not self._went_on:
            why, undone = self.closing, True
        self.over = why
        why.transcript = self.transcript
        why.detail = self.redaction.text(why.detail)
        why.phase = why.phase or self._phase()
        if why.command is None:
            # Without its argument: the error may be that of other messages, too.
            why.command = next((verb.value for verb in self._owed_verbs()), None)
        ended = self.confirmed is ClientState.QUIT and not self._owed
        self.transcript.add("--", "connection closed" if ended else str(why))
        for group in dict.fromkeys((*self._owed, *self._waiting)):
            for at in range(len(group.replies), len(group.commands)):
                doubtful = at < group.written and self._ends_message(group.verbs[at])
                group.replies.append(_in_doubt(why) if doubtful and not undone else why)
            self.completed.append(group)
        self._owed.clear()
        self._waiting.clear()
        self._out.clear()
        self._stuffer = None
        self.confirmed = self.optimistic = self._planned = ClientState.CLOSED


# Called for every group; servers send a few codes.
@lru_cache(maxsize=256)
def _leading_successes(
    state: ClientState, verbs: tuple[Verb, ...], codes: tuple[int, ...]
) -> tuple[int, ClientState]:
    """Return how many replies, from the first on, change no more than the state, and the last state.

    :param state: the state before.
    :param verbs: those of the commands that the replies answer.
    """
    for at, verb in enumerate(verbs):
        kind, following = transition(state, verb, codes[at])
        if kind is not _YES or following is None or verb in _TELLING:
            return at, state
        state = following
    return len(verbs), state


# -- the errors of a session ---------------------------------------------------------------


def not_allowed(command: Command, state: ClientState) -> CommandNotAllowed:
    """Return the error of a command that does not fit the session."""
    return CommandNotAllowed(
        f"{command} not sent",
        phase=command.verb.value,
        command=str(command),
        detail=f"it does not fit a session that is {state.value}",
    )


def _unsolicited(reply: Reply | None) -> ProtocolBreach:
    """Return the error of a reply, or of half of one, that no command waits for."""
    what = "protocol broken"
    return ProtocolBreach(
        what, reply=reply, detail="the server sent a reply that no command waits for"
    )


def _too_early(reply: Reply | None) -> UnexpectedResponse:
    """Return the error of a positive reply to a content that is not complete."""
    why = "the server answered before the content was complete"
    return UnexpectedResponse("content not awaited", phase="content", reply=reply, detail=why)


def _starttls_injected() -> ProtocolBreach:
    """Return the error of octets after the 220 to STARTTLS, which a third party may have inserted."""
    why = "plain text follows the reply to STARTTLS: somebody may be tampering with the connection"
    return ProtocolBreach("STARTTLS broken off", phase="STARTTLS", detail=why)


def _withdrawn() -> DeliveryWithdrawn:
    """Return the error of a message whose end the sender did not allow."""
    why = "it may not be delivered any more, and its end was not sent"
    return DeliveryWithdrawn("message withdrawn", phase="content", detail=why)


def _in_doubt(why: SendmailError) -> DeliveryInDoubt:
    """Return the error of a message whose reply will not come, because of *why*."""
    error = DeliveryInDoubt(
        "no reply to the end of the message",
        detail=why.what + (f" ({why.detail})" if why.detail else ""),
        phase="content",
        reply=why.reply,
        transcript=why.transcript,
    )
    error.__cause__ = why
    return error


def _answers_content(verb: Verb, state: ClientState) -> bool:
    """Return True if a 421 to *verb* is the verdict on a content, and does not concern later commands.

    The action did not occur then (RFC 5321 section 4.2.1).  A BDAT without recipients is
    a command like any other.
    """
    return verb is Verb.CONTENT or (
        verb is Verb.BDAT_LAST and state in {ClientState.RCPT, ClientState.CHUNKS}
    )
