"""How the demo shows what happened: chapters, dialogues, files, logs, and what is claimed of it all.

What others wrote is escaped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from twisted_sendmail.cli.terminal import say
from twisted_sendmail.smtp import TLSFacts, printable

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)\S* \[([^\]#]*)#?\w*\] ")


def _show(what: RenderableType) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(what)
    say(captured.get().rstrip("\n"))


def chapter(number: int, title: str, more: str = "") -> None:
    """Begin the next one."""
    say("")
    text = Text(f"{number}. {title}", style="bold")
    if more:
        text.append(f" · {more}", style="not bold dim")
    _show(Rule(text, align="left", style="dim"))


def panel(title: str, lines: Iterable[str]) -> None:
    """A file, a message."""
    shown = [Text(printable(line.expandtabs())) for line in lines]
    _show(Panel(Group(*shown), title=title, title_align="left", border_style="dim"))


def dialogue(title: str, lines: Iterable[str]) -> None:
    """What was said by client and server; escaped and masked already."""
    styles = {"C:": "cyan", "S:": "green"}
    shown = [Text(line, style=styles.get(line[:2], "dim italic")) for line in lines]
    _show(Panel(Group(*shown), title=title, title_align="left", border_style="dim"))


def tls(facts: TLSFacts | None) -> None:
    """A TLS session."""
    if facts is None:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "session": f"{facts.version}, {facts.cipher}",
        "server": f"proved by {facts.verified_by}: {facts.identity}",
        "issued by": facts.issuer,
    }
    for label, value in rows.items():
        table.add_row(label, printable(value or "none"))
    _show(Panel(table, title="TLS", title_align="left", border_style="dim"))


def command(line: str, output: str) -> None:
    """What was typed, and what came of it."""
    shown = [Text(f"$ {line}", style="bold"), *(Text(each) for each in output.splitlines())]
    _show(Panel(Group(*shown), border_style="dim"))


def relay_log(log: str) -> None:
    """The relay's own lines about mail."""
    lines = []
    for line in log.splitlines():
        found = _STAMP.match(line)
        if found and found[2] == "twisted_sendmail.relay":
            shown = f"{found[1]} {line[found.end() :]}"
            style = "green" if "status=sent" in line else "yellow" if "status=" in line else ""
            lines.append(Text(printable(shown), style=style))
    _show(Panel(Group(*lines), title="The relay's log", title_align="left", border_style="dim"))


def claims(checked: Mapping[str, bool]) -> bool:
    """What is claimed, each with its proof; True if all holds."""
    say("")
    for claim, holds in checked.items():
        mark = ("✔ ", "bold green") if holds else ("✘ not true: ", "bold red")
        _show(Text.assemble(mark, (claim, "bold")))
    return all(checked.values())
