"""Sphinx extension: show the state table of a session from the code.

```{state-table} twisted_sendmail.smtp.server_states
```

has one row for each state: its name, its meaning, and the next state after each successful command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from enum import Enum

    from sphinx.application import Sphinx


def rows(module: str) -> list[tuple[str, str, str]]:
    """Return name, meaning and transitions, such as ``RCPT → RCPT``, of each state."""
    table = import_module(module).SERVER_TABLE
    ways: dict[Enum, dict[str, list[str]]] = {}
    for (state, verb, *_), following in table.items():
        ways.setdefault(state, {}).setdefault(following.name, []).append(verb.value)
    return [
        (
            state.name,
            state.value,
            "; ".join(f"{', '.join(verbs)} → {name}" for name, verbs in found.items()),
        )
        for state, found in ways.items()
    ]


class StateTable(SphinxDirective):
    """The directive ``state-table``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        columns = ("state", "meaning", "transitions")
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (1, 3, 6)]
        group += nodes.thead("", self._row(columns))
        group += nodes.tbody("", *(self._row(row) for row in rows(self.arguments[0])))
        return [nodes.table("", group)]

    @staticmethod
    def _row(texts: tuple[str, str, str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in texts))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("state-table", StateTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
