"""The drop directory of a relay that is not root: rights of users and of the relay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.other_users import ALICE, BOB, as_user, needs_root

RELAY = 20050
pytestmark = needs_root

_IMPORTS = """
import json
from twisted_sendmail.drop import (
    DropDirectory, DropEnvelope, DropFile, DropRecipient, directory_fault
)
path = {path!r}
"""
_WRITE = """
file = DropFile(path, DropEnvelope("a@example.org", (DropRecipient("b@example.net"),)))
file.create()
file.write(b"Hi.\\r\\n")
file.commit()
print(file.name)
"""
_REFUSED = """
name = sys.argv[1]
for call in (
    lambda: os.listdir(path),
    lambda: open(f"{path}/{name}"),
    lambda: open(f"{path}/{name}", "w"),
    lambda: os.unlink(f"{path}/{name}"),
    lambda: os.rename(f"{path}/{name}", f"{path}/other"),
    lambda: os.rename(f"{path}/{sys.argv[2]}", f"{path}/{name}"),
    lambda: os.chmod(f"{path}/{name}", 0o666),
    lambda: os.chmod(path, 0o777),
):
    try:
        call()
    except PermissionError:
        pass
    else:
        raise AssertionError(call)
"""
_TAKE = """
assert directory_fault(path) is None, directory_fault(path)
directory = DropDirectory(path)
assert directory.lock()
scan = directory.scan(1_000_000)
read = []
for file in scan.files:
    reader = directory.open(file.key, 1_000_000)
    read.append([file.key.uid, b"".join(reader.pieces()).decode()])
    reader.close()
left = directory.remove([file.key for file in scan.files])
print(json.dumps([read, len(left), [bad.why for bad in scan.bad]]))
"""


@pytest.fixture
def drop(open_folder: Path) -> Path:
    path = open_folder / "drop"
    path.mkdir()
    os.chown(path, RELAY, RELAY)
    path.chmod(0o3733)
    return path


def run(uid: int, drop: Path, code: str, *args: str) -> str:
    done = as_user(uid, code, *args, imports=_IMPORTS.format(path=str(drop)))
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()


def test_a_relay_that_is_not_root_takes_and_removes_files_of_all_users(drop: Path) -> None:
    names = [run(uid, drop, _WRITE) for uid in (ALICE, BOB, 0, RELAY)]
    assert {(drop / name).stat().st_gid for name in names} == {RELAY}
    read, left, bad = json.loads(run(RELAY, drop, _TAKE))
    assert sorted(read) == sorted([uid, "Hi.\r\n"] for uid in (ALICE, BOB, 0, RELAY))
    assert (left, bad, list(drop.iterdir())) == (0, [], [])


def test_a_user_can_neither_list_nor_read_nor_change_files_of_others(drop: Path) -> None:
    name = run(ALICE, drop, _WRITE)
    own = run(BOB, drop, _WRITE)
    run(BOB, drop, _REFUSED, name, own)
    assert sorted(path.name for path in drop.iterdir()) == sorted([name, own])


def test_a_file_that_the_relay_may_not_read_is_not_a_file_of_its_group(drop: Path) -> None:
    """Its owner gave it to another group."""
    name = run(ALICE, drop, _WRITE)
    os.chown(drop / name, -1, ALICE)
    done = as_user(RELAY, _TAKE, imports=_IMPORTS.format(path=str(drop)))
    assert b"PermissionError" in done.stderr
    assert (drop / name).exists()
