"""``--check`` of the drop directory: owner, group, mode, file system, and the mail in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon.conftest import SIMPLE, Folder
from tests.forked import run_forked
from tests.other_users import ALICE, BOB, needs_root
from twisted_sendmail import Envelope
from twisted_sendmail.cli.sendmail.spool import drop_envelope, put
from twisted_sendmail.drop.file_system import durability_warning, file_system_type


@pytest.fixture
def spool(folder: Folder) -> Path:
    """A spool directory that can be used, and a configuration that names it."""
    drop = folder.path / "spool" / "drop"
    drop.mkdir(parents=True)
    drop.chmod(0o3733)
    folder.write("relay.toml", f'spool = "spool"\n{SIMPLE}')
    return folder.path / "spool"


def check(folder: Folder) -> tuple[int, str, str]:
    """Exit status, output, and error without its beginning."""
    words = ["sendmail", "--check", "-c", "relay.toml"]
    done = run_forked("twistd", *words, folder=folder.path, env=dict(os.environ))
    before = f"twistd sendmail: the drop directory {folder.path}/spool/drop "
    return done.returncode, done.stdout, done.stderr.removeprefix(before)


def test_a_drop_directory_that_can_be_used_is_good(folder: Folder, spool: Path) -> None:
    assert check(folder)[:2] == (
        0,
        f"{folder.path}/relay.toml: good\n",
    )


@pytest.mark.parametrize(
    ("begin", "end", "why"),
    [
        ('submission-socket = "/absent/s"', "", "/absent/s cannot be made: there is no directory"),
        ("", '[admin]\nendpoint = "unix:/absent/a"', "/absent/a cannot be made: there is no dir"),
        ("", '[log]\njson-file = "/absent/log"', "/absent/log cannot be made: there is no directo"),
        (
            'submission-socket = "password/s"',
            "",
            "password/s cannot be made: there is no directory",
        ),
    ],
)
def test_a_file_in_a_missing_directory_is_named(
    folder: Folder, begin: str, end: str, why: str
) -> None:
    folder.write("relay.toml", f"{begin}\n{SIMPLE}{end}\n")
    status, out, err = check(folder)
    assert (status, out) == (78, "")
    assert why in err


@pytest.mark.parametrize(
    ("queue", "why"),
    [
        ("/proc/q", "no directory can be created in /proc"),
        ("password", "the path is not a directory"),
        ("password/q", "no directory can be created in"),
    ],
)
def test_a_queue_that_cannot_be_made_is_named(folder: Folder, queue: str, why: str) -> None:
    folder.write("relay.toml", SIMPLE.replace('"queue"', f'"{queue}"'))
    status, out, err = check(folder)
    assert (status, out) == (78, "")
    assert f"cannot be used: {why}" in err


def test_the_check_changes_nothing(folder: Folder) -> None:
    (folder.path / "queue").mkdir(0o755)
    folder.write("relay.toml", SIMPLE)
    before = sorted(folder.path.iterdir())
    assert check(folder)[0] == 0
    assert sorted(folder.path.iterdir()) == before
    assert list((folder.path / "queue").iterdir()) == []
    assert (folder.path / "queue").stat().st_mode & 0o777 == 0o755


def test_without_a_spool_the_relay_makes_its_own(folder: Folder) -> None:
    folder.write("relay.toml", SIMPLE)
    assert check(folder)[0] == 0


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2775])
def test_a_wrong_mode_is_named_with_the_remedy(folder: Folder, spool: Path, mode: int) -> None:
    (spool / "drop").chmod(mode)
    make = f"install -d -o {os.geteuid()} -g {os.getegid()} -m 3733 {spool}/drop"
    text = f"cannot be used: its mode is {mode:04o}; run as root: {make}\n"
    assert check(folder) == (78, "", text)


def test_a_missing_directory_is_named(folder: Folder, spool: Path) -> None:
    (spool / "drop").rmdir()
    status, _, line = check(folder)
    assert status == 78
    assert line.startswith("cannot be used: it does not exist; make it, as root: install -d ")


@needs_root
def test_root_checks_for_the_user_who_has_the_queue(folder: Folder, spool: Path) -> None:
    (folder.path / "queue").mkdir(mode=0o700)
    os.chown(folder.path / "queue", ALICE, ALICE)
    status, _, line = check(folder)
    assert (status, line.partition(";")[0]) == (
        78,
        f"cannot be used: it belongs to user 0, and the relay is user {ALICE}",
    )
    os.chown(spool / "drop", ALICE, BOB)
    (spool / "drop").chmod(0o3733)
    assert check(folder)[2].startswith(f"cannot be used: it belongs to group {BOB}, ")
    os.chown(spool / "drop", ALICE, ALICE)
    (spool / "drop").chmod(0o3733)
    assert check(folder)[0] == 0


def test_mail_that_waits_is_shown(folder: Folder, spool: Path) -> None:
    settings = folder.read((folder.path / "relay.toml").read_text("utf-8")).drop
    envelope = drop_envelope(Envelope("alice@example.org", ["bob@example.net"]))
    put(settings, envelope, [b"Subject: x\n\nx\n"])
    _, out, _ = check(folder)
    assert out.splitlines()[1].startswith("1 message waits in the drop directory for ")


def test_a_file_system_that_may_lose_names_is_a_warning() -> None:
    assert file_system_type("/proc/self") == "proc"
    warning = durability_warning("/proc/self/drop")
    assert warning is not None
    assert "/proc/self/drop is on a file system of the type proc, on which fsync " in warning
