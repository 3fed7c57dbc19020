"""``twisted-sendmail demo``: a relay between an application and a server that is down, on loopback.

The relay is the real ``twistd sendmail`` in a process of its own, and the message is sent by the
real ``sendmail`` command. The next hop is down at first, then accepts one recipient and refuses
another. The demo prints what happened, and ends with statements that it has checked.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from twisted_sendmail.cli.output import print_result
from twisted_sendmail.cli.react import react
from twisted_sendmail.client import SubmissionServer, TLSTrust, submit
from twisted_sendmail.exit_status import ExitStatus
from twisted_sendmail.sasl import Credentials
from twisted_sendmail.server import password_entry
from twisted_sendmail.smtp import SendmailError, printable
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.faults import refuse_recipient
from twisted_sendmail.testing.loopback import LoopbackServer
from twisted_sendmail.testing.recording import ReceivedMessage

#: The user who submits to the relay, and the relay's user at the next hop.
USER, RELAY = "alice", "relay"
#: The recipient that the next hop refuses.
UNKNOWN = "nobody@example.net"
#: A message that breaks careless clients: 8-bit text, leading dots, a lone dot, no final line end.
MESSAGE = (
    "From: Alice <alice@example.org>\r\n"
    f"To: Bob <bob@example.net>, {UNKNOWN}\r\n"
    "Subject: A first message\r\n"
    "Date: Thu, 01 Jan 2026 12:00:00 +0000\r\n"
    "Message-ID: <demo@example.org>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n"
    "Grüße aus Zürich, 你好, здравствуйте.\r\n"
    ".a line that begins with a dot\r\n"
    ".\r\n"
    "..two dots, after a line that is one dot\r\n"
    "\r\n"
    "The end, without a line end."
).encode()
#: The message as it is transmitted.
MESSAGE_SENT = MESSAGE + b"\r\n"
#: The input of the sendmail command: no Date, no Message-ID, LF line ends.
LETTER = b"To: carol@example.net\nSubject: The backup is done\n\n42 files.\n"
CONFIGURATION = """\
queue = "queue"
name = "relay.example.org"

[[listen]]                   # accepts mail after STARTTLS and AUTH only
endpoint = "tcp:127.0.0.1:{listen}"
certificate = "server.pem"
accounts = "accounts"
trusted = []

[[smarthost]]                # STARTTLS and AUTH again
url = "smtp+starttls://{user}@127.0.0.1:{next_hop}"
password-file = "smarthost.password"
ca-file = "ca.pem"

[delivery]
down-first = "2 s"           # the next attempt; later ones are less often
"""


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Run a relay on the loopback interface, with a temporary certificate authority. Submit a "
        "message as an application does, with STARTTLS and AUTH, and one with the sendmail command. "
        "The next hop is down, then refuses one recipient and accepts the others. Show dialogue, "
        "queue, log, delivered messages and the report. Needs no network, leaves no files, takes "
        "about ten seconds."
    )


def execute(args: Namespace) -> int:
    """Run the demo; the exit status."""
    return react(_demo)


async def _demo(reactor: Any) -> int:
    relay = DemoRelay(reactor)
    try:
        await relay.start()
        _print_title(1, "A relay", "from relay.toml, in part")
        _print_lines(
            line for line in relay.configuration.splitlines() if line.startswith(_SHOWN_SETTINGS)
        )

        _print_title(2, "An application submits a message", "the next hop is down")
        report = await submit(reactor, relay.server, MESSAGE)
        _print_lines(_without_first_offer(relay.dialogue))
        status, output = await relay.run(
            "sendmail", "-t", "-oi", "-f", "cron@example.org", stdin=LETTER
        )
        command = "$ sendmail -t -oi -f cron@example.org < message"
        _print_lines([f"{command} ({output or 'exit status'} {status})"])

        await relay.logged("status=deferred", 2)
        queue_status, queue = await relay.run("main", "queue", "list")
        _print_title(3, "The queue", "the relay replied 250, so the messages are on disk")
        _print_lines(["$ twisted-sendmail queue list", *_of_messages(queue)])

        _print_title(4, "The next hop comes up", f"and refuses {UNKNOWN}")
        await relay.next_hop.start()
        arrived = await relay.next_hop.wait_for(3, timeout=40)
        await relay.logged("status=sent", 3)
        _print_lines(_final_log(relay.log))

        _print_title(5, "The delivered messages")
        first, completed, report_message = (
            _to(arrived, user) for user in ("bob", "carol", "alice")
        )
        _print_lines(["For Bob, as Alice sent it:", *_body(first)])
        added = [f"{name}: {completed.email[name]}" for name in ("Date", "Message-ID")]
        _print_lines(["For Carol, completed by sendmail:", *added])
        _print_lines(["For Alice, from the relay:", *_facts(report_message)])
        _, empty = await relay.run("main", "queue", "list")
        await relay.stop()
        shown = relay.log + str(relay.dialogue)
        statements = {
            "the relay replied 250, and sendmail ended with 0": bool(report.accepted)
            and status == 0,
            "while the next hop was down, mail waited": queue_status == 0 and "refused" in queue,
            f"Bob has {len(MESSAGE_SENT)} octets, each as it was sent": _is_unchanged(first),
            "Carol has one message with a Date and a Message-ID": b"\r\nMessage-ID: <"
            in completed.content,
            "Alice knows who did not get it, and why": _is_report(report_message),
            "each message was sent once": len(relay.next_hop.messages) == 3,
            "the queue is empty": "the queue is empty" in empty,
            "no password is in the dialogue or the log": not any(
                password in shown for password in relay.passwords
            ),
        }
    finally:
        await relay.close()
    print_result("")
    for statement, holds in statements.items():
        mark = ("✔ ", "bold green") if holds else ("✘ not true: ", "bold red")
        _print(Text.assemble(mark, (statement, "bold")))
    return ExitStatus.OK if all(statements.values()) else ExitStatus.SOFTWARE


# -- what arrived -----------------------------------------------------------------


def _to(messages: list[ReceivedMessage], user: str) -> ReceivedMessage:
    (found,) = (m for m in messages if str(m.recipients[0]).startswith(f"{user}@"))
    return found


def _is_unchanged(message: ReceivedMessage) -> bool:
    """Return True if the message follows the relay's own Received field unchanged, with nothing else."""
    received, from_, rest = message.content.partition(b"From: Alice")
    return received.startswith(b"Received: ") and from_ + rest == MESSAGE_SENT


def _body(message: ReceivedMessage) -> list[str]:
    _, _, body = message.content.decode().partition("\r\n\r\n")
    return [line for line in body.splitlines() if line]


def _facts(report: ReceivedMessage) -> list[str]:
    """Return the subject of a report, and its lines about the recipient."""
    wanted = ("Subject: Your", "Final-Recipient:", "Status:")
    return [line for line in report.content.decode().splitlines() if line.startswith(wanted)]


def _is_report(report: ReceivedMessage) -> bool:
    return (
        report.sender.mailbox is None
        and report.email.get_content_type() == "multipart/report"
        and f"Final-Recipient: rfc822; {UNKNOWN}".encode() in report.content
        and b"5.1.1" in report.content
    )


# -- output -----------------------------------------------------------------------

_SHOWN_SETTINGS = ("[[", "endpoint", "accounts", "url")
#: Columns of a line after its indentation.
_WIDTH = 76
_ARRIVED = re.compile(r"^\w+: (from=<[^>]*>).*(\(queued\))")
_ENDED = re.compile(r"^\w+: (to=<[^>]*>),.*?(status=(?:sent|bounced).*)$")
_LOG_LINE = re.compile(
    r"^\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)\S* \[twisted_sendmail\.relay(?:#\w*)?\] (.*)$", re.MULTILINE
)


def _print(content: RenderableType) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(content)
    print_result(captured.get().rstrip("\n"))


def _print_title(number: int, title: str, more: str = "") -> None:
    text = Text(f"{number}. {title}", style="bold")
    if more:
        text.append(f" · {more}", style="not bold dim")
    _print(Rule(text, align="left", style="dim"))


def _print_lines(lines: Iterable[str]) -> None:
    """Print *lines*, escaped, each cut to the width of a small terminal."""
    styles = {"C:": "cyan", "S:": "green", "$ ": "bold"}
    for line in lines:
        shown = printable(line.expandtabs())
        shown = shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"
        _print(Text(f"  {shown}", style=styles.get(line[:2], "")))


def _without_first_offer(dialogue: list[str]) -> Iterator[str]:
    """Yield the dialogue, without the reply to the first EHLO: the one inside TLS counts."""
    tls = next((at for at, line in enumerate(dialogue) if line.startswith("C: STARTTLS")), 0)
    for at, line in enumerate(dialogue):
        if at > tls or not line.startswith("S: 250"):
            yield line


def _of_messages(listing: str) -> Iterator[str]:
    """Yield the first lines of each message in a listing of the queue, and the sum."""
    lines = [line for line in listing.splitlines() if line]
    for line in lines:
        if line[:1] != " " and not line.startswith("route "):
            yield line


def _final_log(log: str) -> Iterator[str]:
    """Return the relay's log: each message comes in, and each recipient ends."""
    for found in _LOG_LINE.finditer(log):
        who = _ARRIVED.search(found[2]) or _ENDED.search(found[2])
        if who is not None or "route " in found[2]:
            yield f"{found[1]} {found[2] if who is None else ' '.join(who.groups())}"


# -- the relay --------------------------------------------------------------------

_TWISTD = "from twisted.scripts.twistd import run; run()"
_COMMAND = "from twisted_sendmail.cli.{} import console; console()"
#: Seconds to wait for the relay to start or to log a line.
_PATIENCE = 30.0


class DemoRelay:
    """A relay in a temporary directory, and its next hop, which is not started."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._process: subprocess.Popen[bytes] | None = None
        self.passwords = (secrets.token_urlsafe(12), secrets.token_urlsafe(12))
        #: The dialogue of the application with the relay.
        self.dialogue: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="demo-"))
        self._port, next_hop = _free_ports()
        authority = Authority()
        self.next_hop = LoopbackServer(
            reactor,
            users={RELAY: self.passwords[1]},
            port=next_hop,
            authority=authority,
            faults=[refuse_recipient(UNKNOWN)],
        )
        self.configuration = CONFIGURATION.format(listen=self._port, next_hop=next_hop, user=RELAY)
        self._write("ca.pem", authority.pem)
        self._write("server.pem", authority.issue(["localhost", "127.0.0.1"]))
        self._write("accounts", f"{password_entry(USER, self.passwords[0])}\n".encode())
        self._write("smarthost.password", f"{self.passwords[1]}\n".encode())
        self._write("relay.toml", self.configuration.encode())

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)

    @property
    def server(self) -> SubmissionServer:
        """The relay, for an application."""
        return SubmissionServer.from_url(
            f"smtp+starttls://127.0.0.1:{self._port}",
            credentials=Credentials(USER, self.passwords[0]),
            trust=TLSTrust(ca_file=str(self._folder / "ca.pem")),
            helo_name="client.example.org",
            watch=self.dialogue.append,
        )

    @property
    def log(self) -> str:
        """The relay's log so far."""
        return (self._folder / "relay.log").read_text("utf-8", "replace")

    async def start(self) -> None:
        """Start the relay, and wait until it listens.

        :raises SendmailError: the relay does not start.
        """
        twistd = [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=", "sendmail"]
        with (self._folder / "relay.log").open("wb") as log:
            process = self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once; our own command
                [*twistd, "--config", str(self._folder / "relay.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        since = self._reactor.seconds()
        while not self._listens():
            if process.poll() is not None or self._reactor.seconds() - since > _PATIENCE:
                raise SendmailError("the relay does not start", detail=self.log[-500:])
            await deferLater(self._reactor, 0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    async def logged(self, text: str, times: int) -> None:
        """Wait until the relay has logged *text* that many times.

        :raises SendmailError: it takes too long.
        """
        since = self._reactor.seconds()
        while self.log.count(text) < times:
            if self._reactor.seconds() - since > _PATIENCE:
                raise SendmailError(f"the relay did not log '{text}'", detail=self.log[-500:])
            await deferLater(self._reactor, 0.05)

    async def run(self, module: str, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a command of this package as a shell does: its exit status and output."""
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-c", _COMMAND.format(module), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env={
                **os.environ,
                "TWISTED_SENDMAIL_CONFIG": str(self._folder / "relay.toml"),
                "TWISTED_SENDMAIL_SPOOL": str(self._folder / "queue"),
                "PYTHONIOENCODING": "utf-8",
                "COLUMNS": "100",
            },
        )
        return done.returncode, done.stdout.decode("utf-8", "replace").rstrip("\n")

    async def stop(self) -> None:
        """Stop the relay by SIGTERM, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await deferToThread(process.wait)

    async def close(self) -> None:
        """Kill the relay if it runs, stop the next hop, and remove the directory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        await self.next_hop.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_ports() -> list[int]:
    """Return two ports that are free."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]
