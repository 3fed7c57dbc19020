"""The queue for users of this machine: ``mailq`` and ``sendmail -q`` over a Unix socket of the relay.

A client sends one line of JSON, and gets lines of JSON::

    C: {"action": "list", "ids": [], "recipient": null, "sender": "@example.org"}
    S: {"queue_id": "06X4PGZQ1D40", …}       a message; the names of ``postqueue -j``, and ``waits``
    S: {"end": 1}                            the number of messages

The last line is ``end``, or ``error`` with a text.  The action ``flush`` tries messages now, and its
answer is the last line alone.

The user at the other end of the socket (SO_PEERCRED) decides what is shown and flushed: all for root,
for the relay's user and for members of the operators' group, else only the user's own messages.  A
connection has one request and a deadline; a page of messages is read from the queue when the client
has read the page before; and the number of connections is limited, in all and for each user.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from twisted_sendmail.admin.format import waits_for_route
from twisted_sendmail.local_users import LocalPeer, peer_of
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import (
    QueueAction,
    RecipientState,
    Selection,
    fits,
    id_number,
    id_text,
    message_json,
)
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue, QueuedMessage

#: Octets of a request.
MAX_REQUEST = 64 * 1024
#: Seconds for a request, and for a request with its answer.
REQUEST_TIMEOUT, ANSWER_TIMEOUT = 10.0, 600.0
#: Connections at once: in all, and of one user who is not an operator.
MAX_CONNECTIONS, MAX_CONNECTIONS_OF_USER = 64, 4
#: Messages that are read from the queue at once.
PAGE = 20

_log = Logger(namespace="twisted_sendmail.daemon")


class MailqFactory(ServerFactory):
    """Answers on a Unix socket.

    :param reactor: provides ``IReactorTime``, and threads to write pages in.
    :param queue: open while connections are answered.
    :param operators: the gid of the operators' group.
    :param down: returns the time of the next attempt of each route that is down.
    :param notice: returns a line about mail that is not in the queue yet, for operators; None: there
        is none.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        *,
        operators: int,
        down: Callable[[], Mapping[str, float]] = dict,
        notice: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.reactor = reactor
        self.queue = queue
        self.operators = operators
        self.down = down
        self.notice = notice
        self._open: set[_MailqProtocol] = set()
        self._of_user: Counter[int | None] = Counter()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """Return the name of the listener in the log."""
        return "mailq"

    def buildProtocol(self, addr: IAddress) -> _MailqProtocol:  # type: ignore[override]  # Twisted's Factory is generic in name only
        """Return a protocol that answers one request."""
        return _MailqProtocol(self)

    def sees_all(self, peer: LocalPeer) -> bool:
        """Return True if the user may see and flush the mail of all users."""
        return peer.uid in {0, os.geteuid()} or (
            peer.uid is not None and self.operators in peer.gids
        )

    def opened(self, protocol: _MailqProtocol, peer: LocalPeer | None) -> str | None:
        """Count a connection; return why it is refused, if it is."""
        uid = None if peer is None else peer.uid
        self._open.add(protocol)
        self._of_user[uid] += 1
        if peer is None or uid is None:
            return (
                "the user who asks is not known: the relay runs in a user namespace that does not map "
                "all users (PrivateUsers=, or a container)"
            )
        if self.sees_all(peer):
            return None
        # Some are left for operators.
        total = MAX_CONNECTIONS - MAX_CONNECTIONS_OF_USER
        if self._of_user[uid] > MAX_CONNECTIONS_OF_USER or len(self._open) > total:
            return "too many requests at once"
        return None

    def closed(self, protocol: _MailqProtocol, peer: LocalPeer | None) -> None:
        """Count a connection that is over."""
        uid = None if peer is None else peer.uid
        self._open.discard(protocol)
        self._of_user[uid] -= 1
        if self._of_user[uid] <= 0:
            del self._of_user[uid]

    def close(self) -> None:
        """Drop all connections; stop listening first."""
        for protocol in list(self._open):
            protocol.drop()


@implementer(IPushProducer)
class _MailqProtocol(Protocol):
    """One request and its answer."""

    def __init__(self, factory: MailqFactory) -> None:
        self._factory = factory
        self._peer: LocalPeer | None = None
        self._received = b""
        self._answering: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        # Set while the client does not read.
        self._blocked: Deferred[None] | None = None

    @property
    def _transport(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        """Find the user at the other end."""
        self._peer = peer_of(self._transport.getHandle())
        self._transport.registerProducer(self, True)
        self._timer = self._factory.reactor.callLater(REQUEST_TIMEOUT, self.drop)
        refusal = self._factory.opened(self, self._peer)
        if refusal is not None:
            self._end({"error": refusal})

    def dataReceived(self, data: bytes) -> None:
        """Take the request; all after its line is ignored."""
        if self._answering is not None or self._transport.disconnecting:
            return
        self._received += data
        line, end, _ = self._received.partition(b"\n")
        if len(line) > MAX_REQUEST:
            self._end({"error": "the request is too long"})
        elif end:
            self._received = b""
            if self._timer is not None and self._timer.active():
                self._timer.reset(ANSWER_TIMEOUT)
            self._answering = Deferred.fromCoroutine(self._answer(line))
            _ = self._answering.addErrback(self._log_failed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop reading from the queue."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._factory.closed(self, self._peer)
        if self._answering is not None:
            self._answering.cancel()

    def pauseProducing(self) -> None:
        """Write no more for now."""
        if self._blocked is None:
            self._blocked = Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked.callback(None)

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` follows."""

    def drop(self) -> None:
        """Close the connection at once."""
        self._transport.abortConnection()

    async def _answer(self, line: bytes) -> None:
        try:
            self._end(await self._carry_out(_MailqRequest.parse(line)))
        except (_BadRequest, SendmailError) as e:
            self._end({"error": str(e)})

    async def _carry_out(self, request: _MailqRequest) -> dict[str, Any]:
        """List or flush the messages; the last line of the answer."""
        factory, peer = self._factory, cast("LocalPeer", self._peer)
        sees_all = factory.sees_all(peer)
        # Sender and recipients are matched here: in the queue, a user whose many messages do not
        # match could make one query long.
        selection = Selection(ids=request.ids or (), uid=None if sees_all else peer.uid, limit=PAGE)
        number = 0
        flushed: list[str] = []
        last = request.ids == ()
        while not last:
            page = await factory.queue.list(selection)
            last = len(page) < PAGE
            found = [message for message in page if request.matches(message)]
            number += len(found)
            if found and request.action == "list":
                await self._write(found)
            flushed += [message.id for message in found]
            if request.action == "flush" and not sees_all and found:
                await self._flush(Selection(ids=tuple(flushed), uid=peer.uid))
                flushed.clear()
            if page:
                selection = attrs.evolve(selection, after=page[-1].id)
        if request.action == "flush" and sees_all:
            # In one action, for which each route makes one attempt.
            if request.whole:
                await self._flush(Selection())
            elif flushed:
                await self._flush(Selection(ids=tuple(flushed)))
        notice = factory.notice() if sees_all else None
        return {"end": number} if notice is None else {"end": number, "notice": notice}

    async def _flush(self, selection: Selection) -> None:
        queue, now = self._factory.queue, self._factory.reactor.seconds()
        await queue.act(QueueAction.FLUSH, selection, now)

    async def _write(self, page: Sequence[QueuedMessage]) -> None:
        if self._blocked is not None:
            await self._blocked
        # A message may have a thousand recipients.
        down, now = self._factory.down(), self._factory.reactor.seconds()
        lines = await off_reactor(
            self._factory.reactor, lambda: b"".join([_line_of(each, down, now) for each in page])
        )
        self._transport.write(lines)

    def _end(self, last: dict[str, Any]) -> None:
        self._transport.unregisterProducer()
        self._transport.write(_encoded(last))
        self._transport.loseConnection()

    def _log_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("a request of mailq failed", failure)
            self.drop()


class _BadRequest(Exception):
    """A request that cannot be parsed."""

    def __str__(self) -> str:
        return "the request cannot be parsed"


@attrs.frozen
class _MailqRequest:
    action: str
    #: None: any.
    ids: tuple[str, ...] | None
    recipient: str | None
    sender: str | None

    @classmethod
    def parse(cls, line: bytes) -> _MailqRequest:
        """Parse a request.

        :raises _BadRequest: it is not a request.
        """
        try:
            given = json.loads(line)
        except (ValueError, RecursionError):
            raise _BadRequest from None
        if not isinstance(given, dict) or given.get("action") not in ("list", "flush"):
            raise _BadRequest
        ids, recipient, sender = given.get("ids"), given.get("recipient"), given.get("sender")
        if not (isinstance(ids, list | None) and all(isinstance(each, str) for each in ids or ())):
            raise _BadRequest
        if not all(isinstance(each, str | None) for each in (recipient, sender)):
            raise _BadRequest
        if ids is not None:
            ids = tuple([id_text(n) for n in map(id_number, ids) if n is not None])
        return cls(given["action"], ids, recipient, sender)

    @property
    def whole(self) -> bool:
        """The request is about all messages."""
        return self.ids is None and self.recipient is None and self.sender is None

    def matches(self, message: QueuedMessage) -> bool:
        """Return True if the sender and a recipient without delivery match; see ``Selection``."""
        sender = message.info.envelope.sender
        address = "" if sender.mailbox is None else str(sender)
        if self.sender is not None and not (
            fits(self.sender, address) if self.sender else not address
        ):
            return False
        return self.recipient is None or any(
            fits(self.recipient, str(each.recipient))
            for each in message.recipients
            if each.state is not RecipientState.DELIVERED
        )


def _line_of(message: QueuedMessage, down: Mapping[str, float], now: float) -> bytes:
    waits = waits_for_route(message, down, now)
    return _encoded(message_json(message) | ({} if waits is None else {"waits": waits}))


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode("ascii") + b"\n"
