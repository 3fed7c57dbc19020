"""The commands and options that the parser accepts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.cli.main import SUBCOMMANDS, parser

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(NamedTuple):
    """One command or subcommand."""

    path: tuple[str, ...]
    #: Its long options that are not hidden.
    options: set[str]
    #: Names of the commands below it.
    below: set[str]


def all_commands() -> list[Command]:
    """Every command, the one without a subcommand first."""
    found = {each.path: each for each in _walk(parser(None), ())}
    for name in SUBCOMMANDS:
        found.update({each.path: each for each in _walk(parser(name), ()) if name in each.path})
    return list(found.values())


def _walk(of: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Command]:
    below: dict[str, argparse.ArgumentParser] = {}
    options: set[str] = set()
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            below.update(action.choices)
        elif action.help != argparse.SUPPRESS:
            options |= {each for each in action.option_strings if each.startswith("--")}
    yield Command(path, options, set(below))
    for name, each in below.items():
        yield from _walk(each, (*path, name))
