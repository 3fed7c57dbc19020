"""The commands of one message as a group: written together, and heard together if all goes well.

MAIL, RCPT for each recipient, and DATA or the only BDAT; RSET before them where another
message was said just before.  The session writes such a group as it stands, and takes the
replies to it as they stand if they are the ones hoped for.  Whatever else comes, the
session first takes the group apart (:meth:`CommandGroup.entries`) and then goes on as if
its commands had been given one by one.  So a group is nothing but a short way to say the same.

It does not know the session, and never sends.  RFC 2920 (command groups), RFC 3030 (BDAT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.client_states import ClientState
from twisted_sendmail.smtp.commands import Content, Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.smtp.commands import Command
    from twisted_sendmail.smtp.reply import Reply


class Entry:
    """One command in the session's queue, and what it brings along."""

    __slots__ = ("command", "octets", "payload", "tag", "verb")

    #: Commands, as :attr:`CommandGroup.size` counts them.
    size = 1

    def __init__(
        self, command: Command, tag: object, verb: Verb, payload: bytes = b"", octets: int = 0
    ) -> None:
        self.command = command
        self.tag = tag
        self.verb = verb
        self.payload = payload
        #: Octets of its line, once it is written.
        self.octets = octets


class CommandGroup:
    """A group that begins on a session that is ready, or makes it so by RSET.

    It is its own tag: what is heard comes back with it.

    :param wire: the lines of all commands, as :meth:`commands` would write them.
    :param size: how many commands.
    :param payload: the chunk of the BDAT at the end; None for a group that ends with DATA.
    :param behind: it begins with RSET, because something was said just before.
    """

    __slots__ = ("begins", "leads", "octets", "payload", "size", "stands", "verb", "wire")

    def __init__(
        self, wire: bytes, size: int, payload: bytes | None, *, behind: bool = False
    ) -> None:
        self.wire = wire
        self.size = size
        #: Octets of all its lines.
        self.octets = len(wire)
        self.payload = payload
        #: Where the session stands when it is answered.
        self.stands = ClientState.READY
        #: The first command's.
        self.begins = Verb.RSET if behind else Verb.MAIL
        if payload is None:
            #: The last command's, and where it leads from a session that is ready.
            self.verb, self.leads = Verb.DATA, ClientState.DATA
        else:
            self.verb, self.leads = Verb.BDAT_LAST, ClientState.READY

    @property
    def tag(self) -> object:
        """What comes back when it is heard."""
        return self

    def commands(self) -> Sequence[Command]:
        """The same as commands; asked for only when the group is taken apart."""
        raise NotImplementedError

    def entries(self) -> list[Entry]:
        """The same one by one."""
        lines = self.wire.splitlines()
        found = [
            Entry(command, self.tag, command.verb, octets=len(line) + 2)
            for command, line in zip(self.commands(), lines, strict=True)
        ]
        found[-1].payload = self.payload or b""
        return found

    def parts(self, size: int) -> Sequence[CommandGroup]:
        """The same as groups of *size* commands, to be written one after the other."""
        if self.size <= size:
            return [self]
        lines = self.wire.splitlines(keepends=True)
        return [_Part(self, i, lines[i : i + size]) for i in range(0, self.size, size)]

    def succeeded(self, replies: list[Reply]) -> bool:
        """Are *replies*, one for each command, the plain success of them all?"""
        codes = [reply[0] for reply in replies]
        return codes == _codes(self.size, 250 if self.payload is not None else 354)


class _Part(CommandGroup):
    """Some of the commands of *whole*, which has too many for one group."""

    __slots__ = ("_first", "_whole")

    def __init__(self, whole: CommandGroup, first: int, lines: list[bytes]) -> None:
        last = first + len(lines) == whole.size
        super().__init__(b"".join(lines), len(lines), whole.payload if last else b"")
        self._whole = whole
        self._first = first
        if not last:
            self.verb, self.leads = Verb.RCPT, ClientState.RCPT
        if first:
            self.begins, self.stands = Verb.RCPT if len(lines) > 1 else self.verb, ClientState.RCPT
        else:
            self.begins, self.stands = whole.begins, whole.stands

    @property
    def tag(self) -> object:
        """See ``CommandGroup``."""
        return self._whole.tag

    def commands(self) -> Sequence[Command]:
        """See ``CommandGroup``."""
        return self._whole.commands()[self._first : self._first + self.size]


class WholeContent(CommandGroup):
    """The whole content behind a 354, and its end: a group of one.

    :param tag: comes back when it is heard.
    """

    __slots__ = ("_tag",)

    def __init__(self, tag: object) -> None:
        super().__init__(b"", 1, None)
        self.stands = ClientState.DATA
        self.begins = self.verb = Verb.CONTENT
        self.leads = ClientState.READY
        self._tag = tag

    @property
    def tag(self) -> object:
        """See ``CommandGroup``."""
        return self._tag

    def commands(self) -> Sequence[Command]:
        """See ``CommandGroup``."""
        return [_CONTENT]

    def entries(self) -> list[Entry]:
        """See ``CommandGroup``."""
        return [Entry(_CONTENT, self._tag, Verb.CONTENT)]

    def succeeded(self, replies: list[Reply]) -> bool:
        """See ``CommandGroup``."""
        return replies[0][0] == 250


_CONTENT = Content()


def _codes(size: int, last: int) -> list[int]:
    known = _CODES.get((size, last))
    return known if known is not None else [250] * (size - 1) + [last]


# Those of nearly all messages.
_CODES = {(size, last): [250] * (size - 1) + [last] for size in range(3, 6) for last in (250, 354)}
