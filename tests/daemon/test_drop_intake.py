"""Mail of local programs on its way from the drop directory into the queue."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.cli.intake import run_intake
from tests.drop.test_drop_file import BOB, written
from tests.memory_queue import MemoryQueue
from tests.names import (
    SCAN_INTERVAL,
    Configuration,
    DropIntake,
    InlineWorker,
    QueueAction,
    QueuedMessage,
    QueueError,
    QueueFull,
    Selection,
    SQLiteQueue,
    SQLiteStore,
    read_configuration,
)
from tests.other_users import needs_root
from twisted_sendmail import SendmailError
from twisted_sendmail.daemon.drop_intake import MAX_SCAN_PAUSE
from twisted_sendmail.drop import DropDirectory, DropEnvelope, DropRecipient, read_settings
from twisted_sendmail.queue import Queue
from twisted_sendmail.queue.sqlite.connection import SQLiteConnection
from twisted_sendmail.testing.queue_conformance.messages import add_message

CONFIGURATION = """
name = "relay.example.org"
queue = "queue"
{}
[[smarthost]]
url = "smtp://mail.example.net"
"""
CONTENT = b"To: bob@example.net\r\nSubject: {}\r\n\r\nHi.\r\n"


class Spool:
    """A drop directory, and a relay's intake from it into a queue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "queue").mkdir(mode=0o700)
        self.drop = folder / "queue" / "drop"
        self.clock = Clock()
        self.clock.advance(time.time())
        self.queue = MemoryQueue(self.clock)
        self.logged: list[str] = []
        self.intake: DropIntake

    def configuration(self, more: str = "") -> Configuration:
        path = self.folder / "relay.toml"
        path.write_text(CONFIGURATION.format(more), "utf-8")
        return read_configuration(path, self.clock)

    def start(self, more: str = "", queue: Queue | None = None) -> DropIntake:
        queue = queue or self.queue
        fired(queue.open())
        self.intake = DropIntake(self.clock, queue)
        fired(Deferred.fromCoroutine(self.intake.apply(self.configuration(more))))
        self.intake.start()
        return self.intake

    def stop(self) -> None:
        fired(Deferred.fromCoroutine(self.intake.stop()))

    def scan(self) -> None:
        """Let time pass until the next scan."""
        self.clock.advance(SCAN_INTERVAL)

    def put(self, content: bytes = CONTENT, envelope: DropEnvelope = BOB) -> str:
        return written(self.drop, content, envelope=envelope)

    @property
    def messages(self) -> list[QueuedMessage]:
        return list(self.queue.messages.values())

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.drop.iterdir())


def fired(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired."""
    results: list[Any] = []
    _ = deferred.addBoth(results.append)
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        if event["log_namespace"] == "twisted_sendmail.daemon.drop":
            spool.logged.append(str(formatEvent(event)))

    globalLogPublisher.addObserver(note)
    yield spool
    globalLogPublisher.removeObserver(note)
    if hasattr(spool, "intake"):
        spool.stop()


# -- what is taken ---------------------------------------------------------------------


def test_files_are_taken_into_the_queue_and_removed(spool: Spool) -> None:
    intake = spool.start()
    spool.put(CONTENT)
    spool.put(CONTENT.replace(b"{}", b"2"))
    spool.scan()
    assert [message.size > len(CONTENT) for message in spool.messages] == [True, True]
    assert (spool.files, fired(spool.queue.taken_files())) == ([], [])
    assert (intake.stuck, spool.logged) == ({}, [])
    assert intake.totals == (0, 0.0, 0)


def test_the_relay_completes_the_header_and_records_the_user(spool: Spool) -> None:
    spool.start()
    name = spool.put(b"Subject: x\r\n\r\nHi.\r\n", BOB._replace(full_name="Alice Liddell"))
    os.utime(spool.drop / name, (1e9, 1e9))
    spool.scan()
    (message,) = spool.messages
    content = spool.queue.contents[message.id].decode()
    uid = os.geteuid()
    assert content.startswith(
        "Received: by relay.example.org (twisted_sendmail, invoked by "
        f"uid {uid})\r\n\tid {message.id}; "
    )
    assert "\r\nFrom: Alice Liddell <alice@example.org>\r\n" in content
    assert parsedate_to_datetime(content.partition("Date: ")[2].partition("\r")[0]).year == 2001
    assert "\r\nMessage-ID: <" in content
    assert message.info.uid == uid
    assert f"(uid {uid}) local" in message.info.origin
    assert message.info.arrived > 1.7e9


@needs_root
def test_the_user_is_the_owner_of_the_file(spool: Spool) -> None:
    spool.start()
    os.chown(spool.drop / spool.put(), 54321, -1)
    spool.scan()
    (message,) = spool.messages
    assert (message.info.uid, message.info.origin) == (54321, "unknown (uid 54321) local")


def test_a_file_whose_time_is_nonsense_gets_the_date_of_today(spool: Spool) -> None:
    spool.start()
    for seconds in (-1e12, 1e12):
        name = spool.put(b"To: b@x.org\r\n\r\nHi.\r\n")
        os.utime(spool.drop / name, (seconds, seconds))
    spool.scan()
    assert len(spool.messages) == 2


def test_content_of_others_is_repaired_as_that_of_the_command(spool: Spool) -> None:
    spool.start()
    spool.put(b"To: b@x.org\n\n1\r2\0\n.\nend")
    spool.scan()
    (content,) = spool.queue.contents.values()
    assert content.endswith(b"\r\n\r\n1\r\n2\r\n.\r\nend\r\n")


def test_binary_content_is_taken_unchanged(spool: Spool) -> None:
    spool.start()
    spool.put(b"To: b@x.org\r\n\r\n1\r2\0\n", BOB._replace(binary=True))
    spool.scan()
    (message,) = spool.messages
    assert message.info.binary
    assert spool.queue.contents[message.id].endswith(b"\r\n\r\n1\r2\0\n")


@pytest.mark.parametrize("size", [10, 70_000, 1_100_000, 5_000_000])
def test_a_message_of_any_size_is_taken_completely(spool: Spool, size: int) -> None:
    spool.start()
    body = (b"x" * 76 + b"\r\n") * (size // 78)
    spool.put(CONTENT + body)
    spool.scan()
    (content,) = spool.queue.contents.values()
    assert content.endswith(b"\r\n\r\nHi.\r\n" + body)
    assert spool.files == []


def test_the_envelope_comes_through(spool: Spool) -> None:
    spool.start()
    bob = DropRecipient("bob@example.net", "DELAY,SUCCESS", "rfc822;b@example.net")
    spool.put(CONTENT, DropEnvelope("", (bob,), ret="HDRS", envid="QQ", require_tls=True))
    spool.scan()
    (message,) = spool.messages
    envelope = message.info.envelope
    (recipient,) = envelope.recipients
    assert envelope.sender.mailbox is None
    assert (envelope.ret, envelope.envid, envelope.require_tls) == ("HDRS", "QQ", True)
    assert (set(recipient.notify), recipient.orcpt) == ({"DELAY", "SUCCESS"}, bob.orcpt)


# -- what is not taken -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("envelope", "content", "why"),
    [
        (BOB._replace(sender="a@b\r\nRCPT TO:<c@d>"), CONTENT, "cannot be used"),
        (BOB._replace(recipients=()), CONTENT, "no recipient"),
        (BOB._replace(recipients=(DropRecipient("bob@@x"),)), CONTENT, "cannot be used"),
        (BOB._replace(recipients=(DropRecipient("b@x.org", "OFTEN"),)), CONTENT, "NOTIFY=OFTEN"),
        (BOB._replace(recipients=(DropRecipient("b@x.org", "", "x"),)), CONTENT, "ORCPT"),
        (BOB._replace(recipients=BOB.recipients * 4), CONTENT, "more than 3 recipients"),
        (BOB._replace(envid="\x00"), CONTENT, "ENVID cannot be used"),
        (BOB, b"Received: x\r\n" * 102 + CONTENT, "mail loop"),
        (BOB, b"x" * 200_000, "the limit is"),
        (BOB, b"A: b\r\n" * 2002, "too many fields"),
        (BOB, b"A: " + b"b" * 80_000 + b"\r\n\r\n", "its header is too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_queued_is_reported_once_and_delays_no_other(
    spool: Spool, envelope: DropEnvelope, content: bytes, why: str
) -> None:
    spool.start("[limits]\nrecipients = 3\nmessage-size = 100000\nheader-size = 9000\n")
    name = spool.put(content, envelope)
    spool.put()
    spool.scan()
    assert (len(spool.messages), spool.files) == (1, [name])
    (line,) = spool.logged
    assert line.startswith(f"{spool.drop}/{name} of uid {os.geteuid()} is not taken: ")
    assert why in line
    spool.scan()
    assert spool.logged == [line]


def test_a_damaged_large_file_leaves_nothing_in_the_queue(spool: Spool) -> None:
    spool.start()
    path = spool.drop / spool.put(CONTENT + b"x\r\n" * 700_000)
    octets = bytearray(path.read_bytes())
    octets[-100] ^= 1
    path.write_bytes(octets)
    spool.scan()
    assert spool.messages == []
    (line,) = spool.logged
    assert "its checksum differs" in line


def test_a_hostile_name_forges_no_line_of_the_log(spool: Spool) -> None:
    spool.start()
    (spool.drop / "x\n2026 forged \x1b[2J").symlink_to("/absent")
    spool.scan()
    (line,) = spool.logged
    assert "/x\\x0a2026 forged \\x1b[2J of uid" in line


def test_lines_about_bad_files_are_limited(spool: Spool) -> None:
    spool.start()
    for number in range(50):
        (spool.drop / f"link-{number}").symlink_to("/absent")
    spool.scan()
    spool.scan()
    assert len(spool.logged) == 21
    assert spool.logged[-1] == f"30 more files in {spool.drop} are not taken"


# -- exactly once ----------------------------------------------------------------------


def test_a_file_that_was_taken_before_a_crash_is_removed_and_not_taken_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.start()
    name = spool.put()
    with monkeypatch.context() as patch:
        patch.setattr(DropDirectory, "remove", _fail)
        spool.scan()
        spool.stop()
    assert (len(spool.messages), spool.files) == (1, [name])
    # It was delivered meanwhile.
    _ = fired(spool.queue.act(QueueAction.DELETE, Selection(), 0.0))
    spool.start()
    assert (spool.messages, spool.files) == ([], [])
    assert fired(spool.queue.taken_files()) == []


def _fail(*_: object, **__: object) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def test_a_file_that_cannot_be_removed_is_reported_and_not_taken_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = spool.start()
    name = spool.put()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", _fail)
        spool.scan()
        spool.scan()
        assert [key.name for key in intake.stuck] == [name]
        spool.stop()
        intake = spool.start()
    spool.scan()
    assert len(spool.messages) == 1
    line = (
        f"{spool.drop}/{name} of uid {os.geteuid()} was taken and cannot be removed: "
        "Input/output error; it is not taken again: remove it"
    )
    assert spool.logged == [line, line]
    assert (intake.stuck, spool.files) == ({}, [])


@needs_root
def test_another_user_cannot_suppress_a_message_by_its_name(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.start()
    path = spool.drop / spool.put()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", _fail)
        spool.scan()
    os.chown(path, 54321, -1)
    spool.scan()
    assert [message.info.uid for message in spool.messages] == [0, 54321]
    assert spool.files == []


def test_while_the_queue_refuses_mail_it_stays_in_the_directory(spool: Spool) -> None:
    spool.start()
    spool.queue.broken = QueueFull("the queue is short of room", remedy="make room")
    spool.put()
    spool.put(CONTENT + b"x\r\n" * 700_000)
    for _ in range(3):
        spool.scan()
    assert (spool.messages, len(spool.files)) == ([], 2)
    assert spool.logged == [f"mail of local programs waits in {spool.drop}: {spool.queue.broken}"]
    spool.queue.broken = None
    spool.scan()
    assert (len(spool.messages), spool.files) == (2, [])


def test_a_message_whose_commit_failed_in_doubt_is_not_queued_twice(spool: Spool) -> None:
    spool.start()
    bring = spool.queue.bring

    def bring_in_doubt(*args: Any) -> Deferred[Any]:
        _ = bring(*args)
        return fail(QueueError("the queue could not take the message in"))

    spool.queue.bring = bring_in_doubt  # type: ignore[method-assign,assignment]
    spool.put()
    spool.scan()
    spool.queue.bring = bring  # type: ignore[method-assign]
    assert (len(spool.messages), len(spool.files)) == (1, 1)
    spool.scan()
    assert (len(spool.messages), spool.files) == (1, [])


def test_a_message_that_the_queue_never_takes_delays_no_other(spool: Spool) -> None:
    spool.start()
    bring = spool.queue.bring

    def refuse_one(info: Any, content: bytes) -> Deferred[Any]:
        if b"poison" not in content:
            return bring(info, content)
        error = QueueError("message cannot be queued")
        error.temporary = False
        return fail(error)

    spool.queue.bring = refuse_one  # type: ignore[method-assign]
    name = spool.put(CONTENT + b"poison\r\n")
    # More than are committed together.
    for _ in range(70):
        spool.put()
    spool.scan()
    spool.clock.advance(MAX_SCAN_PAUSE)
    assert (len(spool.messages), spool.files) == (70, [name])
    assert len(spool.logged) == 1


def test_disk_space_is_reserved_for_mail_that_comes_by_smtp(tmp_path: Path, spool: Spool) -> None:
    """The queue accepts mail that comes by SMTP, and leaves files in the directory."""
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    queue = SQLiteQueue(
        spool.clock, tmp_path / "queue", worker=InlineWorker(), least_free=free * 2 // 3
    )
    spool.start(queue=queue)
    spool.put()
    spool.scan()
    assert (fired(queue.count(Selection())), len(spool.files)) == (0, 1)
    (line,) = spool.logged
    assert "MiB are left for mail that comes by SMTP" in line
    fired(Deferred.fromCoroutine(add_message(queue, CONTENT)))
    spool.stop()
    fired(queue.close())


def test_files_wait_until_the_queue_has_space(spool: Spool) -> None:
    spool.start()
    spool.put()
    spool.queue.space = -1
    spool.scan()
    assert (spool.messages, len(spool.files)) == ([], 1)
    spool.queue.space = None
    spool.scan()
    assert (len(spool.messages), spool.files) == (1, [])


def test_a_large_file_for_which_there_is_no_space_delays_no_smaller_one(
    spool: Spool,
) -> None:
    spool.start()
    spool.queue.space = 1_000_000
    spool.put(CONTENT + b"x\r\n" * 700_000)
    spool.put()
    spool.scan()
    assert (len(spool.messages), len(spool.files)) == (1, 1)
    spool.queue.space = None
    spool.scan()
    assert (len(spool.messages), spool.files) == (2, [])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_neither_loses_nor_doubles_a_message(
    tmp_path: Path, *, after: bool
) -> None:
    """Each run takes three files, and is killed at the n-th call that changes directory or queue."""
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        spool = Spool(folder)
        configuration = spool.configuration()
        run_intake(configuration)
        for _ in range(3):
            spool.put()
        died = in_a_process(partial(run_intake, configuration), number, after=after)
        run_intake(configuration)
        with SQLiteStore(configuration.queue) as store, store.transaction(write=False):
            assert len(store.list(Selection())) == 3
            assert store.taken_files() == []
        assert spool.files == []
        if not died:
            return
    raise AssertionError("the calls do not end")


def in_a_process(work: Callable[[], None], number: int, *, after: bool) -> bool:
    """Do *work* in another process that is killed at its *number*-th call; whether it was."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def count(*args: Any, **given: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == number and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **given)
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return count

        try:
            for name in ("unlink", "fsync"):
                setattr(os, name, counted(getattr(os, name)))
            SQLiteConnection.execute = counted(SQLiteConnection.execute)  # type: ignore[method-assign]
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


# -- the spool directory ---------------------------------------------------------------


def test_the_command_s_settings_are_those_of_the_configuration(spool: Spool) -> None:
    intake = spool.start(
        "[rewrite]\nappend-domain = 'example.org'\nlocal-mail-to = 'a@example.com'\n"
        "[limits]\nmessage-size = 1000\nrecipients = 7\nhops = 8\nheader-size = 900\n"
    )
    path = spool.folder / "queue" / "sendmail.json"
    settings = read_settings(str(path))
    assert settings == (
        *(str(spool.folder / "queue"),) * 2,
        *("relay.example.org", "example.org", "relay.example.org"),
        *(1000, 900, 7, 8),
    )
    assert path.stat().st_mode & 0o777 == 0o644
    fired(Deferred.fromCoroutine(intake.apply(spool.configuration())))
    assert read_settings(str(path)).message_size == 50 << 20
    assert sorted(each.name for each in path.parent.iterdir()) == ["drop", "sendmail.json"]


def test_a_shared_drop_directory_is_not_made_by_the_relay(spool: Spool) -> None:
    shared = spool.folder / "spool"
    shared.mkdir()
    with pytest.raises(SendmailError, match="it does not exist; make it, as root: install -d"):
        spool.start(f'spool = "{shared}"')
    (shared / "drop").mkdir()
    (shared / "drop").chmod(0o777)
    with pytest.raises(SendmailError, match="its mode is 0777"):
        spool.start(f'spool = "{shared}"')
    (shared / "drop").chmod(0o3733)
    spool.start(f'spool = "{shared}"')
    assert read_settings(str(shared / "sendmail.json")).directory == f"{shared}/drop"


def test_two_relays_cannot_share_a_drop_directory(spool: Spool) -> None:
    (spool.folder / "spool" / "drop").mkdir(parents=True)
    (spool.folder / "spool" / "drop").chmod(0o3733)
    shared = f'spool = "{spool.folder}/spool"'
    first = spool.start(shared)
    with pytest.raises(SendmailError, match="is in use: another relay takes the mail in it; stop"):
        spool.start(shared, MemoryQueue(spool.clock))
    fired(Deferred.fromCoroutine(first.stop()))
    spool.start(shared, MemoryQueue(spool.clock))


def test_a_directory_that_was_replaced_is_used(spool: Spool) -> None:
    spool.start()
    spool.drop.rename(spool.folder / "old")
    spool.scan()
    assert "cannot" not in "".join(spool.logged)
    spool.drop.mkdir()
    spool.drop.chmod(0o3733)
    spool.put()
    spool.scan()
    assert (len(spool.messages), spool.files) == (1, [])
