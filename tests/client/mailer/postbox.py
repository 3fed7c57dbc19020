"""A server that keeps transactions as RFC 5321 does, and the hosts it delivers to.

What is refused is told by names: a sender ``banned…``, a recipient ``gone…``, a content
with ``X-Refuse``.  The world remembers each message that was taken, with the envelope the
server took it for; so does it remember what it was told on which connection.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.client.scripted_server import CLOSE, RESET, SILENT, Act, Action, ScriptedServer

CHUNKING = ("PIPELINING", "CHUNKING", "8BITMIME", "SIZE 100000000", "ENHANCEDSTATUSCODES")
PIPELINING = ("PIPELINING", "8BITMIME", "SIZE 100000000", "ENHANCEDSTATUSCODES")
CHUNKS_ALONE = ("CHUNKING", "8BITMIME", "SIZE 100000000")
NOTHING = ("SIZE 100000000",)


class AfterRefusal(enum.Enum):
    """What servers do when a BDAT has nobody to go to, or its content is refused."""

    READY = "begin anew"
    WANTS_RSET = "refuse everything until RSET, as Postfix"
    KEEPS_SENDER = "go on with the sender they have, as Exim"
    SAYS_YES = "take a content for nobody, and say 250"


class Delivery(NamedTuple):
    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Postbox(ScriptedServer):
    def __init__(
        self,
        world: World,
        answers: Any = None,
        *,
        offers: Iterable[str] = CHUNKING,
        after_refusal: AfterRefusal = AfterRefusal.READY,
        **settings: Any,
    ) -> None:
        settings.setdefault("clear", tuple(offers))
        super().__init__(answers, clock=world.clock, **settings)
        self.world = world
        self.after_refusal = after_refusal
        self._sender: str | None = None
        self.recipients: list[str] = []
        self._rset_wanted = False
        world.servers.append(self)

    @property
    def verbs(self) -> list[str]:
        return [line.partition(" ")[0] for line in self.lines]

    def say(self, action: Action) -> None:
        """Say or do something unasked."""
        self.act(action)

    def _do(self, act: Act) -> None:
        super()._do(act)
        # Whatever is on its way to it is lost, or waits for ever.
        self.dead = self.dead or act in {CLOSE, RESET, SILENT}

    def _default(self, key: str, line: str) -> None:
        if self.dead:
            return
        fault = self.world.fault(self, key, line)
        if fault is not None:
            self.act(fault, line)
        elif key in {".", "BDAT_LAST"}:
            self.act(self._end(chunk=key != "."), line)
        else:
            super()._default(key, line)

    def _forget(self) -> None:
        self._sender, self.recipients = None, []

    def _on_mail(self, line: str) -> Action:
        if self._rset_wanted:
            return "503 5.5.1 RSET first"
        if self._sender is not None:
            return "503 5.5.1 sender already given"
        sender = line.partition("<")[2].partition(">")[0]
        if sender.startswith("banned"):
            return "550 5.7.1 not from you"
        self._sender = sender
        return "250 2.1.0 ok"

    def _on_rcpt(self, line: str) -> Action:
        if self._rset_wanted or self._sender is None:
            return "503 5.5.1 need MAIL"
        recipient = line.partition("<")[2].partition(">")[0]
        if recipient.startswith("gone"):
            return "550 5.1.1 nobody here by that name"
        self.recipients.append(recipient)
        return "250 2.1.5 ok"

    def _on_data(self, line: str) -> Action:
        if not self.recipients and self.after_refusal is not AfterRefusal.SAYS_YES:
            return "554 5.5.1 no valid recipients"
        return "354 go ahead"

    def _on_bdat(self, line: str) -> Action:
        if self._rset_wanted or not self.recipients:
            return self._no_chunk("503 5.5.1 no valid recipients")
        return "250 2.0.0 ok"

    def _no_chunk(self, reply: str) -> str:
        if self.after_refusal is AfterRefusal.WANTS_RSET:
            self._rset_wanted = True
        elif self.after_refusal is AfterRefusal.READY:
            self._forget()
        return reply

    def _end(self, *, chunk: bool) -> Action:
        content = self.messages[-1]
        if not self.recipients and self.after_refusal is AfterRefusal.SAYS_YES:
            if not chunk:
                self._forget()
            return "250 2.0.0 Ok: nobody gets it"
        if self._rset_wanted or not self.recipients:
            return self._no_chunk("503 5.5.1 no valid recipients")
        sender, recipients = self._sender or "", tuple(self.recipients)
        if b"X-Refuse" in content:
            self._forget()
            refused = "554 5.6.0 not with this header"
            return self._no_chunk(refused) if chunk else refused
        self._forget()
        self.world.delivered.append(Delivery(sender, recipients, content))
        return f"250 2.0.0 Ok: queued as {len(self.world.delivered):X}"

    def _on_rset(self, line: str) -> Action:
        self._forget()
        self._body = []
        self._rset_wanted = False
        return "250 2.0.0 ok"


class World:
    """All servers, and what they took."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.servers: list[Postbox] = []
        self.delivered: list[Delivery] = []
        #: Asked before a server answers; an action other than None is done instead.
        self.fault: Callable[[Postbox, str, str], Action] = lambda server, key, line: None

    def server(self, answers: Any = None, **settings: Any) -> Callable[[], Postbox]:
        """Makes a server for each connection."""
        return lambda: Postbox(self, answers, **settings)

    @property
    def counts(self) -> Counter[str]:
        """Commands heard by all servers, by verb."""
        return Counter(verb for server in self.servers for verb in server.verbs)

    @property
    def open(self) -> int:
        """Connections that are open."""
        return sum(not server.link.over for server in self.servers)

    @property
    def subjects(self) -> list[str]:
        """The subjects of what was taken, in its order."""
        return [subject(delivery.content) for delivery in self.delivered]


def subject(content: bytes) -> str:
    return content.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
