"""The commands of a client's session: those whose reply is owed, and those not written yet.

It owns the order of things: the first of the owed is what the next reply answers.  Three
cursors walk the table in ``client_table`` along them: *confirmed* where the replies led,
*hoped* where the commands written will lead if they succeed, and *planned* where those
that still wait will.

It writes nothing and reads nothing: that is ``client_session``'s, which is built on it.

RFC 5321 section 4.1.4 (order of commands), RFC 2920 (PIPELINING).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from twisted_sendmail.smtp.client_faults import not_allowed
from twisted_sendmail.smtp.client_states import HOPES, ClientState
from twisted_sendmail.smtp.command_group import CommandGroup, Entry
from twisted_sendmail.smtp.commands import Command, Greeting, Verb
from twisted_sendmail.smtp.errors import SendmailError, ServiceClosing
from twisted_sendmail.smtp.reply import Reply

#: Commands that may be unanswered at once on a connection with PIPELINING.  Haraka processes
#: the commands it has received in one recursion: 3.0.3 on Node.js 20 runs out of stack and
#: stalls at 455 unanswered RCPT with one plugin, at 159 with eleven, whatever their octets.
WINDOW_COMMANDS = 144
#: Octets of such commands: the receive buffer of most servers is larger, so that neither side
#: waits for the other to read (RFC 2920 section 3.1).
WINDOW_OCTETS = 16 * 1024
# A group that is larger is written in parts of so many commands, as the window moves.
_PART = WINDOW_COMMANDS // 4


class Event(NamedTuple):
    """What came of one command: its reply, or why there will be none.  Or what came of a group."""

    command: Command | CommandGroup
    #: What :meth:`ClientQueue.send` was given along with the command; a group is its own.
    tag: object
    #: A list: the replies to a group, each of them a success.
    result: Reply | SendmailError | list[Reply]


class ClientQueue:
    """What has been said and what will be, with what it leads to."""

    def __init__(self, greeting_tag: object) -> None:
        #: Where the replies have led.
        self.confirmed = ClientState.CONNECTED
        #: Where the commands written so far will lead if all succeed.
        self.hoped = ClientState.CONNECTED
        # ... and those not yet written too.
        self._planned = ClientState.GREETED
        self._owed: deque[Entry | CommandGroup] = deque()
        # Of those that were written and have no reply yet.
        self._owed_commands = 0
        self._owed_octets = 0
        self._owe(Entry(Greeting(), greeting_tag, Verb.GREETING))
        self._waiting: deque[Entry | CommandGroup] = deque()
        self._turn = 1
        #: What came of commands, oldest first; take them off with ``popleft()``.
        self.events: deque[Event] = deque()
        #: The session is over, and why; nothing is written or read any more.
        self.over: SendmailError | None = None
        #: A 421 came: nothing more is written, and what is owed may come yet.
        self.closing: ServiceClosing | None = None

    def send(self, command: Command, tag: object = None, payload: bytes = b"") -> None:
        """Queue *command*; it is written as soon as the session allows.

        :param tag: comes back in the command's :class:`Event`.
        :param payload: the octets of a BDAT chunk.
        :raises CommandNotAllowed: when it does not fit even if all before it succeeds.
        :raises SendmailError: the reason, when the session is over.
        """
        if self.over or self.closing:
            raise self.over or self.closing  # type: ignore[misc]  # one of them is there
        verb = command.verb
        planned = HOPES.get((self._planned, verb))
        if planned is None:
            raise not_allowed(command, self._planned)
        self._planned = planned
        self._waiting.append(Entry(command, tag, verb, payload))

    def send_group(self, group: CommandGroup) -> None:
        """Queue the commands of *group*; the errors are those of :meth:`send`."""
        if self._planned is ClientState.READY and not self.closing:
            self._planned = group.leads
            small = group.size <= WINDOW_COMMANDS and group.octets <= WINDOW_OCTETS
            self._waiting += [group] if small else group.parts(_PART)
        else:
            for entry in group.entries():
                self.send(entry.command, entry.tag, entry.payload)

    @property
    def owed(self) -> Command | None:
        """The command whose reply comes next."""
        if not self._owed:
            return None
        first = self._owed[0]
        return first.commands()[0] if isinstance(first, CommandGroup) else first.command

    @property
    def owed_verb(self) -> Verb | None:
        """Its verb."""
        if not self._owed:
            return None
        first = self._owed[0]
        return first.begins if isinstance(first, CommandGroup) else first.verb

    @property
    def turn(self) -> int:
        """Changes with the replies heard: it stays the same while one is awaited."""
        return self._turn

    @property
    def quitting(self) -> bool:
        """QUIT was said, or will be."""
        return self._planned is ClientState.QUIT

    @property
    def promising(self) -> bool:
        """What was said, and what waits, makes the session ready for another message if it succeeds."""
        return self._planned is ClientState.READY

    @property
    def idle(self) -> bool:
        """Nothing is owed, nothing waits to be written."""
        return not self._owed and not self._waiting

    def withdraw(self, tag: object) -> bool:
        """Take back the command sent with *tag* if it was not written yet; False if it was."""
        for entry in self._waiting:
            if isinstance(entry, Entry) and entry.tag is tag:
                self._waiting.remove(entry)
                self._resume_plan()
                return True
        return False

    def _owe(self, written: Entry | CommandGroup) -> None:
        """Its reply, or replies, are owed from now on."""
        self._owed.append(written)
        self._owed_commands += written.size
        self._owed_octets += written.octets

    def _answered(self) -> None:
        """The first of the owed is answered."""
        first = self._owed.popleft()
        self._owed_commands -= first.size
        self._owed_octets -= first.octets
        self._turn += 1

    def _advance(self, following: ClientState) -> ClientState:
        """The first of the owed is answered; the state it was in."""
        self._answered()
        before, self.confirmed = self.confirmed, following
        if not self._owed:
            self.hoped = following
            if not self._waiting:
                self._planned = following
        return before

    def _resume_plan(self) -> None:
        self._planned = self.hoped
        for entry in one_by_one(self._waiting):
            self._planned = HOPES.get((self._planned, entry.verb), self._planned)

    def _first_owed(self) -> Entry:
        """The first of the owed; a group is taken apart."""
        first = self._owed[0]
        if not isinstance(first, CommandGroup):
            return first
        entries = first.entries()
        self._owed.popleft()
        self._owed.extendleft(reversed(entries))
        return entries[0]

    def _phase(self) -> str:
        verb = self.owed_verb
        return self.confirmed.value if verb is None else verb.value


def one_by_one(queue: deque[Entry | CommandGroup]) -> list[Entry]:
    """What is in *queue*, with every group taken apart."""
    found: list[Entry] = []
    for entry in queue:
        if isinstance(entry, CommandGroup):
            found += entry.entries()
        else:
            found.append(entry)
    return found
