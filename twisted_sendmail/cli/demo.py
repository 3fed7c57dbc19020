"""``twisted-sendmail demo``: the whole way of one message, on the loopback interface.

A submission server with a throw-away CA, STARTTLS and AUTH is started in this very
process, and one message is submitted to it by the public ``submit``.  What is shown is
what happened.
"""

from __future__ import annotations

import secrets
from argparse import ArgumentParser, Namespace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from twisted_sendmail.cli.exit_status import ExitStatus
from twisted_sendmail.cli.running import run
from twisted_sendmail.cli.terminal import complain, say
from twisted_sendmail.client.tls_policy import TLSTrust
from twisted_sendmail.mailer.submission_server import SubmissionServer
from twisted_sendmail.mailer.submit import submit
from twisted_sendmail.sasl.credentials import Credentials
from twisted_sendmail.smtp.outcome import DeliveryReport
from twisted_sendmail.smtp.printable import printable
from twisted_sendmail.smtp.server_settings import EXTENSIONS, ServerSettings
from twisted_sendmail.smtp.tls_facts import TLSFacts
from twisted_sendmail.testkit.loopback import LoopbackServer

HELP = "submit a message to a server of its own, and show all of it"

USER = "alice"
#: With everything that breaks a careless client: 8-bit text, leading dots, a lone dot,
#: no line end at the end.
MESSAGE = (
    "From: Alice <alice@example.org>\r\n"
    "To: Bob <bob@example.net>\r\n"
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
    "..two dots, behind a line that is one dot\r\n"
    "\r\n"
    "The end, without a line end."
).encode()
#: As it goes over the wire.
MESSAGE_SENT = MESSAGE + b"\r\n"

# Without CHUNKING: its content needs no dots stuffed, and they are to be seen.
_SETTINGS = ServerSettings(
    starttls=True,
    mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN"),
    require_auth=True,
    extensions=tuple(word for word in EXTENSIONS if word not in {"CHUNKING", "BINARYMIME"}),
)


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Start a submission server on the loopback interface, with a throw-away authority, STARTTLS "
        "and AUTH; submit a message to it; show the dialogue, the TLS session and what arrived. "
        "Needs no network and leaves nothing behind."
    )


def execute(args: Namespace) -> int:
    """Run it; the exit status."""
    return run(_work)


async def _work(reactor: Any) -> int:
    password = secrets.token_urlsafe(12)
    dialogue: list[str] = []
    async with LoopbackServer(reactor, users={USER: password}, settings=_SETTINGS) as loopback:
        server = SubmissionServer.from_url(
            loopback.url,
            credentials=Credentials(USER, password, mechanisms=["PLAIN"]),
            trust=TLSTrust(ca_file=loopback.ca_file),
            helo_name="client.example.org",
            watch=dialogue.append,
        )
        report = await submit(reactor, server, MESSAGE)
        (received,) = await loopback.wait_for(1)
    secret_shown = any(password in line for line in dialogue)
    same = received.content == MESSAGE_SENT
    _show(_dialogue(dialogue, server))
    if report.tls is not None:
        _show(_tls(report.tls))
    _show(_arrival(received.content))
    _show(_verdict(report, same=same, octets=len(MESSAGE_SENT)))
    if secret_shown:
        complain("the password is in the dialogue")
    return ExitStatus.OK if same and not secret_shown and report.tls else ExitStatus.SOFTWARE


def _show(what: RenderableType) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(what)
    say(captured.get().rstrip("\n"))


def _dialogue(lines: list[str], server: SubmissionServer) -> RenderableType:
    styles = {"C:": "cyan", "S:": "green"}
    shown = [Text(line, style=styles.get(line[:2], "dim italic")) for line in lines]
    return Panel(
        Group(*shown),
        title=f"The dialogue with {server}, secrets masked",
        title_align="left",
        border_style="dim",
    )


def _tls(tls: TLSFacts) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "session": f"{tls.version}, {tls.cipher}",
        "server": f"proved by {tls.verified_by}: {tls.identity}",
        "certificate": tls.subject,
        "issued by": tls.issuer,
        "for": ", ".join(tls.names),
        "SHA-256": tls.fingerprint,
    }
    for label, value in rows.items():
        table.add_row(label, printable(value or "none"))
    return Panel(table, title="TLS", title_align="left", border_style="dim")


def _arrival(content: bytes) -> RenderableType:
    lines = [Text(printable(line)) for line in content.split(b"\r\n")[:-1]]
    return Panel(
        Group(*lines), title="The message as it arrived", title_align="left", border_style="dim"
    )


def _verdict(report: DeliveryReport, *, same: bool, octets: int) -> RenderableType:
    if same:
        text = f"{octets} octets arrived, each as it was sent"
    else:
        text = "what arrived is not what was sent"
    (outcome,) = report.outcomes
    return Text.assemble(
        ("✔ " if same else "✘ ", "bold green" if same else "bold red"),
        (text, "bold"),
        f"\n  {outcome}",
    )
