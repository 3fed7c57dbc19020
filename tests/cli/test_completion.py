"""The completion for bash offers what the command accepts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import Command, all_commands
from twisted_sendmail.cli.queue import STATES

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


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: "-".join(command.path))
def test_all_options_and_commands_are_completed(command: Command) -> None:
    path, options, below = command
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
