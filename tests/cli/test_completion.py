"""The completion for bash offers what the command accepts."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_sendmail.cli.main import parser
from twisted_sendmail.cli.queue import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPLETION = Path(__file__).parents[2] / "completion/twisted-sendmail"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def completed(*words: str) -> list[str]:
    """What bash offers for the last of *words*."""
    script = (
        'source "$1"; shift; COMP_WORDS=(twisted-sendmail "$@"); COMP_CWORD=$#; '
        '_twisted_sendmail; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(COMPLETION), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def _commands(
    of: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], set[str], set[str]]]:
    """Path, long options and subcommands of each command."""
    below: dict[str, argparse.ArgumentParser] = {}
    options: set[str] = set()
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            below.update(action.choices)
        elif action.help != argparse.SUPPRESS:
            options |= {each for each in action.option_strings if each.startswith("--")}
    yield path, options, set(below)
    for name, each in below.items():
        yield from _commands(each, (*path, name))


@pytest.mark.parametrize(
    ("path", "options", "below"),
    [pytest.param(*each, id="-".join(each[0])) for each in _commands(parser())],
)
def test_all_options_and_commands_are_completed(
    path: tuple[str, ...], options: set[str], below: set[str]
) -> None:
    assert set(completed(*path, "--")) == options
    if below:
        assert set(completed(*path, "")) == options | below


def test_values_are_completed() -> None:
    assert completed("queue", "list", "--state", "") == list(STATES)
    assert completed("send", "--tls", "st") == ["starttls"]


def test_files_and_addresses_are_left_to_the_shell() -> None:
    assert completed("send", "--attach", "") == []
    assert completed("send", "") == []
    assert completed("queue", "show", "") == []
