"""``queue export`` and ``queue import``: from any engine to any other, without losing or changing a message."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.cli.queues import Queue
from tests.cli.shell import Done
from twisted_sendmail import Recipient
from twisted_sendmail.cli.main import main
from twisted_sendmail.drop import DropSettings, write_settings
from twisted_sendmail.queue import (
    PIECE_SIZE,
    WAKEUP,
    LeasedMessage,
    QueueAction,
    QueuedMessage,
    Selection,
    open_store,
)

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL

LARGE = b"From: a@b\r\n\r\n" + b"0123456789abcdef\r\n" * (2 * PIECE_SIZE // 18)


class Run:
    """The subcommand in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, action: str, place: object, *words: object) -> Done:
        status = main(["queue", action, "--queue", str(place), *map(str, words)])
        out, err = self._capfd.readouterr()
        return Done(status, out, err).check()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """A queue with messages in every state."""
    queue = Queue(tmp_path / "queue")
    queue.take("", ["postmaster@example.net"])
    bob = Recipient("bob@example.net", ["FAILURE"], "rfc822;b@example.net")
    two = queue.take(recipients=[bob, "carol@example.net"], ret="HDRS", envid="x")
    queue.deliver(two, 0)
    queue.release(*set(queue.lease()) - {two})
    queue.set_aside(queue.take("", ["gone@example.net"]))
    queue.release(*queue.lease())
    queue.defer(queue.take(recipients=["later@example.net"]))
    queue.hold(queue.take(content=LARGE))
    queue.take(content=LARGE, route="other")
    with open_store(queue.directory) as store, store.transaction():
        store.count_running(5000.0)
        store.act(QueueAction.EXPIRE, Selection(ids=(two,)), 0.0)
        leased = [message for message in store.list(Selection()) if message.leased]
        store.release([LeasedMessage(message) for message in leased])
    queue.take(content=b"new\r\n")
    return queue


def contents(place: object) -> dict[str, tuple[QueuedMessage, bytes]]:
    with open_store(str(place)) as store, store.transaction(write=False):
        return {
            # Ages are of the moment; their sum with other figures is floating.
            message.id: (
                attrs.evolve(message, age=round(message.age, 3)),
                b"".join(store.content(message.id)),
            )
            for message in store.list(Selection())
        }


def test_messages_are_the_same_after_each_way_between_engines(
    run: Run, queue: Queue, tmp_path: Path, postgresql: PostgreSQL, database: str
) -> None:
    original = contents(queue.directory)
    assert len(original) == 7
    places: list[Any] = [
        queue.directory,
        tmp_path / "second",
        postgresql.url(database, schema="one"),
        postgresql.url(database, schema="two"),
        tmp_path / "last",
    ]
    for number, place in enumerate(places[1:]):
        file = tmp_path / f"export{number}"
        done = run("export", places[number], "-o", file)
        assert (done.status, done.out) == (0, "7 messages exported\n")
        done = run("import", place, file)
        assert (done.status, done.out, done.err) == (0, "7 messages imported\n", "")
        assert contents(place) == original


def test_a_second_import_adds_nothing(run: Run, queue: Queue, tmp_path: Path) -> None:
    file, place = tmp_path / "export", tmp_path / "second"
    run("export", queue.directory, "-o", file)
    run("import", place, file)
    done = run("import", place, file)
    assert done.out == "0 messages imported\n7 of the export were in the queue before\n"
    assert contents(place) == contents(queue.directory)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_of_an_export_that_ends_too_early_nothing_is_tried_until_it_is_complete(
    run: Run, queue: Queue, tmp_path: Path, share: float
) -> None:
    file, part, place = tmp_path / "export", tmp_path / "part", tmp_path / "second"
    run("export", queue.directory, "-o", file)
    octets = file.read_bytes()
    part.write_bytes(octets[: int(len(octets) * share)])
    done = run("import", place, part)
    assert done.status == 65
    assert "the export cannot be imported" in done.err
    assert all(m.held or m.aside for m, _ in contents(place).values())
    assert run("import", place, file).status == 0
    assert contents(place) == contents(queue.directory)


def test_a_changed_octet_is_found(run: Run, queue: Queue, tmp_path: Path) -> None:
    file = tmp_path / "export"
    run("export", queue.directory, "-o", file)
    octets = file.read_bytes()
    for old, new in (
        (b"new\r\n", b"old\r\n"),
        (b"bob@", b"eve@"),
        (b'"attempts":1', b'"attempts":7'),
    ):
        assert old in octets
        file.write_bytes(octets.replace(old, new, 1))
        done = run("import", tmp_path / "second", file)
        assert (done.status, "damaged" in done.err) == (65, True), done
    assert all(m.held or m.aside for m, _ in contents(tmp_path / "second").values())


def test_a_file_that_is_no_export_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"MAIL FROM:<a@b>\r\n" * 3)
    done = run("import", tmp_path / "queue", tmp_path / "file")
    assert (done.status, done.out) == (65, "")
    assert "a line is not one of an export" in done.err


def test_while_a_relay_has_the_queue_it_is_not_exported(
    run: Run, queue: Queue, tmp_path: Path
) -> None:
    with socket(AF_UNIX, SOCK_DGRAM) as relay:
        relay.bind(str(queue.directory / WAKEUP))
        done = run("export", queue.directory, "-o", tmp_path / "export")
    assert done.status == 75
    assert "stop it first" in done.err
    assert not (tmp_path / "export").exists()


def test_an_attempt_that_did_not_end_is_named_and_counted(
    run: Run, queue: Queue, tmp_path: Path
) -> None:
    (leased,) = queue.lease(route="other")
    done = run("export", queue.directory, "-o", tmp_path / "export")
    assert f"message {leased} may have been delivered" in done.err
    run("import", tmp_path / "second", tmp_path / "export")
    message, _ = contents(tmp_path / "second")[leased]
    assert (message.leased, message.interrupted) == (False, 1)


def test_a_damaged_message_is_named_and_left_out(run: Run, queue: Queue, tmp_path: Path) -> None:
    damaged = queue.damage(next(iter(queue.messages)))
    done = run("export", queue.directory, "-o", tmp_path / "export")
    assert (done.status, done.out) == (65, "6 messages exported\n")
    assert f"message {damaged} is damaged, and was left out" in done.err
    assert run("import", tmp_path / "second", tmp_path / "export").status == 0


def test_an_existing_file_is_not_overwritten(run: Run, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("mine")
    done = run("export", queue.directory, "-o", tmp_path / "export")
    assert (done.status, (tmp_path / "export").read_text()) == (73, "mine")


def test_a_password_in_the_url_is_refused_and_not_shown(run: Run) -> None:
    done = run("list", "postgresql://relay:s3cret@localhost/mail")
    assert done.status == 78
    assert "there is a password in it" in done.err
    assert "s3cret" not in done.err


def test_a_database_that_does_not_answer_may_later(run: Run) -> None:
    done = run("list", "postgresql://relay@127.0.0.1:1/mail")
    assert done.status == 75
    assert "the database of the queue cannot be reached" in done.err


def test_migrate_makes_the_tables(run: Run, postgresql: PostgreSQL, database: str) -> None:
    url = postgresql.url(database)
    assert run("list", url).status == 78
    for _ in range(2):
        done = run("migrate", url)
        assert done.status == 0
        assert "the queue has the format of this release" in done.out
    assert run("list", url).out.startswith("the queue is empty")


def test_commands_change_a_queue_in_a_database(
    run: Run, queue: Queue, tmp_path: Path, postgresql: PostgreSQL, database: str
) -> None:
    url = postgresql.url(database)
    run("export", queue.directory, "-o", tmp_path / "export")
    run("import", url, tmp_path / "export")
    assert run("hold", url, "--recipient", "later@example.net").out == "1 message held\n"
    assert run("release", url, "--recipient", "later@example.net").out == "1 message released\n"
    assert run("delete", url, "--all").out == "7 messages deleted\n"
    assert contents(url) == {}


def test_mailq_shows_and_flushes_a_queue_in_a_database_without_a_relay(
    run: Run, queue: Queue, tmp_path: Path, postgresql: PostgreSQL, database: str
) -> None:
    url, spool = postgresql.url(database), tmp_path / "spool"
    spool.mkdir()
    run("export", queue.directory, "-o", tmp_path / "export")
    run("import", url, tmp_path / "export")
    write_settings(
        DropSettings(str(spool), url, "relay.example", "a.example", "b.example", 1000, 1000, 10, 10)
    )
    program = Path(sys.executable).with_name("twisted-sendmail-sendmail")
    environment = {**os.environ, "TWISTED_SENDMAIL_SPOOL": str(spool)}
    shown, flushed = (
        subprocess.run(
            [str(program), option], env=environment, capture_output=True, text=True, check=False
        )
        for option in ("-bp", "-q")
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[-1].endswith("in 7 Requests.")
    assert all(name in shown.stdout for name in contents(url))
    assert (flushed.returncode, flushed.stdout, flushed.stderr) == (0, "", "")
    tried = [m for m, _ in contents(url).values() if not m.aside and not m.held]
    assert all(m.due <= time.time() for m in tried)
