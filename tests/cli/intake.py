"""Takes mail of local programs into a queue on disk, without a reactor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.names import DropIntake, SQLiteQueue

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from tests.names import Configuration


def run_intake(configuration: Configuration) -> None:
    """Take everything in the drop directory into the queue, as a relay does when it starts."""
    clock = Clock()
    clock.advance(time.time())
    queue = SQLiteQueue(clock, configuration.queue)
    intake = DropIntake(clock, queue)

    async def run() -> None:
        await queue.open()
        await intake.apply(configuration)
        intake.start()
        await intake.stop()
        await queue.close()

    done = Deferred.fromCoroutine(run())
    failures: list[Failure] = []
    _ = done.addErrback(failures.append)
    assert done.called
    for failure in failures:
        failure.raiseException()
