"""The process ends before, or after, the n-th call of the storage: for every n there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from tests.durability.audit import Ledger
from tests.durability.next_hop import NextHop
from tests.durability.relay_process import RelayProcess
from tests.durability.zygote import EXITED, Forked, Zygote
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNKNOWN = Reply(550, ("5.1.1 No such user",))
FULL = Reply(452, ("4.2.2 Mailbox full",))


class ForkedRelay(RelayProcess):
    """One that is forked, not started anew."""

    zygote: Zygote
    at = 0
    before = True

    def launch(self, **environment: str) -> Any:
        self.process = Forked(  # type: ignore[assignment]
            self.zygote,
            argv=self.command,
            log=str(self.folder / "log"),
            at=self.at,
            before=self.before,
        )
        return self.process


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


async def one_case(relay: ForkedRelay, ledger: Ledger, hop: NextHop, at: int) -> bool:
    """A run that ends at the *at*-th call, and one that clears up; True if the first did not end."""
    full = {f"c{at}"}

    def decide(address: str) -> Reply | None:
        if address.startswith("unknown"):
            return UNKNOWN
        if address.startswith("full") and full:
            full.clear()
            return FULL
        return None

    hop.at_recipient = decide
    relay.at = at
    process = relay.launch()
    while not relay.listens() and process.poll() is None:
        await relay.pause(0.01)
    mailer = relay.client(3)
    given = [
        ledger.send(f"c{at}-plain", ("x@r.example",)),
        ledger.send(f"c{at}-three", ("x@r.example", "unknown@r.example", "full@r.example")),
        ledger.send(f"c{at}-large", ("x@r.example",), size=400_000),
    ]
    giving = [Deferred.fromCoroutine(relay.give(mailer, each)) for each in given]
    since = time.monotonic()
    while process.poll() is None and (
        ledger.missing() or not all(each.acked for each in given) or time.monotonic() - since < 1.5
    ):
        assert time.monotonic() - since < 60, relay.log[-3000:]
        await relay.pause(0.02)
    untouched = process.poll() is None
    if not untouched:
        assert EXITED == process.poll(), relay.log[-3000:]
        ledger.hits.append(time.time())
    await mailer.aclose(grace=0.001)
    await DeferredList(giving)
    relay.kill()
    relay.at = 0
    took = await relay.start()
    assert took < 2 or not untouched
    await relay.drained(ledger)
    await relay.terminate()
    assert [] == ledger.complaints()
    return untouched


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest_twisted.ensureDeferred
async def test_an_end_at_any_call_of_the_storage(
    reactor: Any, tmp_path: Path, zygote: Zygote, before: bool
) -> None:
    ledger = Ledger()
    hop = NextHop(reactor, ledger)
    await hop.start()
    relay = ForkedRelay(reactor, tmp_path, hop)
    relay.zygote, relay.before = zygote, before
    try:
        at = 1
        while not await one_case(relay, ledger, hop, at):
            at += 1
        assert at > 20
        assert 1 == len(ledger.bounces(f"c{at}-three"))
    finally:
        relay.kill()
        await hop.stop()
