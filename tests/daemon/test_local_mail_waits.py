"""Mail of local programs while the queue refuses mail: it stays, is counted, and is taken later."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThread

from tests.ports import free_ports
from twisted_sendmail import Envelope
from twisted_sendmail.cli.sendmail.mailq import mailq_lines
from twisted_sendmail.cli.sendmail.spool import drop_envelope, put
from twisted_sendmail.drop import read_settings
from twisted_sendmail.queue import Intake, QueuedMessage, QueueError

if TYPE_CHECKING:
    import pytest

    from tests.daemon.conftest import Stage
    from twisted_sendmail.queue import MessageInfo


class _RefusingIntake(Intake):
    """An intake of a queue whose database is away."""

    def write(self, data: bytes) -> None:
        return None

    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        return fail(QueueError("the database is away"))

    def abort(self) -> None:
        return None


@ensureDeferred
async def test_mail_stays_in_the_drop_directory_while_the_queue_refuses_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    daemon = await stage.started(stage.text(more=f'[admin]\nendpoint = "tcp:127.0.0.1:{port}"'))
    settings = read_settings(f"{stage.folder.path}/queue/sendmail.json")
    drop = daemon.drop
    assert drop is not None

    async def fetched(path: str) -> str:
        def get() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return bytes(answer.read())

        return (await deferToThread(get)).decode()

    def waiting(number: int) -> Any:
        return lambda: drop.totals is not None and drop.totals.files == number

    with monkeypatch.context() as patched:
        patched.setattr(daemon.relay.queue, "intake", _RefusingIntake)
        envelope = drop_envelope(Envelope("alice@example.org", ["bob@example.net"]))
        await deferToThread(put, settings, envelope, [b"Subject: x\n\nx\n"])
        await stage.until(waiting(1))
        assert (await fetched("/healthz")).startswith(
            "ok\n1 message waits in the drop directory for "
        )
        assert "twisted_sendmail_drop_messages 1.0" in await fetched("/metrics")
        assert stage.hop.messages == []
    drop.look()
    (message,) = await stage.hop.wait_for(1)
    assert str(message.sender) == "alice@example.org"
    # A message that was taken does not wait any more, also before the next scan.
    assert drop.totals == (0, 0.0, 0)
    assert await fetched("/healthz") == "ok\n"


def test_mailq_shows_what_waits_before_its_last_line() -> None:
    notice = "2 messages wait in the drop directory, the oldest for 5 s"
    assert list(mailq_lines([{"end": 0, "notice": notice}])) == [
        f"-- {notice}",
        "Mail queue is empty",
    ]
