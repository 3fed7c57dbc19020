"""A folder with the files of a configuration, and a function to read one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.names import Configuration, ConfigurationError, entry, read_configuration
from twisted_sendmail.exit_status import status_of_start
from twisted_sendmail.testing import Authority

PASSWORD = "kein-Wort-davon-42"
AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.issue()
SIMPLE = """\
queue = "queue"
listen = ["tcp:127.0.0.1:0"]
[[smarthost]]
url = "smtp+starttls://jane@mail.example.net"
password-file = "password"
"""


class Folder:
    """A folder with the files that configurations name."""

    def __init__(self, path: Path, reactor: Any) -> None:
        self.path = path
        self.reactor = reactor
        self.write("password", f"{PASSWORD}\n", 0o600)
        self.write("token", f"{PASSWORD}\n", 0o600)
        self.write("ca.pem", AUTHORITY.pem.decode())
        self.write("server.pem", CERTIFICATE.decode(), 0o600)
        self.write("accounts", entry("jane", PASSWORD, iterations=4096) + "\n", 0o600)

    def write(self, name: str, content: str, mode: int = 0o644) -> Path:
        """Write a file."""
        path = self.path / name
        path.write_text(content, "utf-8")
        path.chmod(mode)
        return path

    def read(self, text: str) -> Configuration:
        """The configuration that *text* is."""
        return read_configuration(self.write("relay.toml", text), self.reactor)

    def complaint(self, text: str) -> str:
        """What is wrong with *text*, without the file's name."""
        with pytest.raises(ConfigurationError) as caught:
            self.read(text)
        line = str(caught.value)
        assert PASSWORD not in line
        assert line.isprintable()
        assert status_of_start(caught.value) == 78
        before = f"{self.path / 'relay.toml'}: "
        assert line.startswith(before)
        return line.removeprefix(before)


@pytest.fixture
def folder(tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr("socket.gethostname", lambda: "relay.example.org")
    return Folder(tmp_path, reactor)
