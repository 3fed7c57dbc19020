"""The unit and the files of sysusers.d and tmpfiles.d, as systemd's own tools read them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.peers import require

FILES = Path(__file__).parents[2] / "examples" / "systemd"
#: Of ``systemd-analyze security``; docs/how-to/run-the-relay.md has the figure of systemd 252, and
#: other versions rate a little differently.
EXPOSURE = 1.5


def run(*words: str) -> str:
    """Run a tool of systemd; its output."""
    require("systemd", None if shutil.which(words[0]) else f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_units_are_valid(tmp_path: Path) -> None:
    for name in ("twisted-sendmail.service", "twisted-sendmail.socket"):
        unit = (FILES / name).read_text("utf-8")
        twistd = str(Path(sys.executable).parent / "twistd")
        (tmp_path / name).write_text(unit.replace("/usr/bin/twistd", twistd), "utf-8")
        assert run("systemd-analyze", "verify", "--man=no", str(tmp_path / name)) == ""


def test_the_service_is_hardened() -> None:
    unit = str(FILES / "twisted-sendmail.service")
    report = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
    (figure,) = re.findall(r"Overall exposure level for .*: ([0-9.]+) ", report)
    assert float(figure) <= EXPOSURE


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives directories away")
def test_user_group_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = FILES / "sysusers.d" / "twisted-sendmail.conf"
    run("systemd-sysusers", f"--root={tmp_path}", str(made))
    (user,) = (tmp_path / "etc" / "passwd").read_text("ascii").splitlines()
    name, _, uid, gid, _, home, shell = user.split(":")
    assert (name, home, shell) == (
        "twisted_sendmail",
        "/var/lib/twisted_sendmail",
        "/usr/sbin/nologin",
    )
    assert (tmp_path / "etc" / "group").read_text("ascii") == f"twisted_sendmail:x:{gid}:\n"
    directories = FILES / "tmpfiles.d" / "twisted-sendmail.conf"
    run("systemd-tmpfiles", f"--root={tmp_path}", "--create", str(directories))
    spool = tmp_path / "var" / "spool" / "twisted_sendmail"
    found = [path.stat() for path in (spool, spool / "drop")]
    assert {(each.st_uid, each.st_gid) for each in found} == {(int(uid), int(gid))}
    assert [oct(stat.S_IMODE(each.st_mode)) for each in found] == ["0o755", "0o3733"]
