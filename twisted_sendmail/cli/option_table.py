"""Options of a subcommand, written as a table."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

# The option, its value if it has one, "…" if it may be repeated; after two blanks the help.
_ROW = re.compile(r"(-\S+)(?: (\S+|'[^']*'))?(?:  +(.*))?")


def add_options_of(parser: ArgumentParser | _ArgumentGroup, table: str, **settings: Any) -> None:
    """Add the options of *table* to *parser*, a row each; rows that begin with a blank continue the help.

    An option without a value is a flag; a value with ``…`` may be repeated, and one in braces is a choice::

        --json                print the result as one JSON object
        --ret {full,hdrs}     how much of the message a report returns
        --to ADDRESS…         a recipient; may be repeated

    :param settings: more arguments of ``add_argument`` by the name of the option, such as
        ``port={"type": int}``.
    """
    for row in re.sub("\n +", " ", dedent(table).strip()).split("\n"):
        found = _ROW.fullmatch(row)
        assert found is not None, row  # noqa: S101 - the tables are ours
        flag, value, text = found.groups()
        given: dict[str, Any] = {"help": text} if text else {}
        if value is None:
            given["action"] = "store_true"
        elif value.startswith("{"):
            given["choices"] = value.strip("{}").split(",")
        else:
            given["metavar"] = value.strip("'").removesuffix("…")
            if value.endswith("…"):
                given["action"] = "append"
        name = flag.lstrip("-").replace("-", "_")
        parser.add_argument(flag, **given | settings.get(name, {}))
