"""A mail queue in memory: a second implementation of ``Queue``, for fast tests and the conformance suite.

Nothing survives the process. Each Deferred has fired when it is returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from twisted_sendmail.queue import (
    INLINE_SIZE,
    Intake,
    LeasedMessage,
    MessageInfo,
    Queue,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueuedRecipient,
    QueueError,
    QueueFull,
    QueueIds,
    QueueTotals,
    RecipientState,
    RecoveryReport,
    Selection,
    SetAsideReason,
    fits,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.queue import AttemptRecord, DownRoute

#: Messages that one call of ``clear_aside`` removes.
_MAX_CLEARED = 100


class MemoryQueue(Queue):
    """A queue that lives as long as this object; it can be closed and opened again.

    :param clock: for the ids.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._ids = QueueIds(clock.seconds)
        #: The messages, by id, in the order of their ids.
        self.messages: dict[str, QueuedMessage] = {}
        #: Their content.
        self.contents: dict[str, bytes] = {}
        #: When set, every write fails with it, as if the disk were full.
        self.broken: QueueError | None = None
        #: Octets of mail that can wait outside which are accepted; None: any number.
        self.space: int | None = None
        self._open = False
        self._files: set[str] = set()

    # -- opening and closing ---------------------------------------------------------------------

    def open(self) -> Deferred[RecoveryReport]:
        """See ``Queue.open``; messages that are leased then were left by ``crash``."""
        self._open = True
        interrupted = [message for message in self._all() if message.leased]
        for message in interrupted:
            self._put(evolve(message, leased=False, interrupted=message.interrupted + 1))
        left = tuple(m.id for m in interrupted if m.id in self.messages)
        return succeed(RecoveryReport(len(self.messages), left))

    def close(self) -> Deferred[None]:
        """See ``Queue.close``."""
        for message in self._all():
            self._put(evolve(message, leased=False))
        self._open = False
        return succeed(None)

    def crash(self) -> None:
        """Close as if the process were killed."""
        self._open = False

    def _all(self) -> list[QueuedMessage]:
        return [self.messages[id_] for id_ in sorted(self.messages)]

    def _put(self, message: QueuedMessage) -> QueuedMessage | None:
        """Store *message*, or remove it if it is finished."""
        if message.leased or not (message.doomed or _is_over(message)):
            due = min((r.due for r in message.pending), default=message.due)
            at_once = message.expired and message.aside is None
            message = evolve(message, due=0.0 if at_once else due)
            self.messages[message.id] = message
            return message
        self.messages.pop(message.id, None)
        self.contents.pop(message.id, None)
        return None

    def _trouble(self) -> QueueError | None:
        return self.broken if self._open else QueueError("the queue is not open")

    # -- adding messages -------------------------------------------------------------------------

    def new_id(self) -> str:
        """See ``Queue.new_id``."""
        return self._ids()

    def intake(self) -> Intake:
        """See ``Queue.intake``."""
        return _MemoryIntake(self)

    def check_space(self, size: int) -> Deferred[None]:
        """See ``Queue.check_space``."""
        if self.space is not None and size > self.space:
            return fail(QueueFull("the queue has too little free space"))
        return succeed(None) if self._open else fail(QueueError("the queue is not open"))

    def bring(self, info: MessageInfo, content: bytes) -> Deferred[QueuedMessage]:
        """Add a message; called at the end of an intake."""
        observer = self.observer
        claimed = observer is not None and not info.held and observer.claim(info)
        trouble = self._trouble() or self._there(info)
        if trouble is not None:
            if observer is not None and claimed:
                observer.unclaimed(info)
            return fail(trouble)
        message = self._add(info, content, leased=claimed)
        if observer is not None:
            small = content if claimed and len(content) <= INLINE_SIZE else None
            observer.arrived([(LeasedMessage(message, small), claimed)])
        return succeed(message)

    def _there(self, info: MessageInfo) -> QueueError | None:
        if info.id not in self.messages and info.file_key not in self._files:
            return None
        return QueueError(f"message {info.id} cannot be queued", detail="it is there")

    def _add(self, info: MessageInfo, content: bytes, *, leased: bool = False) -> QueuedMessage:
        if info.file_key is not None:
            self._files.add(info.file_key)
            info = evolve(info, file_key=None)
        recipients = enumerate(info.envelope.recipients)
        message = QueuedMessage(
            info,
            len(content),
            tuple(QueuedRecipient(n, recipient) for n, recipient in recipients),
            leased=leased,
            held=info.held,
        )
        self.contents[info.id] = content
        self.messages[info.id] = message
        return message

    # -- delivering ------------------------------------------------------------------------------

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        """See ``Queue.lease``."""
        trouble = self._trouble()
        if trouble is not None:
            return fail(trouble)
        ready = [m for m in self._all() if m.info.route == route and _is_ready(m)]
        # Messages due far in the future, after the clock was set back, come last.
        ready.sort(key=lambda m: (m.due > now, m.due))
        due = [m for m in ready if m.due <= now or m.due > max(now, horizon)]
        chosen = [m for m in due if not m.attempts][: max(0, fresh)]
        chosen += [m for m in due if m.attempts][: max(0, retries)]
        leased = []
        for message in chosen:
            taken = self._put(evolve(message, leased=True))
            content = self.contents[message.id]
            if taken is not None:
                leased.append(
                    LeasedMessage(taken, content if len(content) <= INLINE_SIZE else None)
                )
        return succeed(leased)

    def next_due(self) -> Deferred[dict[str, float]]:
        """See ``Queue.next_due``."""
        found: dict[str, float] = {}
        for message in filter(_is_ready, self._all()):
            route = message.info.route
            found[route] = min(message.due, found.get(route, message.due))
        return succeed(found)

    async def content(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002 - that is its name
        """See ``Queue.content``."""
        if id not in self.contents:
            raise QueueError(f"message {id} is not in the queue")
        content = self.contents[id]
        for start in range(0, len(content) or 1, INLINE_SIZE):
            yield content[start : start + INLINE_SIZE]

    def settle(self, settlement: AttemptRecord) -> Deferred[QueuedMessage | None]:
        """See ``Queue.settle``; it fails while ``broken`` is set, and the lease stays."""
        trouble = self._trouble()
        if trouble is not None:
            return fail(trouble)
        message = self.messages.get(settlement.id)
        if message is None or not message.leased:
            return succeed(message)
        for info, _ in settlement.reports:
            trouble = self._there(info)
            if trouble is not None:
                return fail(trouble)
        changes = {change.number: change for change in settlement.changes}
        left = self._put(
            evolve(
                message,
                recipients=tuple(
                    _changed(r, changes.get(r.number), settlement) for r in message.recipients
                ),
                leased=False,
                attempts=message.attempts + settlement.tried,
                interrupted=message.interrupted + settlement.in_doubt,
                warned=message.warned or settlement.warned,
                aside=settlement.aside or message.aside,
                due=0.0 if settlement.aside else message.due,
                age=0.0 if settlement.aside else message.age,
            )
        )
        for info, content in settlement.reports:
            report = self._add(info, content)
            if self.observer is not None:
                self.observer.arrived([(LeasedMessage(report), False)])
        return succeed(left)

    def release(self, leased: Sequence[LeasedMessage]) -> Deferred[None]:
        """See ``Queue.release``."""
        ids = [each.message.id for each in leased]
        for message in [self.messages[id_] for id_ in ids if id_ in self.messages]:
            self._put(evolve(message, leased=False))
        return succeed(None)

    def reroute(self, routes: dict[str, str]) -> Deferred[None]:
        """See ``Queue.reroute``."""
        for message in self._all():
            route = routes.get(message.info.route, message.info.route)
            self._put(evolve(message, info=evolve(message.info, route=route)))
        return succeed(None)

    # -- for the operator ------------------------------------------------------------------------

    def _selected(self, selection: Selection) -> list[QueuedMessage]:
        ids = {id_.upper() for id_ in selection.ids}
        after = selection.after or ""
        found = [m for m in self._all() if m.id > after and (not ids or m.id in ids)]
        found = [m for m in found if _fits(m, selection)][selection.offset :]
        return found[: selection.limit]

    def list(self, selection: Selection) -> Deferred[Sequence[QueuedMessage]]:
        """See ``Queue.list``."""
        return succeed(self._selected(selection))

    def act(
        self, action: QueueAction, selection: Selection, now: float
    ) -> Deferred[Sequence[QueueActionResult]]:
        """See ``Queue.act``."""
        acted = []
        routes = {""} if selection == Selection() else set()
        for message in self._selected(selection):
            changed = _acted(message, action, now)
            if changed is not None:
                self._put(changed)
                acted.append(QueueActionResult(message.id, on_its_way=message.leased))
                routes.add(message.info.route)
        flushes = action in {QueueAction.FLUSH, QueueAction.REQUEUE} and selection.uid is None
        if flushes and routes and self.observer is not None:
            self.observer.queue_flushed(routes)
        elif acted and self.observer is not None:
            self.observer.queue_changed()
        return succeed(acted)

    def count(self, selection: Selection) -> Deferred[int]:
        """See ``Queue.count``."""
        return succeed(len(self._selected(evolve(selection, limit=None, offset=0))))

    def record_route(self, name: str, down: DownRoute | None) -> Deferred[None]:
        """See ``Queue.record_route``: no other process reads this queue."""
        return succeed(None)

    def count_running(self, passed: float) -> Deferred[None]:
        """See ``Queue.count_running``."""
        for message in self._all():
            if not message.held:
                self.messages[message.id] = evolve(message, age=message.age + passed)
        return succeed(None)

    def clear_aside(self, keep: float) -> Deferred[Sequence[str]]:
        """See ``Queue.clear_aside``."""
        kept = [m for m in self._all() if m.aside is SetAsideReason.UNDELIVERABLE and not m.held]
        gone = [m for m in kept if m.age >= keep][:_MAX_CLEARED]
        for message in gone:
            self._put(evolve(message, doomed=True))
        return succeed([message.id for message in gone])

    def probe(self) -> Deferred[None]:
        """See ``Queue.probe``."""
        trouble = self._trouble()
        return succeed(None) if trouble is None else fail(trouble)

    def taken_files(self) -> Deferred[Sequence[str]]:
        """See ``Queue.taken_files``."""
        return succeed(sorted(self._files))

    def forget_files(self, keys: Sequence[str]) -> Deferred[None]:
        """See ``Queue.forget_files``."""
        trouble = self._trouble()
        if trouble is not None:
            return fail(trouble)
        self._files -= set(keys)
        return succeed(None)

    def totals(self) -> Deferred[QueueTotals]:
        """See ``Queue.totals``."""
        queues: dict[str, int] = {}
        deferred: dict[str, int] = {}
        for message in self._all():
            queues[message.queue_name] = queues.get(message.queue_name, 0) + 1
            for recipient in message.pending:
                if recipient.attempts or recipient.status is not None:
                    status = recipient.status or ""
                    deferred[status] = deferred.get(status, 0) + 1
        arrived = [m.info.arrived for m in self._all() if m.aside is None]
        octets = sum(m.size for m in self._all())
        return succeed(QueueTotals(queues, deferred, min(arrived, default=None), octets))


class _MemoryIntake(Intake):
    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._parts: list[bytes] | None = []

    def write(self, data: bytes) -> Deferred[None] | None:
        """See ``Intake.write``."""
        if self._parts is None:
            return fail(QueueError("the message has ended"))
        self._parts.append(data)
        return None

    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``."""
        if self._parts is None:
            return fail(QueueError("the message has ended"))
        content, self._parts = b"".join(self._parts), None
        return self._queue.bring(info, content)

    def abort(self) -> None:
        """See ``Intake.abort``."""
        self._parts = None


def _is_ready(message: QueuedMessage) -> bool:
    return not (message.leased or message.held or message.aside is not None)


def _is_over(message: QueuedMessage) -> bool:
    return not message.pending and message.aside is None


def _changed(
    recipient: QueuedRecipient, change: QueuedRecipient | None, settlement: AttemptRecord
) -> QueuedRecipient:
    if change is None or recipient.state is not RecipientState.PENDING:
        return recipient
    said: dict[str, Any] = {}
    if settlement.tried:
        said = {"attempts": recipient.attempts + 1, "tried": settlement.at}
    if settlement.tried or change.reply is not None or change.status is not None:
        said |= {"reply": change.reply, "status": change.status, "relay": change.relay}
    return evolve(recipient, state=change.state, due=change.due, **said)


def _fits(message: QueuedMessage, selection: Selection) -> bool:
    sender = str(message.info.envelope.sender) if message.info.envelope.sender.mailbox else ""
    to = [str(r.recipient) for r in message.recipients if r.state is not RecipientState.DELIVERED]
    meant = selection.recipient
    return (
        (selection.queue is None or selection.queue == message.queue_name)
        and (selection.route is None or selection.route == message.info.route)
        and (selection.uid is None or selection.uid == message.info.uid)
        and (selection.sender != "" or not sender)
        and (not selection.sender or fits(selection.sender, sender))
        and (meant is None or any(fits(meant, address) for address in to))
    )


def _acted(message: QueuedMessage, action: QueueAction, now: float) -> QueuedMessage | None:
    """Return the message after *action*; None if the action does not apply."""
    if action is QueueAction.DELETE:
        return evolve(message, doomed=True)
    if action is QueueAction.REQUEUE and message.aside is not SetAsideReason.DAMAGED:
        again = RecipientState.FAILED if message.aside is not None else RecipientState.PENDING
        return evolve(
            message,
            recipients=tuple(
                _as_new(r) if r.state in {RecipientState.PENDING, again} else r
                for r in message.recipients
            ),
            due=0.0,
            attempts=0,
            expired=False,
            warned=False,
            aside=None,
            age=0.0,
        )
    if message.aside is not None or (action is QueueAction.RELEASE and not message.held):
        return None
    if action is QueueAction.FLUSH:
        due = tuple(
            evolve(r, due=min(r.due, now)) if r.state is RecipientState.PENDING else r
            for r in message.recipients
        )
        return evolve(message, recipients=due, due=min(message.due, now))
    if action is QueueAction.EXPIRE:
        return evolve(message, expired=True, held=False, due=0.0)
    return evolve(message, held=action is QueueAction.HOLD)


def _as_new(recipient: QueuedRecipient) -> QueuedRecipient:
    return evolve(
        recipient,
        state=RecipientState.PENDING,
        due=0.0,
        attempts=0,
        reply=None,
        status=None,
        relay=None,
    )
