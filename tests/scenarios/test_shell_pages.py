"""The commands in the pages for operators work in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock

from tests.cli.intake import run_intake
from tests.cli.queues import Queue
from tests.names import read_configuration
from twisted_sendmail.queue import is_queue_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import PostgreSQL

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BIN = Path(sys.executable).parent


class Machine:
    """A machine of which we may write everything: its root is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in (
            "etc/twisted_sendmail",
            "usr/sbin",
            "usr/bin",
            "run",
            "var/lib/twisted_sendmail",
            "var/spool",
        ):
            (root / name).mkdir(parents=True)
        (root / "var/lib/twisted_sendmail/queue").mkdir(mode=0o700)
        self.write("etc/twisted_sendmail/password", "secret\n")

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, "utf-8")
        (self.root / name).chmod(0o640)

    def moved(self, text: str) -> str:
        """*text* with its absolute paths below our root, and ourselves as the relay's user."""
        text = text.replace("-o twisted_sendmail -g twisted_sendmail", f"-o {os.getuid()}")
        return re.sub(r"(?<![\w.@/])/(?=(?:etc|usr|var|run)/)", f"{self.root}/", text)

    def run(self, block: str) -> str:
        """Run the commands of *block*; what they print."""
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", self.moved(block)],
            capture_output=True,
            text=True,
            cwd=self.root,
            env={
                "PATH": f"{self.root}/usr/bin:{BIN}:{os.environ['PATH']}",
                "HOME": str(self.root),
                "LANG": "C.UTF-8",
                "TWISTED_SENDMAIL_SPOOL": f"{self.root}/var/spool/twisted_sendmail",
                "TWISTED_SENDMAIL_CONFIG": f"{self.root}/etc/twisted_sendmail/relay.toml",
            },
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Short, for the path of a socket may have 107 octets.
    with tempfile.TemporaryDirectory(prefix="m") as root:
        yield Machine(Path(root))


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_sendmail_is_replaced_as_the_page_says(machine: Machine) -> None:
    (configuration,) = blocks("replace-sendmail.md", "toml")
    machine.write("etc/twisted_sendmail/relay.toml", machine.moved(configuration))
    directories, link, attempt, mailq, git = blocks("replace-sendmail.md", "sh")
    assert machine.run(directories) == ""
    read = read_configuration(machine.root / "etc/twisted_sendmail/relay.toml", Clock())
    run_intake(read)
    assert machine.run(link) == ""
    assert "-- put into " in machine.run(attempt)
    run_intake(read)
    (message,) = Queue(machine.root / "var/lib/twisted_sendmail/queue").messages.values()
    assert [str(each.recipient) for each in message.recipients] == ["admin@example.org"]
    assert message.id in machine.run(mailq)
    assert machine.run(git) == ""
    assert "sendmailCmd = " in (machine.root / ".gitconfig").read_text("utf-8")


def test_the_queue_is_looked_after_as_the_page_says(machine: Machine) -> None:
    machine.write(
        "etc/twisted_sendmail/relay.toml",
        machine.moved('queue = "/var/lib/twisted_sendmail/queue"\n'),
    )
    queue = Queue(machine.root / "var/lib/twisted_sendmail/queue")
    first = queue.defer(queue.take("alice@example.org", ["bob@example.net"]))
    second = queue.take("app@example.org", ["carol@example.org"])
    third = queue.take("alice@example.org", ["dave@example.com"])
    held = queue.hold(queue.take("eve@example.org"))
    name, every, some, one, flush, hold, end, script = blocks("look-after-the-queue.md", "sh")
    assert machine.run(name) == ""
    shown = machine.run(every)
    assert all(each in shown for each in (first, second, third, held))
    shown = machine.run(some)
    assert (first in shown, second in shown) == (True, False)
    shown = machine.run(one)
    assert f"message       {first}\n" in shown
    assert queue.content(first) == (machine.root / "message.eml").read_bytes()
    assert machine.run(flush) == "4 messages flushed\n"
    assert machine.run(hold) == "1 message held\n1 message released\n1 message requeued\n"
    assert machine.run(end) == "1 message expired\n1 message deleted\n"
    assert machine.run(script) == "1 message deleted\n"
    assert {n: m.expired for n, m in queue.messages.items()} == {first: False, third: True}


def test_mail_moves_to_a_database_as_the_page_says(
    machine: Machine, postgresql: PostgreSQL, database: str
) -> None:
    machine.write(
        "etc/twisted_sendmail/relay.toml",
        machine.moved('queue = "/var/lib/twisted_sendmail/queue"\n'),
    )
    queue = Queue(machine.root / "var/lib/twisted_sendmail/queue")
    ids = [queue.take(), queue.hold(queue.take())]
    queue.take(route="other")
    export, import_, lists = blocks("use-several-machines.md", "sh")
    new = re.compile(r"^new='.*'$", re.MULTILINE)
    import_ = new.sub(f"new='{postgresql.url(database)}'", import_)
    assert machine.run(export) == "3 messages exported\n"
    assert machine.run(import_) == "3 messages imported\n"
    assert machine.run(import_).startswith("0 messages imported\n")
    shown = machine.run(f"{import_}{lists}")
    assert [shown.count(each) for each in ids] == [2, 2]


def whole(block: str) -> str:
    """A configuration, of one that may be a part: with what a relay cannot do without."""
    before, after = "", ""
    if "queue =" not in block:
        before += 'queue = "/var/lib/twisted_sendmail/queue"\n'
    if "listen]]" not in block and "listen =" not in block:
        before += 'listen = ["tcp:127.0.0.1:2525"]\n'
    if "[[smarthost]]" not in block:
        after = '[[smarthost]]\nurl = "smtps://mail.example.net"\n'
    return before + block + after


@pytest.mark.parametrize(
    "page",
    [
        "run-the-relay",
        "watch-the-relay",
        "replace-sendmail",
        "use-several-machines",
        "../reference/relay-configuration",
        "../../README",
    ],
)
def test_every_configuration_of_a_page_can_be_used(machine: Machine, page: str) -> None:
    from tests.names import password_entry
    from twisted_sendmail.testing import Authority

    pem = Authority().issue(["relay.example.org"]).decode("ascii")
    key = pem.index("-----BEGIN PRIVATE KEY")
    folder = "etc/twisted_sendmail"
    machine.write(f"{folder}/server.key", pem[key:])
    machine.write(f"{folder}/server.pem", pem[:key])
    machine.write(f"{folder}/accounts", password_entry("jane", "s3cret") + "\n")
    (machine.root / "run/secrets").mkdir()
    for name in ("smarthost.password", "admin-token"):
        machine.write(f"{folder}/{name}", "0123456789abcdef\n")
    machine.write("run/secrets/smarthost", "s3cret\n")
    for path in [*(machine.root / folder).iterdir(), machine.root / "run/secrets/smarthost"]:
        path.chmod(0o600)
    configurations = blocks(f"{page}.md", "toml")
    assert configurations
    for block in configurations:
        machine.write(f"{folder}/relay.toml", machine.moved(whole(block)))
        found = read_configuration(machine.root / folder / "relay.toml", Clock())
        assert is_queue_url(found.queue) or machine.root in Path(found.queue).parents


@pytest.mark.parametrize("page", ["run-the-relay", "../../README"])
def test_the_flags_of_a_page_can_be_used(machine: Machine, page: str) -> None:
    machine.write("secret.txt", "s3cret\n")
    (machine.root / "secret.txt").chmod(0o600)
    (command,) = (b for b in blocks(f"{page}.md", "sh") if b.startswith("twistd --nodaemon "))
    assert machine.run(command.rstrip() + " --check\n") == "the command line: good\n"


def test_the_page_of_the_relay_names_what_it_takes() -> None:
    from twisted_sendmail.daemon.tap import FLAGS

    page = (PAGES.parent / "reference" / "command-line.md").read_text("utf-8")
    section = page.partition("## twistd sendmail\n")[2].partition("\n## ")[0]
    table = "".join(line for line in section.splitlines() if line.startswith("| `--"))
    assert set(re.findall(r"`--([a-z-]+)", table)) == {*FLAGS, "config", "check"}


def test_the_page_of_sendmail_lists_exactly_its_options() -> None:
    """Every letter that is parsed is on the page, and no other."""
    from twisted_sendmail.cli.sendmail.options import LETTERS

    page = (PAGES.parent / "reference" / "command-line.md").read_text("utf-8")
    section = page.partition("## twisted-sendmail-sendmail\n")[2].partition("\n## ")[0]
    written = set(re.findall(r"`-([A-Za-z])", section))
    assert written == LETTERS
