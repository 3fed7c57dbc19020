"""Run traffic in processes that end at the n-th call of the store, and audit the result.

``python -m tests.queue.crashes exit-before DIRECTORY``: for n = 1, 2, … until a run ends
untouched.  Prints a line for each fault, and at last how many runs there were.

It forks, and so it is a program of its own without threads.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from tests.names import QueueAction, Selection, SQLiteQueue
from tests.queue.failing_store import EXITED, exiting
from tests.queue.traffic import Audit, Record, Traffic


async def _life(directory: Path) -> None:
    """All that a spool is asked in its life."""
    spool = SQLiteQueue(Clock(), directory / "queue")
    record = Record(directory / "record")
    await spool.open()
    traffic = Traffic(spool, record)
    for _ in range(3):
        await traffic.bring()
    aborted = spool.intake()
    aborted.write(bytes(700_000))
    aborted.abort()
    await spool.act(QueueAction.FLUSH, Selection(), 0.0)
    taken = await spool.lease("out", 10_000.0, fresh=2, retries=2, horizon=1e6)
    await spool.release(taken)
    await traffic.drain()
    await spool.close()


async def _afterlife(directory: Path) -> list[str]:
    """What the next process finds; the faults."""
    clock = Clock()
    # Later than its first life: the ids go on.
    clock.advance(1000.0)
    spool = SQLiteQueue(clock, directory / "queue")
    record = Record(directory / "record")
    recovered = await spool.open()
    await Traffic(spool, record).drain()
    left = [message.id for message in await spool.list(Selection())]
    await spool.close()
    faults = Audit.of(directory / "record").faults(Counter(recovered.interrupted))
    return faults + [f"{id_} is still there" for id_ in left]


def _finished(coroutine: object) -> object:
    """The result of what never waits."""
    results: list[object] = []
    _ = ensureDeferred(coroutine).addBoth(results.append)  # type: ignore[arg-type]
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


def _in_a_child(directory: Path, when: str, number: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        exiting(when, number).install()
        _finished(_life(directory))
        os._exit(0)
    except BaseException:  # noqa: BLE001 - this process must end here
        traceback.print_exc()
        os._exit(1)


def main(when: str, place: str) -> None:
    number = status = 0
    while True:
        number += 1
        directory = Path(place) / str(number)
        directory.mkdir()
        status = _in_a_child(directory, when, number)
        faults = _finished(_afterlife(directory))
        for fault in faults:  # type: ignore[attr-defined]
            print(f"{when} {number}: {fault}")  # noqa: T201 - who started it reads it
        shutil.rmtree(directory)
        if status != EXITED:
            break
    print(f"{number} runs, the last one ended with {status}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
