"""The scan of a drop directory: hostile files, turns of users, removal."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drop.test_drop_file import BOB, LIMIT, written
from tests.other_users import needs_root
from twisted_sendmail.drop import DropDirectory, DropFile, DropScan, FileKey, directory_fault
from twisted_sendmail.drop.directory import MAX_BAD_FILES_OF_USER, MAX_FILES_OF_USER

DAY = 24 * 3600


class Scanner:
    """A drop directory, with a clock that can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ahead = 0.0
        self.directory = DropDirectory(str(folder), lambda: self.ahead + _now())

    def scan(self) -> DropScan:
        return self.directory.scan(LIMIT)

    @property
    def names(self) -> list[str]:
        return [file.key.name for file in self.scan().files]

    @property
    def reports(self) -> dict[str, str]:
        return {bad.key.name: bad.why for bad in self.scan().bad}


_now = time.time


@pytest.fixture
def drop(tmp_path: Path) -> Iterator[Scanner]:
    scanner = Scanner(tmp_path)
    yield scanner
    scanner.directory.close()


def complete(folder: Path, name: str, uid: int | None = None) -> Path:
    path = folder / name
    path.write_bytes((folder / written(folder, b"Hi.\r\n")).read_bytes())
    path.chmod(0o640)
    if uid is not None:
        os.chown(path, uid, -1)
    for other in folder.iterdir():
        if len(other.name) == 32:
            other.unlink()
    return path


def make_hostile(folder: Path) -> dict[str, str]:
    """Everything that a user can put into the directory, and why it is not taken."""
    os.mkfifo(folder / "fifo", 0o640)
    (folder / "directory").mkdir(mode=0o640)
    (folder / "link").symlink_to(complete(folder, "target"))
    (folder / "dangling").symlink_to("/absent")
    complete(folder, "one-name")
    (folder / "another-name").hardlink_to(folder / "one-name")
    complete(folder, "wide").chmod(0o644)
    complete(folder, "executable").chmod(0o750)
    complete(folder, "setuid").chmod(0o4640)
    complete(folder, "new\nline \x1b[2J")
    complete(folder, "x" * 65)
    os.truncate(complete(folder, "sparse"), 1 << 40)
    complete(folder, os.fsdecode(b"\xff"))
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    (folder / "socket").chmod(0o640)
    return {
        "fifo": "it is a FIFO",
        "directory": "it is a directory",
        "link": "it is a symbolic link",
        "dangling": "it is a symbolic link",
        "one-name": "it has another name: a hard link",
        "another-name": "it has another name: a hard link",
        "wide": "its mode is 0644, not 0640",
        "executable": "its mode is 0750, not 0640",
        "setuid": "its mode is 4640, not 0640",
        "socket": "it is a socket",
        "sparse": f"it has {1 << 40} octets, and the limit is {LIMIT}",
        **dict.fromkeys(
            ["new\nline \x1b[2J", "x" * 65, os.fsdecode(b"\xff")],
            "its name has other characters than letters and digits, or is too long",
        ),
    }


def test_what_cannot_be_taken_is_reported_once_and_removed_after_a_day(drop: Scanner) -> None:
    expected = make_hostile(drop.folder)
    first = drop.scan()
    assert {bad.key.name: bad.why for bad in first.bad} == expected
    assert [file.key.name for file in first.files] == ["target"]
    assert drop.reports == {}
    drop.ahead = DAY - 10
    assert drop.reports == {}
    assert len(list(drop.folder.iterdir())) == len(expected) + 1
    drop.ahead = DAY + 10
    assert drop.reports == {}
    # When one of two names was removed, the other is the only name of a complete file.
    left = {path.name for path in drop.folder.iterdir()}
    assert left in ({"target", "one-name"}, {"target", "another-name"})
    assert set(drop.names) == left


def test_an_unfinished_file_is_left_alone_for_a_day(drop: Scanner) -> None:
    file = DropFile(str(drop.folder), BOB)
    file.create()
    file.write(b"Hi.\r\n")
    # The time that the owner can set does not count.
    os.utime(drop.folder / file.name, (0, 0))
    assert (drop.names, drop.reports) == ([], {})
    drop.ahead = DAY - 10
    assert (drop.names, drop.reports) == ([], {})
    drop.ahead = DAY + 10
    assert drop.reports == {file.name: "it was never finished, and was removed"}
    assert list(drop.folder.iterdir()) == []
    assert drop.reports == {}


def test_a_writer_that_was_silent_for_half_a_day_notices_that_its_file_is_gone(
    drop: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DropFile(str(drop.folder), BOB)
    file.create()
    drop.ahead = DAY + 10
    assert drop.reports
    late = _now() + DAY + 20
    monkeypatch.setattr("time.time", lambda: late)
    with pytest.raises(FileNotFoundError, match="removed because of its age"):
        file.commit()
    file.abort()


def test_a_file_that_was_refused_is_returned_again_when_it_changes(drop: Scanner) -> None:
    path = complete(drop.folder, "name")
    (file,) = drop.scan().files
    drop.directory.refuse(file)
    assert drop.scan() == ([], False, [], (0, 0.0, 0))
    path.chmod(0o600)
    path.chmod(0o640)
    assert drop.names == ["name"]


def test_files_that_were_taken_are_not_returned(drop: Scanner) -> None:
    complete(drop.folder, "name")
    (file,) = drop.scan().files
    assert drop.directory.scan(LIMIT, {file.key}).files == []
    # Another user's file of that name is another file.
    other = FileKey(file.key.name, file.key.uid + 1, file.key.inode)
    assert [each.key for each in drop.directory.scan(LIMIT, {other}).files] == [file.key]


def test_only_the_file_that_was_taken_is_removed(drop: Scanner) -> None:
    complete(drop.folder, "name")
    (file,) = drop.scan().files
    os.link(drop.folder / "name", drop.folder / "keeps the inode")
    (drop.folder / "name").unlink()
    (drop.folder / "name").write_bytes(b"another")
    assert drop.directory.remove([file.key, FileKey("absent", 0, 1)]) == []
    assert (drop.folder / "name").read_bytes() == b"another"


def test_the_key_of_a_file_is_the_same_as_text(drop: Scanner) -> None:
    complete(drop.folder, "na.me-1_")
    (file,) = drop.scan().files
    assert FileKey.parse(str(file.key)) == file.key


def test_the_totals_are_number_age_and_octets(drop: Scanner) -> None:
    path = complete(drop.folder, "name")
    complete(drop.folder, "other")
    (drop.folder / "link").symlink_to(path)
    drop.ahead = 100.0
    for files, oldest, octets in (drop.directory.totals(), drop.scan().totals):
        assert (files, octets) == (2, 2 * path.stat().st_size)
        assert 100 <= oldest < 160


@needs_root
def test_files_of_all_users_are_returned_in_turns(drop: Scanner) -> None:
    for uid, count in ((1001, 5), (1002, 1), (1003, 2)):
        for number in range(count):
            complete(drop.folder, f"{uid}-{number}", uid)
    assert drop.names == [
        *("1001-0", "1002-0", "1003-0"),
        *("1001-1", "1003-1"),
        *("1001-2", "1001-3", "1001-4"),
    ]


@needs_root
def test_a_user_with_too_many_bad_files_is_left_out(drop: Scanner) -> None:
    complete(drop.folder, "good", 1001)
    complete(drop.folder, "other", 1002)
    for number in range(MAX_BAD_FILES_OF_USER + 5):
        path = drop.folder / f"bad-{number}"
        path.symlink_to("/absent")
        os.lchown(path, 1001, -1)
    scan = drop.scan()
    assert [file.key.name for file in scan.files] == ["other"]
    assert len(scan.bad) == MAX_BAD_FILES_OF_USER + 1
    assert scan.bad[-1].why == "no file of this user is taken: 1000 are bad"
    assert (drop.reports, drop.scan().more) == ({}, False)
    drop.ahead = DAY + 10
    drop.scan()
    assert sorted(drop.names) == ["good", "other"]


@needs_root
def test_a_hundred_thousand_files_of_one_user_do_not_hold_up_another(drop: Scanner) -> None:
    source = complete(drop.folder, "first", 1001)
    for number in range(100_000):
        os.close(os.open(drop.folder / f"x{number}", os.O_CREAT | os.O_WRONLY, 0o640))
        os.chown(drop.folder / f"x{number}", 1001, -1)
    os.chown(source, 1002, -1)
    began = _now()
    scan = drop.scan()
    assert "first" in [file.key.name for file in scan.files[:2]]
    assert len(scan.files) == MAX_FILES_OF_USER + 1
    assert (scan.more, scan.totals.files) == (True, 100_001)
    # 0.6 s on an idle machine.
    assert _now() - began < 30


def test_a_directory_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    directory = DropDirectory(str(tmp_path / "drop"))
    assert directory.is_current()
    (tmp_path / "drop").rename(tmp_path / "old")
    assert not directory.is_current()
    (tmp_path / "drop").mkdir()
    assert not directory.is_current()
    directory.close()


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        (0o3733, None),
        (0o0733, "its mode is 0733"),
        (0o3777, "its mode is 3777"),
        (0o1733, "its mode is 1733"),
        (0o2733, "its mode is 2733"),
    ],
)
def test_only_a_directory_of_the_right_mode_has_no_fault(
    tmp_path: Path, mode: int, fault: str | None
) -> None:
    path = tmp_path / "drop"
    path.mkdir()
    path.chmod(mode)
    found = directory_fault(str(path))
    assert (found and found[0]) == fault
    if found is not None:
        assert f"install -d -o {os.geteuid()} -g {os.getegid()} -m 3733 {path}" in found[1]


def test_a_directory_that_is_none_or_another_user_s_has_a_fault(tmp_path: Path) -> None:
    assert directory_fault(str(tmp_path / "absent")) is not None
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        fault = directory_fault(str(tmp_path / name))
        assert fault is not None
        assert fault[0] == "it is not a directory"


@needs_root
def test_a_directory_of_another_user_or_group_has_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "drop"
    path.mkdir()
    path.chmod(0o3733)
    os.chown(path, 1001, -1)
    assert directory_fault(str(path)) is not None
    os.chown(path, 0, 54321)
    path.chmod(0o3733)
    found = directory_fault(str(path))
    assert found is not None
    assert found[0] == "it belongs to group 54321, which the relay is not in"
