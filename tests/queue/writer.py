"""A process with a queue in a thread, and traffic through it until it is killed."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from tests.names import QueueUnusable, SQLiteQueue
from tests.queue.traffic import Record, Traffic


async def _run(reactor: object, directory: Path) -> None:
    spool = SQLiteQueue(reactor, directory / "queue")
    try:
        await spool.open()
    except QueueUnusable as e:
        print(e, flush=True)  # noqa: T201 - who started it reads it
        return
    print("open", flush=True)  # noqa: T201
    traffic = Traffic(spool, Record(directory / "record"))
    while True:
        bringing = [ensureDeferred(traffic.bring((20, 3_000, 70_000))) for _ in range(20)]
        taken = await spool.lease("out", 10_000.0, fresh=4, retries=4, horizon=1e6)
        ends: list[Deferred[None]] = [
            *bringing,
            *(ensureDeferred(traffic.deliver(leased)) for leased in taken),
        ]
        await gatherResults(ends)
        await traffic.settled()


def write(directory: Path) -> None:
    """Print ``open``, or why the queue cannot be opened, and go on until the end of the process."""
    from twisted.internet import reactor

    def begin() -> None:
        running = ensureDeferred(_run(reactor, directory))
        _ = running.addErrback(lambda failure: failure.printTraceback())
        _ = running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
