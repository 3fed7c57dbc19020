"""Secrets from each source; none is in an error or a repr."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.daemon.conftest import PASSWORD
from twisted_sendmail import secret_reader
from twisted_sendmail.daemon.config_types import InvalidValue
from twisted_sendmail.daemon.secrets import SecretSource
from twisted_sendmail.sasl import CredentialsUnavailable
from twisted_sendmail.secret_file import MAX_SECRET_SIZE


def file(tmp_path: Path, content: bytes = PASSWORD.encode() + b"\n", mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def why(source: SecretSource) -> str:
    with pytest.raises(InvalidValue) as caught:
        source.read()
    assert PASSWORD not in caught.value.why + caught.value.remedy
    return caught.value.why


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
def test_a_file_is_read_without_its_line_end(tmp_path: Path, end: bytes, mode: int) -> None:
    assert PASSWORD == SecretSource("file", file(tmp_path, PASSWORD.encode() + end, mode)).read()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the secret is empty, or more than one line"),
        (b"\n", "the secret is empty, or more than one line"),
        (b"one\ntwo\n", "the secret is empty, or more than one line"),
        (b"a\0b", "the secret is empty, or more than one line"),
        (b"\xff\xfe", "the secret is not UTF-8"),
        (b"x" * (MAX_SECRET_SIZE + 1), "the secret is longer than 65536 octets"),
    ],
)
def test_empty_long_and_multiline_files_are_no_secrets(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    assert complaint == why(SecretSource("file", file(tmp_path, content)))


def test_a_pipe_or_directory_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert why(SecretSource("file", tmp_path / "pipe")).endswith("pipe is no file")
    assert why(SecretSource("file", tmp_path)).endswith(" cannot be read: Is a directory")


def test_a_credential_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path, mode=0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert PASSWORD == SecretSource("credential", "secret").read()
    assert "invalid name of a credential" == why(SecretSource("credential", "../secret"))
    assert "No such file" in why(SecretSource("credential", "other"))


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SECRET", PASSWORD)
    assert PASSWORD == SecretSource("environment", "OUR_SECRET").read()


def test_a_command_is_run_without_a_shell_and_a_line_by_one() -> None:
    code = f"print({PASSWORD!r})"
    assert PASSWORD == SecretSource("command", (sys.executable, "-c", code)).read()
    assert "$HOME" == SecretSource("command", ("/bin/echo", "$HOME")).read()
    assert PASSWORD == SecretSource("shell", f"echo {PASSWORD} | cat").read()


def test_a_command_that_fails_says_so_and_no_more(capfd: pytest.CaptureFixture[str]) -> None:
    failing = SecretSource("shell", f"echo {PASSWORD}; echo {PASSWORD} >&2; exit 3")
    assert "the command failed with status 3" == why(failing)
    assert ("", "") == capfd.readouterr()
    assert "the command cannot be run: No such file or directory" == why(
        SecretSource("command", ("/nil/nil",))
    )


def test_a_command_that_hangs_is_ended_with_all_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(secret_reader, "COMMAND_TIMEOUT", 0.3)
    line = f"sh -c 'sleep 300 & echo $! >{tmp_path}/pid; wait'"
    assert "the command took longer than 0 s" == why(SecretSource("shell", line))
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    # A process that nobody has waited for is still there, and does nothing.
    while (stat := Path(f"/proc/{pid}/stat")).exists() and " Z " not in stat.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_repr_shows_only_the_kind_of_source() -> None:
    """A line of shell may hold the secret itself."""
    assert "SecretSource(kind='shell')" == repr(SecretSource("shell", f"echo {PASSWORD}"))


@ensureDeferred
async def test_a_provider_reads_anew_each_time(tmp_path: Path, reactor: Any) -> None:
    path = file(tmp_path)
    provide = SecretSource("file", path).provider(reactor)
    assert PASSWORD == await provide()
    path.write_text("other\n")
    assert "other" == await provide()
    path.unlink()
    with pytest.raises(CredentialsUnavailable, match="No such file") as caught:
        await provide()
    assert caught.value.transient
