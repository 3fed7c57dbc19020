"""Measure the cost of the queue alone: adding, leasing and recording the results of messages of 4 KB.

python queue_cost.py [--messages 5000] [--together 16,64] [--content 4096] [--queued 10000] [--directory DIR]

Each line has the number of messages under way together, CPU microseconds a message (in the reactor's
thread and the queue's), messages and commits a second, and messages a commit. Then the time to
open a queue of 10,000 messages, and its memory.
"""

import argparse
import os
import resource
import tempfile
import time

from attrs import evolve
from twisted.internet import defer, reactor

from twisted_sendmail.queue import (
    AttemptRecord,
    MessageInfo,
    QueueObserver,
    RecipientState,
    SQLiteQueue,
    SQLiteStore,
)
from twisted_sendmail.queue.sqlite.connection import SQLiteConnection
from twisted_sendmail.smtp import Envelope

commits = 0
execute = SQLiteConnection.execute


def counted(self, sql, parameters=()):
    global commits
    commits += sql == "COMMIT"
    return execute(self, sql, parameters)


class Deliverer(QueueObserver):
    """Leases every message and records it as delivered at once."""

    def __init__(self, queue, content, total, together):
        self.queue, self.content, self.left, self.ends = queue, content, total, total
        self.done = defer.Deferred()
        queue.observer = self
        for _ in range(together):
            self.send()

    def send(self):
        if not self.left:
            return
        self.left -= 1
        n = self.left
        envelope = Envelope(f"sender{n % 100}@example.org", f"user{n}@example.com")
        intake = self.queue.intake()
        intake.write(self.content)
        intake.commit(
            MessageInfo(self.queue.new_id(), envelope, time.time(), "out", "SMTP from [127.0.0.1]")
        )

    def claim(self, info):
        return True

    def arrived(self, arrivals):
        for leased, _ in arrivals:
            settlement = AttemptRecord(
                leased.message.id,
                time.time(),
                tuple(
                    evolve(each, state=RecipientState.DELIVERED)
                    for each in leased.message.recipients
                ),
            )
            self.queue.settle(settlement).addCallback(self.settled)

    def settled(self, left):
        assert left is None
        self.ends -= 1
        if not self.ends:
            self.done.callback(None)
        self.send()

    def unclaimed(self, info):
        raise AssertionError(info)

    def queue_changed(self):
        pass


async def run(args):
    global commits
    content = os.urandom(args.content)
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        queue = SQLiteQueue(reactor, directory + "/q")
        await queue.open()
        for together in args.together:
            for _ in range(args.rounds):
                commits, wall, cpu = 0, time.perf_counter(), time.process_time()
                await Deliverer(queue, content, args.messages, together).done
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                print(
                    f"together {together:4}: {cpu / args.messages * 1e6:6.0f} us a message, "
                    f"{args.messages / wall:7.0f} messages/s, {commits / wall:6.0f} commits/s, "
                    f"{args.messages / commits:5.1f} messages a commit"
                )
        await queue.close()
    await queued(args, content)


async def queued(args, content):
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        place = directory + "/q"
        queue = SQLiteQueue(reactor, place)
        await queue.open()
        taking = []
        started = time.perf_counter()
        for n in range(args.queued):
            intake = queue.intake()
            intake.write(content)
            envelope = Envelope("a@example.org", f"user{n}@example.com")
            taking.append(intake.commit(MessageInfo(queue.new_id(), envelope, time.time(), "out")))
        await defer.gatherResults(taking)
        print(
            f"queued {args.queued}: {args.queued / (time.perf_counter() - started):.0f} messages/s"
        )
        await queue.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        queue = SQLiteQueue(reactor, place)
        await queue.open()
        print(f"open: {time.perf_counter() - started:.3f} s")
        for what, ask in (
            (
                "lease of 50",
                lambda: queue.lease("out", time.time(), fresh=50, retries=0, horizon=1e10),
            ),
            ("next_due", queue.next_due),
            ("totals", queue.totals),
        ):
            started = time.perf_counter()
            await ask()
            print(f"{what}: {(time.perf_counter() - started) * 1e3:.2f} ms")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"memory: {after / 1024:.0f} MB, {(after - before) / 1024:.0f} more than before")
        await queue.close()
        with SQLiteStore(place) as store:
            print(f"in the queue: {store.count()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--together", default="1,16,64,256")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--content", type=int, default=4096)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--directory")
    args = parser.parse_args()
    args.together = [int(n) for n in args.together.split(",")]
    SQLiteConnection.execute = counted

    def begin():
        done = defer.ensureDeferred(run(args))
        done.addErrback(lambda failure: failure.printTraceback())
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main()
