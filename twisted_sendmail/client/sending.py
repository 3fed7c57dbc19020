"""``send_many``: a stream of messages in, a stream of reports out.

The source is pulled only as fast as connections take messages and the caller takes
reports: both queues are bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.job import Job
from twisted_sendmail.client.many import checked, unreadable, unsent
from twisted_sendmail.client.prepared_message import prepared
from twisted_sendmail.message import ready_letter
from twisted_sendmail.smtp import DeliveryReport, SendmailError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable

    from twisted_sendmail.client.job import Ending
    from twisted_sendmail.client.mailer import Mailer
    from twisted_sendmail.client.many import Item
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import Envelope


class Sending:
    """What ``Mailer.send_many`` gives: await it, or iterate over it; once."""

    def __init__(
        self,
        mailer: Mailer,
        messages: Iterable[Item] | AsyncIterable[Item],
        *,
        all_or_nothing: bool,
        complete: bool,
    ) -> None:
        self._mailer = mailer
        self._messages = messages
        self.all_or_nothing = all_or_nothing
        self._complete = complete
        self._capacity = mailer.capacity
        self._begun = 0
        self._under_way: dict[int, Deferred[Any] | _Piece] = {}
        self._ready: deque[tuple[int, DeliveryReport]] = deque()
        # All reports are asked for at once: nobody is told of each.
        self._collecting = False
        self._news: Deferred[None] | None = None
        self._room: Deferred[None] | None = None
        self._exhausted = False
        self._failure: Failure | None = None

    def __await__(self) -> Generator[Any, Any, list[DeliveryReport]]:
        return self.reports().__await__()

    async def reports(self) -> list[DeliveryReport]:
        """All reports, in the order of the messages.

        :raises Cancelled: with the reports of the messages that were begun.
        """
        self._collecting = True
        found = []
        try:
            async for pair in self:
                found.append(pair)  # noqa: PERF401 - what was found is needed if it is cut off
        except CancelledError:
            error = Cancelled("cancelled")
            error.reports = _in_order([*found, *self._ready])
            raise error from None
        return list(_in_order(found))

    def deferred(self) -> Deferred[list[DeliveryReport]]:
        """The same as a Deferred.

        Cancelling it cancels every message not sent yet, and fails with a
        :class:`~twisted_sendmail.client.connection.Cancelled`, whose ``reports`` are those of
        the messages begun.
        """
        return Deferred.fromCoroutine(self.reports())

    async def __aiter__(self) -> AsyncIterator[tuple[int, DeliveryReport]]:
        """The place and the report of each message, as they come."""
        feeding = Deferred.fromCoroutine(self._feed())
        _ = feeding.addErrback(self._source_failed)
        try:
            while True:
                while self._ready and not (self._collecting and self._busy):
                    yield self._ready.popleft()
                    self._make_room()
                if not self._busy:
                    if self._failure is not None:
                        self._failure.raiseException()
                    return
                self._news = Deferred()
                await self._news
        finally:
            feeding.cancel()
            for sending in list(self._under_way.values()):
                sending.cancel()

    @property
    def _busy(self) -> bool:
        return bool(self._under_way) or not (self._exhausted or self._failure)

    async def _feed(self) -> None:
        if hasattr(self._messages, "__aiter__"):
            async for item in self._messages:
                self._begin([item])
                await self._held_back()
        else:
            items = iter(checked(self._messages))
            while True:
                batch: list[Item] = []
                try:
                    batch.extend(islice(items, self._space))
                finally:
                    # What was pulled is sent, also if the source fails behind it.
                    self._begin(batch)
                if not batch:
                    break
                await self._held_back()
        self._exhausted = True
        self._tell()

    @property
    def _space(self) -> int:
        """How many more messages may be pulled now."""
        waiting = 0 if self._collecting else len(self._ready)
        return max(0, self._capacity - len(self._under_way) - waiting)

    async def _held_back(self) -> None:
        """Wait for space; for a good deal of it, as many go out together."""
        while not self._space:
            self._room = Deferred()
            await self._room

    def _make_room(self) -> None:
        if self._room is not None and self._space * 2 >= self._capacity:
            room, self._room = self._room, None
            room.callback(None)

    def _begin(self, items: list[Item]) -> None:
        """Send *items*, those together that need no preparation."""
        jobs = []
        now = self._mailer.reactor.seconds()
        for item in items:
            index, self._begun = self._begun, self._begun + 1
            envelope, message = item if isinstance(item, tuple) else (None, item)
            letter = envelope and ready_letter(message, envelope, complete=self._complete)
            if letter:
                piece = _Piece(self, index, letter, now)
                jobs.append(piece)
                self._under_way[index] = piece
            else:
                sending = Deferred.fromCoroutine(self._one(item))
                self._under_way[index] = sending
                _ = sending.addCallbacks(self._done, self._cancelled, (index,), {}, (index,), {})
        if jobs:
            self._mailer.begin(jobs)

    async def _one(self, item: Item) -> DeliveryReport:
        envelope, message = item if isinstance(item, tuple) else (None, item)
        mailer = self._mailer
        try:
            letter = await prepared(
                mailer.reactor,
                message,
                sender=None,
                recipients=None,
                envelope=envelope,
                complete=self._complete,
            )
            envelope = letter.envelope
            return await mailer.carry(letter, all_or_nothing=self.all_or_nothing)
        except CancelledError:
            raise
        except SendmailError as error:
            return _reported(error, envelope)
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the others
            return unsent(envelope, unreadable(error))

    def settled(self, index: int, result: Ending, envelope: Envelope) -> None:
        """The end of a message that needed no preparation."""
        self._mailer.counted(result)
        if isinstance(result, DeliveryReport):
            self._done(result, index)
            return
        failure = result if isinstance(result, Failure) else Failure(result)
        try:
            report = _with_error(failure, envelope)
        except BaseException:  # noqa: BLE001 - it is passed on
            self._cancelled(failure, index)
        else:
            self._done(report, index)

    def abandon(self, piece: _Piece) -> None:
        """Nobody waits for *piece* any more."""
        self._mailer.cancel(piece)

    def _done(self, report: DeliveryReport, index: int) -> None:
        self._under_way.pop(index, None)
        self._ready.append((index, report))
        self._make_room()
        self._tell()

    def _cancelled(self, failure: Failure, index: int) -> None:
        self._under_way.pop(index, None)
        error = failure.value
        if isinstance(error, Cancelled) and error.report is not None:
            self._ready.append((index, replace(error.report, error=error)))
        self._source_failed(failure)

    def _source_failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._tell()

    def _tell(self) -> None:
        """Wake who takes the reports, if there is something to take."""
        if self._news is not None and not (self._collecting and self._busy):
            news, self._news = self._news, None
            news.callback(None)


class _Piece(Job):
    """One of many that needed no preparation: nobody awaits it but the sending."""

    __slots__ = ("_index", "_sending")

    def __init__(self, sending: Sending, index: int, letter: PreparedMessage, since: float) -> None:
        super().__init__(letter, all_or_nothing=sending.all_or_nothing, since=since)
        self._sending = sending
        self._index = index

    def told(self, result: Ending) -> None:
        self._sending.settled(self._index, result, self.letter.envelope)

    def cancel(self) -> None:
        self._sending.abandon(self)


def _in_order(pairs: Iterable[tuple[int, DeliveryReport]]) -> tuple[DeliveryReport, ...]:
    return tuple([report for _, report in sorted(pairs, key=itemgetter(0))])


def _reported(error: SendmailError, envelope: Envelope | None) -> DeliveryReport:
    return replace(error.report, error=error) if error.report else unsent(envelope, error)


def _with_error(failure: Failure, envelope: Envelope) -> DeliveryReport:
    """The report of a job that failed.

    :raises CancelledError: it was cancelled.
    """
    error = failure.value
    if isinstance(error, SendmailError) and not isinstance(error, CancelledError):
        return _reported(error, envelope)
    if isinstance(error, CancelledError) or not isinstance(error, Exception):
        failure.raiseException()
    return unsent(envelope, unreadable(error))
