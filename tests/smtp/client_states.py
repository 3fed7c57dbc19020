"""Client sessions in each state, and a command for each verb."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from twisted_sendmail import ClientSession, Reply, SendmailError
from twisted_sendmail.smtp import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    ClientState,
    Command,
    CommandGroup,
    ContentCommand,
    Data,
    Hello,
    LoneDot,
    Mail,
    Noop,
    OtherCommand,
    Quit,
    Rcpt,
    RestartCommand,
    Rset,
    StartTLS,
    Verb,
)
from twisted_sendmail.smtp.client_states import ReplyKind
from twisted_sendmail.smtp.commands import Greeting


class Event(NamedTuple):
    """The result of a command."""

    command: Command
    tag: object
    result: Reply | SendmailError


class Session(ClientSession):
    """A session that is given single commands, each with a tag, and lists their results."""

    def __init__(self, greeting_tag: object = None) -> None:
        super().__init__()
        self._tags: dict[int, object] = {id(self.greeting): greeting_tag}
        self._given = [self.greeting]
        self._events: deque[Event] = deque()

    def give(self, command: Command, tag: object = None, payload: bytes | None = None) -> None:
        chunk = command.verb in {Verb.BDAT, Verb.BDAT_LAST}
        group = self.send(command, payload=payload if chunk else None)
        self._given.append(group)
        self._tags[id(group)] = tag

    def take_back(self, tag: object) -> bool:
        groups = [group for group in self._given if self._tags[id(group)] is tag]
        return any(self.withdraw(group) for group in groups)

    @property
    def events(self) -> deque[Event]:
        """The results so far, in the order in which the commands were completed."""
        while self.completed:
            group: CommandGroup = self.completed.popleft()
            (command,), (result,) = group.commands, group.replies
            self._events.append(Event(command, self._tags[id(group)], result))
        return self._events


EHLO_REPLY = (
    b"250-mx.example.net\r\n250-STARTTLS\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 AUTH PLAIN\r\n"
)

COMMANDS: dict[Verb, Command] = {
    Verb.GREETING: Greeting(),
    Verb.EHLO: Hello("client.example.org"),
    Verb.HELO: Hello("client.example.org", Verb.HELO),
    Verb.LHLO: Hello("client.example.org", Verb.LHLO),
    Verb.STARTTLS: StartTLS(),
    Verb.AUTH: Auth("PLAIN", b"\0tester\0s3cret-Pa55word"),
    Verb.AUTH_LINE: AuthLine(b"s3cret-Pa55word"),
    Verb.AUTH_CANCEL: AuthCancel(),
    Verb.MAIL: Mail("a@example.org"),
    Verb.RCPT: Rcpt("b@example.net"),
    Verb.DATA: Data(),
    Verb.CONTENT: ContentCommand(),
    Verb.LONE_DOT: LoneDot(),
    Verb.BDAT: Bdat(4),
    Verb.BDAT_LAST: Bdat(4, last=True),
    Verb.RSET: Rset(),
    Verb.NOOP: Noop(),
    Verb.QUIT: Quit(),
    Verb.OTHER: OtherCommand("VRFY", "postmaster"),
    Verb.RESTART: RestartCommand("XCLIENT", "ADDR=192.0.2.1"),
}
assert set(Verb) == set(COMMANDS)

Step = tuple[Verb, bytes]

_EHLO: Step = (Verb.EHLO, EHLO_REPLY)
_MAIL: Step = (Verb.MAIL, b"250 ok\r\n")
_RCPT: Step = (Verb.RCPT, b"250 ok\r\n")
_DATA: Step = (Verb.DATA, b"354 go\r\n")

#: How each state is reached: commands and the replies to them.
ROUTES: dict[ClientState, list[Step]] = {
    ClientState.CONNECTED: [],
    ClientState.GREETED: [(Verb.GREETING, b"220 hi\r\n")],
    ClientState.UNWELCOME: [(Verb.GREETING, b"554 go away\r\n")],
    ClientState.READY: [(Verb.GREETING, b"220 hi\r\n"), _EHLO],
}
ROUTES[ClientState.HANDSHAKE] = [*ROUTES[ClientState.READY], (Verb.STARTTLS, b"220 go\r\n")]
ROUTES[ClientState.SECURED] = ROUTES[ClientState.HANDSHAKE]
ROUTES[ClientState.AUTH] = [*ROUTES[ClientState.READY], (Verb.AUTH, b"334 \r\n")]
ROUTES[ClientState.MAIL] = [*ROUTES[ClientState.READY], _MAIL]
ROUTES[ClientState.RCPT] = [*ROUTES[ClientState.MAIL], _RCPT]
ROUTES[ClientState.DATA] = [*ROUTES[ClientState.RCPT], _DATA]
ROUTES[ClientState.CHUNKS] = [*ROUTES[ClientState.RCPT], (Verb.BDAT, b"250 ok\r\n")]
ROUTES[ClientState.BROKEN] = [*ROUTES[ClientState.RCPT], (Verb.BDAT, b"452 full\r\n")]
ROUTES[ClientState.QUIT] = [*ROUTES[ClientState.READY], (Verb.QUIT, b"221 bye\r\n")]


def brought_to(state: ClientState) -> Session:
    """Return a session that got to *state* by itself, with nothing owed and no events left."""
    session = Session(greeting_tag="greeting")
    if state is ClientState.LONE_DOT:
        # Only pipelining leads there: everything is written before the first refusal.
        session = brought_to(ClientState.READY)
        for verb in (Verb.MAIL, Verb.RCPT, Verb.DATA):
            session.give(COMMANDS[verb])
        session.data_to_send()
        session.receive(b"250 ok\r\n550 no\r\n354 go\r\n")
    else:
        for verb, reply in ROUTES[state]:
            if verb is not Verb.GREETING:
                session.give(COMMANDS[verb], payload=b"abc\n" if verb is Verb.BDAT else b"")
                session.data_to_send()
            session.receive(reply)
        if state is ClientState.SECURED:
            session.begin_tls()
            session.tls_begun("TLS")
    session.events.clear()
    assert state is session.confirmed
    assert session.over is None
    return session


def code_of(verb: Verb, kind: ReplyKind) -> int:
    """Return a code that means *kind* as a reply to *verb*."""
    if kind is ReplyKind.NO:
        return 550
    if kind is ReplyKind.MORE:
        return 334 if verb in {Verb.AUTH, Verb.AUTH_LINE} else 354
    yes = {Verb.GREETING: 220, Verb.STARTTLS: 220, Verb.DATA: 354}
    if kind is ReplyKind.YES:
        return 235 if verb in {Verb.AUTH, Verb.AUTH_LINE} else yes.get(verb, 250)
    return (
        250 if verb in {Verb.GREETING, Verb.STARTTLS, Verb.DATA, Verb.AUTH, Verb.AUTH_LINE} else 354
    )
