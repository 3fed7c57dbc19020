"""The superuser in the queue of another user, who may be hostile."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.queues import Queue
from tests.cli.shell import COMMAND, Done
from tests.names import QueueUnusable, SQLiteStore
from tests.other_users import ALICE, needs_root
from twisted_sendmail.queue.sqlite.files import check_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs_root
PRECIOUS = b"a file of the superuser\n"


def run(*words: str) -> Done:
    """The installed command, as root."""
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr).check()


@pytest.fixture
def precious(open_folder: Path) -> Path:
    """A file of the superuser that no other user may write to."""
    path = open_folder / "precious"
    path.write_bytes(PRECIOUS)
    path.chmod(0o600)
    return path


@pytest.fixture
def directory(open_folder: Path) -> Path:
    """A queue of ALICE, with a message."""
    directory = open_folder / "queue"
    Queue(directory).take()
    for path in (directory, *directory.iterdir()):
        os.chown(path, ALICE, ALICE)
    return directory


def by_link(directory: Path, name: str, precious: Path) -> None:
    path = directory / name
    path.unlink(missing_ok=True)
    path.symlink_to(precious)


def by_second_name(directory: Path, name: str, precious: Path) -> None:
    path = directory / name
    path.unlink(missing_ok=True)
    path.hardlink_to(precious)


def untouched(precious: Path) -> bool:
    found = precious.stat()
    return (precious.read_bytes(), stat.S_IMODE(found.st_mode), found.st_uid) == (
        PRECIOUS,
        0o600,
        0,
    )


@pytest.mark.parametrize("place", [by_link, by_second_name])
@pytest.mark.parametrize("name", ["queue.sqlite3", "queue.sqlite3-wal", "queue.sqlite3-shm"])
def test_a_file_that_leads_elsewhere_is_refused(
    directory: Path, precious: Path, name: str, place: Callable[[Path, str, Path], None]
) -> None:
    place(directory, name, precious)
    done = run("queue", "flush", "--all", "--queue", str(directory))
    assert (done.status, done.out) == (78, "")
    assert done.err.startswith(f"twisted-sendmail: the queue {directory / name} cannot be used: ")
    assert done.err.count("\n") == 1
    assert untouched(precious)


@pytest.mark.parametrize("place", [by_link, by_second_name])
@pytest.mark.parametrize("name", ["queue.sqlite3-wal", "queue.sqlite3-shm"])
def test_a_file_replaced_after_the_check_gives_no_rights_of_the_superuser(
    directory: Path,
    precious: Path,
    name: str,
    place: Callable[[Path, str, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check_and_lose_the_race(directory: Path, *, create: bool) -> Path:
        path = check_database(directory, create=create)
        # The kernel may forbid the owner to give a second name to a file of another user.
        user = os.geteuid()
        os.seteuid(0)
        place(directory, name, precious)
        os.seteuid(user)
        return path

    at = "twisted_sendmail.queue.sqlite.store.check_database"
    monkeypatch.setattr(at, check_and_lose_the_race)
    store = SQLiteStore(directory)
    with pytest.raises(QueueUnusable):
        store.open()
    assert untouched(precious)
    assert os.geteuid() == 0


def test_a_directory_by_the_link_of_another_user_is_refused(open_folder: Path) -> None:
    target, link = open_folder / "empty", open_folder / "queue"
    target.mkdir(0o755)
    link.symlink_to(target)
    os.chown(link, ALICE, ALICE, follow_symlinks=False)
    with pytest.raises(QueueUnusable, match=f"a link that belongs to user {ALICE}"):
        SQLiteStore(link).open(create=True)
    assert (stat.S_IMODE(target.stat().st_mode), list(target.iterdir())) == (0o755, [])


def test_what_the_superuser_makes_belongs_to_the_owner(directory: Path) -> None:
    with SQLiteStore(directory) as store, store.transaction():
        store.probe()
        files = sorted(directory.iterdir())
        assert [path.name.removeprefix("queue.sqlite3") for path in files] == ["", "-shm", "-wal"]
        assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(ALICE, ALICE)}
    assert (os.geteuid(), os.getegid()) == (0, 0)
    done = run("queue", "hold", "--all", "--queue", str(directory))
    assert (done.status, done.out) == (0, "1 message held\n")


def test_rights_that_cannot_be_taken_are_one_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    groups = os.getgroups()
    monkeypatch.setattr(os, "seteuid", lambda uid: forbidden(uid) if uid else None)
    with pytest.raises(
        QueueUnusable, match=f"cannot take the rights of user {ALICE}: .*; run as user {ALICE}$"
    ):
        SQLiteStore(directory).open()
    assert (os.getgroups(), os.getegid()) == (groups, 0)
