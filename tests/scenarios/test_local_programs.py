"""Programs that call ``/usr/sbin/sendmail``: cron, mail, PHP, git send-email, and mdadm's message.

Each runs as an ordinary user in a mount namespace of its own, in which ``/usr/sbin/sendmail`` is the
command of this package. The relay is down while they run.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

import twisted_sendmail
from tests.other_users import needs_root
from tests.scenarios.peers import require
from tests.scenarios.relay_process import Relay

if TYPE_CHECKING:
    from typing import Any

    from twisted_sendmail.testing import LoopbackServer, ReceivedMessage

pytestmark = needs_root

#: A user of every Debian; cron does not run jobs of users without an entry in the password file.
USER = "daemon"
# The interpreter may be in a directory that other users cannot enter: mount its parts where they can.
_COMMAND = """\
#!/bin/sh
export LD_LIBRARY_PATH='{folder}/python/lib' TWISTED_SENDMAIL_SPOOL='{folder}/spool' PYTHONPATH='{folder}/package:{folder}/site' PYTHONHOME='{folder}/python'
exec '{folder}/python/bin/{python}' -c 'import sys
sys.argv[0] = "sendmail"
from twisted_sendmail.cli.sendmail import console
console()' "$@"
"""
_MOUNTED = """\
set -e
mount --bind '{base}' '{folder}/python'
mount --bind '{site}' '{folder}/site'
mount --bind '{package}' '{folder}/package'
mount --bind '{folder}/sendmail' /usr/sbin/sendmail
{more}
cd '{folder}'
exec "$@"
"""
_GIT = """\
git init -q "$HOME/repository" && cd "$HOME/repository"
git config user.name Ann && git config user.email ann@example.org
echo text >file && git add file && git commit -q -m "area: a change"
git format-patch -q -1 && git send-email --quiet --confirm=never --suppress-cc=all \
  --from=ann@example.org --to=bob@example.net 0001-*.patch
"""


class Machine(Relay):
    """A relay, and programs that call its ``sendmail``."""

    def prepare(self, hop: LoopbackServer) -> None:
        for name in ("python", "site", "package", "home", "crontabs", "empty"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "home", USER)
        self.accept_local_mail(hop)
        python = Path(os.path.realpath(sys.executable)).name
        self.write("sendmail", _COMMAND.format(folder=self.folder, python=python), 0o755)

    def command(self, *words: str, user: str | None = USER, more: str = "") -> list[str]:
        """The words that run a program in the namespace."""
        site = next(path for path in sys.path if path.endswith("site-packages"))
        script = _MOUNTED.format(
            base=sys.base_prefix,
            site=site,
            package=Path(str(twisted_sendmail.__file__)).parents[1],
            folder=self.folder,
            more=more,
        )
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return ["unshare", "--mount", "sh", "-c", script, "sh", *(become if user else ()), *words]

    async def run(self, *words: str, stdin: str = "", user: str | None = USER, **env: str) -> None:
        """Run a program as *user*, None for the superuser; it has to succeed."""
        path = "/usr/bin:/bin:/usr/sbin:/sbin"
        done = await deferToThread(
            subprocess.run,
            self.command(*words, user=user),
            input=stdin.encode(),
            capture_output=True,
            env={"PATH": path, "HOME": f"{self.folder}/home", **env},
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def dropped(self) -> int:
        """The number of complete files in the drop directory."""
        found = [path.stat().st_mode for path in (self.folder / "spool" / "drop").iterdir()]
        return [stat.S_IMODE(mode) for mode in found].count(0o640)


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    found = shutil.which("unshare")
    allowed = found and not subprocess.run([found, "--mount", "true"], check=False).returncode
    require("mount namespace", None if allowed else "unshare --mount is not allowed")
    require("sendmail", None if Path("/usr/sbin/sendmail").exists() else "no /usr/sbin/sendmail")
    machine = Machine(open_folder)
    yield machine
    machine.tidy()


async def start(machine: Machine, times: int) -> None:
    machine.start("--config", "relay.toml")
    await deferToThread(machine.up, times)


async def taken(machine: Machine, hop: LoopbackServer, user: str = USER) -> ReceivedMessage:
    """Start the relay; the one message that it delivers."""
    assert machine.dropped == 1
    await start(machine, 2)
    (message,) = await hop.wait_for(1)
    await deferToThread(machine.end)
    uid = pwd.getpwnam(user).pw_uid
    assert f"(twisted_sendmail, invoked by uid {uid})" in re.sub(
        r"\s+", " ", message.content.decode()
    )
    assert [str(each) for each in message.recipients] == ["bob@example.net"]
    assert machine.dropped == 0
    return message


async def stopped(machine: Machine, hop: LoopbackServer) -> None:
    """The relay has run once, and is down."""
    machine.prepare(hop)
    await start(machine, 1)
    await deferToThread(machine.end)


async def complete(machine: Machine, reactor: Any, patience: float) -> None:
    """Wait *patience* seconds for a complete file in the drop directory."""
    for _ in range(int(patience * 5)):
        if machine.dropped:
            return
        await deferLater(reactor, 0.2)


def needs(program: str) -> None:
    require(program, None if shutil.which(program) else "it is not installed")


@ensureDeferred
async def test_mail_of_bsd_mailx(machine: Machine, hop: LoopbackServer, reactor: Any) -> None:
    needs("mail")
    await stopped(machine, hop)
    await machine.run("mail", "-s", "a report", "bob@example.net", stdin="It works.\n")
    # The program does not wait for sendmail.
    await complete(machine, reactor, 60)
    message = await taken(machine, hop)
    assert str(message.email["Subject"]) == "a report"
    assert str(message.sender) == "daemon@relay.example.org"
    assert "It works." in message.email.get_content()


@ensureDeferred
async def test_mail_of_php(machine: Machine, hop: LoopbackServer) -> None:
    needs("php")
    await stopped(machine, hop)
    await machine.run(
        *("php", "-d", "sendmail_path=/usr/sbin/sendmail -t -i", "-r"),
        'exit(mail("bob@example.net", "from PHP", "one\\n.\\ntwo", "From: web@example.org") ? 0 : 1);',
    )
    message = await taken(machine, hop)
    assert (str(message.email["Subject"]), str(message.email["From"])) == (
        "from PHP",
        "web@example.org",
    )
    assert message.email.get_content().splitlines() == ["one", ".", "two"]


@ensureDeferred
async def test_git_send_email(machine: Machine, hop: LoopbackServer) -> None:
    needs("git")
    core = (await deferToThread(subprocess.check_output, ["git", "--exec-path"], text=True)).strip()
    there = (Path(core) / "git-send-email").exists()
    require("git send-email", None if there else "it is not installed")
    await stopped(machine, hop)
    await machine.run("sh", "-euc", _GIT)
    message = await taken(machine, hop)
    assert str(message.email["Subject"]) == "[PATCH] area: a change"
    assert str(message.email["From"]) == "ann@example.org"
    assert b"\r\n+text\r\n" in message.content


@ensureDeferred
async def test_output_of_a_cron_job(machine: Machine, hop: LoopbackServer, reactor: Any) -> None:
    needs("cron")
    await stopped(machine, hop)
    table = Path(
        machine.write("crontabs/daemon", "MAILTO=bob@example.net\n@reboot echo Zoë is done\n")
    )
    shutil.chown(table, USER)
    table.chmod(0o600)
    machine.write("empty.txt", "")
    # A cron of its own, whose start is that of the machine: no job of the machine runs.
    more = "\n".join(
        [
            f"mount --bind '{machine.folder}/empty' /etc/cron.d",
            f"mount --bind '{machine.folder}/empty.txt' /etc/crontab",
            f"mount --bind '{machine.folder}/crontabs' /var/spool/cron/crontabs",
            "mount -t tmpfs tmpfs /run",
        ]
    )
    cron = await deferToThread(
        subprocess.Popen, machine.command("cron", "-f", user=None, more=more)
    )
    try:
        await complete(machine, reactor, 60)
        assert cron.poll() is None
    finally:
        cron.terminate()
        cron.wait(10)
    message = await taken(machine, hop)
    assert str(message.email["Subject"]).endswith("echo Zoë is done")
    assert message.email.get_content().splitlines() == ["Zoë is done"]


@ensureDeferred
async def test_a_service_with_a_read_only_file_system_is_told_its_setting(
    machine: Machine, hop: LoopbackServer
) -> None:
    await stopped(machine, hop)
    spool = machine.folder / "spool"
    read_only = f"mount --bind '{spool}' '{spool}' && mount -o remount,ro,bind '{spool}'"
    done = await deferToThread(
        subprocess.run,
        machine.command("/usr/sbin/sendmail", "-i", "bob@example.net", more=read_only),
        input=b"Subject: x\n\nx\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.decode() == (
        f"sendmail: the message was not taken: {spool}/drop cannot be written: Read-only file "
        f"system; a systemd service with a read-only file system needs ReadWritePaths={spool}\n"
    )
    assert machine.dropped == 0


@ensureDeferred
async def test_the_test_message_of_mdadm(machine: Machine, hop: LoopbackServer) -> None:
    """The call and the text of mdadm 4.2, which itself needs a RAID array to send it."""
    await stopped(machine, hop)
    text = (
        "From: mdadm monitoring <root>\nTo: bob@example.net\n"
        "Subject: TestMessage event on /dev/md0:box\n\n"
        "This is an automatically generated mail message from mdadm\nrunning on box\n"
    )
    await machine.run("sh", "-c", "/usr/sbin/sendmail -t", stdin=text, user=None)
    message = await taken(machine, hop, "root")
    assert str(message.email["Subject"]) == "TestMessage event on /dev/md0:box"
    assert str(message.email["From"]) == "mdadm monitoring <root@relay.example.org>"
