"""A queue has one owner; a file that cannot be a queue is refused with a one-line remedy."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.names import QueueMissing, QueueUnusable, Selection, SQLiteQueue, SQLiteStore
from tests.other_users import ALICE, as_user
from tests.queue.failing_store import Choke, choked
from tests.queue.messages import info_of, take_in
from twisted_sendmail.queue.sqlite import schema
from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")


def refused(directory: Path) -> str:
    """What a relay says of *directory*; nothing of it stays open or locked."""
    told: list[Failure] = []
    _ = SQLiteQueue(Clock(), directory).open().addErrback(told.append)
    (failure,) = told
    assert isinstance(failure.value, QueueUnusable)
    assert not failure.value.transient
    text = str(failure.value)
    assert "\n" not in text
    return text


def made(directory: Path) -> Path:
    """An empty queue; gives the path of its database."""
    with closing(SQLiteStore(directory)) as store:
        store.open(create=True)
    return directory / "queue.sqlite3"


def modes(directory: Path) -> dict[str, str]:
    found = {"": directory, **{path.name: path for path in directory.iterdir()}}
    return {name: oct(stat.S_IMODE(path.stat().st_mode)) for name, path in found.items()}


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@ensureDeferred
async def test_every_file_is_private_whatever_the_umask_is(tmp_path: Path, umask: None) -> None:
    from twisted.internet import reactor

    directory = tmp_path / "queue"
    spool = SQLiteQueue(reactor, directory)
    await spool.open()
    await take_in(spool, b"secret")
    private = oct(0o600)
    assert {
        "": oct(0o700),
        "queue.sqlite3": private,
        "queue.sqlite3-shm": private,
        "queue.sqlite3-wal": private,
        "relay.lock": private,
        "wakeup": private,
    } == modes(directory)
    await spool.close()
    assert set(modes(directory)) == {"", "queue.sqlite3", "relay.lock"}


def test_what_is_ours_and_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    database = made(directory)
    directory.chmod(0o775)
    database.chmod(0o666)
    (directory / "relay.lock").touch(0o644)
    spool = SQLiteQueue(Clock(), directory)
    _ = spool.open()
    assert {oct(0o700), oct(0o600)} == set(modes(directory).values())
    _ = spool.close()


def test_a_directory_that_holds_something_else_is_not_taken(tmp_path: Path) -> None:
    """Somebody's home, or /tmp, given by mistake, keeps its mode."""
    directory = tmp_path / "home"
    directory.mkdir(0o755)
    (directory / "letter.txt").touch()
    assert (
        f"the queue {directory} cannot be used: the directory is readable for others and holds other files than a queue; "
        "give an empty directory, or one that does not exist"
    ) == refused(directory)
    assert oct(0o755) == modes(directory)[""]
    assert [path.name for path in directory.iterdir()] == ["letter.txt"]


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "the path is not a directory; give another one" in refused(tmp_path / "file")
    assert "the path is not a directory; give another one" in refused(tmp_path / "file" / "queue")


def test_a_command_makes_no_queue_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(QueueMissing, match="the directory does not exist; start the relay"):
        SQLiteStore(tmp_path / "queue").open()
    (tmp_path / "queue").mkdir(0o700)
    with pytest.raises(QueueMissing, match="the directory holds no queue; start the relay"):
        SQLiteStore(tmp_path / "queue").open()
    assert list((tmp_path / "queue").iterdir()) == []


@is_root
def test_another_user_is_told_who_may_use_the_queue(open_folder: Path) -> None:
    directory = open_folder / "queue"
    store = SQLiteStore(directory)
    store.open(create=True)
    store.close()
    code = (
        "import sys\n"
        "from twisted_sendmail.queue import QueueUnusable\n"
        "try: SQLiteStore(sys.argv[1]).open()\n"
        "except QueueUnusable as e: print(e)"
    )
    imports = "from twisted_sendmail.queue import SQLiteStore"
    done = as_user(ALICE, code, str(directory), imports=imports)
    assert done.stdout.decode() == (
        f"the queue {directory} cannot be used: the directory belongs to user 0, and this is user "
        f"{ALICE}; run as user 0 (root)\n"
    )


@is_root
def test_a_directory_of_another_user_is_refused_to_a_relay(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    os.chown(directory, 4321, 4321)
    assert (
        f"the queue {directory} cannot be used: the directory belongs to user 4321, and this is user 0; "
        "run as user 4321, or give another directory"
    ) == refused(directory)


@is_root
def test_what_the_superuser_puts_in_is_the_relays(open_folder: Path) -> None:
    """`sendmail` of root's cron, before the relay has ever run."""
    directory = open_folder / "queue"
    directory.mkdir(0o700)
    os.chown(directory, 4321, 4321)
    store = SQLiteStore(directory)
    store.open(create=True)
    with store.transaction():
        store.put(info_of(SQLiteQueue(Clock(), directory)), b"x")
    assert {path.stat().st_uid for path in [directory, *directory.iterdir()]} == {4321}
    assert {path.name for path in directory.iterdir()} == {
        "queue.sqlite3",
        "queue.sqlite3-wal",
        "queue.sqlite3-shm",
    }
    store.close()


@is_root
def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    made(directory)
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        assert "the directory is not writable; mount or make it writable" in refused(directory)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    database = made(tmp_path / "queue")
    database.write_bytes(b"Dear diary\n" * 1000)
    assert (
        f"the queue {database} cannot be used: the file is not a database; "
        "move the file away, or give another directory"
    ) == refused(tmp_path / "queue")
    assert database.read_bytes().startswith(b"Dear diary")


@pytest.mark.parametrize("kind", ["directory", "socket", "link"])
def test_a_database_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    path = directory / "queue.sqlite3"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    assert f"the queue {path} cannot be used: " in refused(directory)
    assert not (tmp_path / "elsewhere").exists()


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    path = directory / "queue.sqlite3"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE song (name TEXT)")
    path.chmod(0o600)
    before = path.read_bytes()
    assert "the file belongs to another program; give another directory" in refused(directory)
    assert before == path.read_bytes()


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = made(tmp_path / "queue")
    with closing(sqlite3.connect(path)) as changed:
        changed.execute(f"PRAGMA user_version = {schema.version() + 1}")
    before = path.read_bytes()
    assert (
        f"the queue cannot be used: the format of the file is {schema.version() + 1}, "
        f"and this program supports {schema.version()}; "
        "use the version of the program that wrote it, or a newer one"
    ) == refused(tmp_path / "queue")
    assert before == path.read_bytes()


def test_a_format_that_is_too_old_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = made(tmp_path / "queue")
    with closing(sqlite3.connect(path)) as changed:
        changed.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    assert refused(tmp_path / "queue") == (
        "the queue cannot be used: the format of the file is 1, and this program supports "
        f"{schema.version()}; deliver its mail with the version of the program that wrote it, "
        "then use an empty directory"
    )
    assert before == path.read_bytes()


def test_an_older_format_becomes_the_present_one_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "queue"
    path = made(directory)
    store = SQLiteStore(directory)
    store.open()
    info = info_of(SQLiteQueue(Clock(), directory))
    with store.transaction():
        store.put(info, b"old mail")
        store.connection.execute("UPDATE about SET ran = 60.0")
    store.close()

    def add_a_column(connection: SQLiteConnection) -> None:
        connection.execute("CREATE TABLE added (name TEXT)")
        connection.execute("INSERT INTO added SELECT origin || 'x' FROM message")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_a_column))
    for _ in range(2):
        store.open()
        assert store.connection.rows("SELECT name FROM added") == [("x",)]
        assert store.connection.value("SELECT ran FROM about") == 60.0
        assert ([info], [b"old mail"]) == (
            [message.info for message in store.list(Selection())],
            list(store.content(info.id)),
        )
        store.close()
    with closing(sqlite3.connect(path)) as found:
        assert [(schema.version(),)] == found.execute("PRAGMA user_version").fetchall()


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "queue"
    made(directory)

    def fail_halfway(connection: SQLiteConnection) -> None:
        connection.execute("DROP TABLE content")
        connection.execute("CREATE TABLE message (oh TEXT)")

    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, fail_halfway))
        assert "table message already exists" in refused(directory)
    with SQLiteStore(directory) as store:
        assert store.connection.value("SELECT count(*) FROM content") == 0


def test_two_that_make_a_queue_at_once_make_one(tmp_path: Path) -> None:
    """An empty file is a queue that somebody is about to make."""
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    (directory / "queue.sqlite3").touch()
    made(directory)
    with SQLiteStore(directory) as first, SQLiteStore(directory) as second:
        assert (first.count(), second.count()) == (0, 0)


@pytest.mark.parametrize("place", range(1, 8))
def test_a_queue_that_another_makes_between_two_looks_is_no_other_programs(
    tmp_path: Path, place: int
) -> None:
    directory = tmp_path / "queue"
    directory.mkdir(0o700)
    (directory / "queue.sqlite3").touch()
    errors: list[Exception] = []

    def make() -> None:
        try:
            with SQLiteStore(directory) as store:
                assert store.count() == 0
        except Exception as e:  # noqa: BLE001 - it is passed on
            errors.append(e)

    other = threading.Thread(target=make)

    def meanwhile(number: int, _: str) -> None:
        if number == place and other.ident is None:
            other.start()
            # Perhaps it has to wait for the first to have looked.
            other.join(0.3)

    with choked(Choke(after=meanwhile)), SQLiteStore(directory) as store:
        assert store.count() == 0
    other.join()
    assert errors == []


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    made(tmp_path / "queue")
    with SQLiteStore(tmp_path / "queue") as store:
        found = [
            store.connection.value(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")
        ]
        assert found == ["wal", 2]
