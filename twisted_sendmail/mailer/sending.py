"""``send_many``: a stream of messages in, a stream of reports out.

The source is pulled only as fast as connections take messages and the caller takes
reports: both queues are bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.mailer.many import each, unreadable, unsent
from twisted_sendmail.mailer.prepared import prepared
from twisted_sendmail.smtp.errors import SendmailError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable

    from twisted_sendmail.mailer.mailer import Mailer
    from twisted_sendmail.mailer.many import Item
    from twisted_sendmail.smtp.outcome import DeliveryReport


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
        self._all_or_nothing = all_or_nothing
        self._complete = complete
        self._begun = 0
        self._under_way: dict[int, Deferred[Any]] = {}
        self._ready: deque[tuple[int, DeliveryReport]] = deque()
        self._watching: list[Deferred[None]] = []
        self._exhausted = False
        self._failure: Failure | None = None

    def __await__(self) -> Generator[Any, Any, list[DeliveryReport]]:
        return self.reports().__await__()

    async def reports(self) -> list[DeliveryReport]:
        """All reports, in the order of the messages."""
        found = [pair async for pair in self]
        return [report for _, report in sorted(found, key=lambda pair: pair[0])]

    def deferred(self) -> Deferred[list[DeliveryReport]]:
        """The same as a Deferred; cancelling it cancels every message not sent yet."""
        return Deferred.fromCoroutine(self.reports())

    async def __aiter__(self) -> AsyncIterator[tuple[int, DeliveryReport]]:
        """The place and the report of each message, as they come."""
        feeding = Deferred.fromCoroutine(self._feed())
        _ = feeding.addErrback(self._source_failed)
        try:
            while True:
                while self._ready:
                    yield self._ready.popleft()
                    self._stir()
                if self._failure is not None and not self._under_way:
                    self._failure.raiseException()
                if self._exhausted and not self._under_way:
                    return
                await self._changed()
        finally:
            feeding.cancel()
            for sending in list(self._under_way.values()):
                sending.cancel()

    async def _feed(self) -> None:
        limit = self._mailer.capacity
        async for item in each(self._messages):
            index, self._begun = self._begun, self._begun + 1
            sending = Deferred.fromCoroutine(self._one(item))
            self._under_way[index] = sending
            _ = sending.addCallbacks(self._done, self._cancelled, (index,), {}, (index,), {})
            while len(self._under_way) + len(self._ready) >= limit:
                await self._changed()
        self._exhausted = True
        self._stir()

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
            return await mailer.carry(letter, all_or_nothing=self._all_or_nothing)
        except CancelledError:
            raise
        except SendmailError as error:
            return replace(error.report, error=error) if error.report else unsent(envelope, error)
        except Exception as error:  # noqa: BLE001 - one bad message must not stop the others
            return unsent(envelope, unreadable(error))

    def _done(self, report: DeliveryReport, index: int) -> None:
        self._under_way.pop(index, None)
        self._ready.append((index, report))
        self._stir()

    def _cancelled(self, failure: Failure, index: int) -> None:
        self._under_way.pop(index, None)
        self._failure = self._failure or failure
        self._stir()

    def _source_failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._stir()

    def _changed(self) -> Deferred[None]:
        change: Deferred[None] = Deferred()
        self._watching.append(change)
        return change

    def _stir(self) -> None:
        watching, self._watching = self._watching, []
        for change in watching:
            if not change.called:
                change.callback(None)
