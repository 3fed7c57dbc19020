"""The relay's host name, for the sendmail command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.names import read_configuration
from twisted_sendmail.cli.sendmail.local_relay import find_relay

CONFIGURATION = 'queue = "queue"\n[[smarthost]]\nurl = "smtp://mail.example.net"\n'


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("box", "localhost"), "box"),
        (("box", "localhost.localdomain"), "box"),
        (("box", "box"), "box"),
        (("box", "box.example.org"), "box.example.org"),
        (("box.example.org", "other.example.org"), "box.example.org"),
        (("box.", "box.example.org"), "box.example.org"),
    ],
)
def test_relay_and_command_use_the_same_host_name(
    tmp_path: Path,
    reactor: Any,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: names[0])
    monkeypatch.setattr("socket.getfqdn", lambda: names[1])
    path = tmp_path / "relay.toml"
    path.write_text(CONFIGURATION, "utf-8")
    assert read_configuration(path, reactor).name == expected
    assert find_relay(str(path)).name == expected
    assert find_relay(str(path)).policy().name == expected


def test_a_machine_with_an_invalid_name_is_localhost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "no name.at all")
    assert find_relay(queue=str(tmp_path)).name == "localhost"
