"""A command or a file with tokens is used once more after a refusal, wherever it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from pytest_twisted import ensureDeferred

from tests.cli.shell import Shell
from tests.cli.test_accounts import account, write_accounts
from twisted_sendmail.testing import LoopbackServer


class ReplacedToken(str):
    """The only valid token; each refusal of another one replaces the file, as a helper would."""

    __slots__ = ("file", "seen")

    file: Path
    seen: list[str]

    def __new__(cls, text: str, file: Path) -> ReplacedToken:
        made = super().__new__(cls, text)
        made.file = file
        made.seen = []
        made.replace_file()
        return made

    def replace_file(self) -> None:
        self.file.write_text(f"token-{len(self.seen) + 1}\n")
        self.file.chmod(0o600)

    def __eq__(self, other: object) -> bool:
        self.seen.append(str(other))
        self.replace_file()
        return str(self) == str(other)

    __hash__ = str.__hash__


WAYS = {
    "a command": (["--bearer", "--password-command=cat token"], "", ""),
    "a file": (["--bearer", "--password-file=token"], "", ""),
    "the URL": ([], urlencode({"bearer": "true", "password-file": "token"}), ""),
    "an account's command": ([], "", 'password-command = ["cat", "token"]'),
    "an account's line for the shell": ([], "", 'password-shell = "cat token"'),
    "an account's file": ([], "", 'password-file = "../../token"'),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("valid", ["token-2", "token-3"])
@ensureDeferred
async def test_a_refused_token_is_read_again_once(
    reactor: Any, shell: Shell, way: str, valid: str
) -> None:
    options, query, keys = WAYS[way]
    token = ReplacedToken(valid, shell.folder / "token")
    async with LoopbackServer(reactor, tokens={"alice": token}) as server:
        words = [*options, "--mechanism=OAUTHBEARER"]
        if keys:
            write_accounts(shell, account(server, f"bearer = true\n{keys}"))
        else:
            url = server.url.replace("://", "://alice@")
            words += [f"--ca-file={server.ca_file}", f"{url}?{query}" if query else url]
        done = await shell.run("check", *words)
    assert token.seen == ["token-1", "token-2"]
    assert (done.status, "AUTH succeeded" in done.out) == (
        (0, True) if valid == "token-2" else (77, False)
    )


@ensureDeferred
async def test_check_names_the_login_among_the_settings(reactor: Any, shell: Shell) -> None:
    """An account with them needs no option."""
    shell.write("token", b"token\n", 0o600)
    async with LoopbackServer(reactor, tokens={"alice": "token"}) as server:
        url = f"{server.url.replace('://', '://alice@')}?bearer=true&password-file=token"
        words = [f"--ca-file={server.ca_file}", "--source-address=127.0.0.1"]
        done = await shell.run("check", url, *words)
        settings = done.out.partition("settings")[2]
        write_accounts(shell, f"[account.work]\n{settings}".replace('"token"', '"../../token"'))
        again = await shell.run("check")
    assert 'user = "alice"' in settings
    assert 'password-file = "token"' in settings
    assert "bearer = true" in settings
    assert 'source-address = "127.0.0.1"' in settings
    assert (again.status, "AUTH succeeded" in again.out) == (0, True)
    # A relative file of an account starts at the folder of its file.
    here = again.out.partition("settings")[2].replace("/.config/twisted-sendmail/../..", "")
    assert here == settings.replace('"token"', f'"{shell.folder}/token"')


@ensureDeferred
async def test_a_pipe_with_a_token_is_read_once(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, tokens={"alice": "token"}) as server:
        url = server.url.replace("://", "://alice@")
        words = [f"--ca-file={server.ca_file}", "--bearer", "--password-file=/dev/stdin"]
        done = await shell.run("check", url, *words, stdin=b"token\n")
    assert (done.status, done.err, "AUTH succeeded" in done.out) == (0, "", True)


@ensureDeferred
async def test_a_command_without_a_token_is_a_temporary_error(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, tokens={"alice": "token"}) as server:
        url = f"--server={server.url.replace('://', '://alice@')}"
        words = [f"--ca-file={server.ca_file}", "--bearer", "--password-command=exit 3"]
        done = await shell.run("send", url, *words, shell.message)
        assert not server.messages
    assert done.status == 75
    assert "the token cannot be obtained for [127.0.0.1]:" in done.err
    assert ": the command failed with status 3; run it by hand as the same user" in done.err


def test_a_password_command_that_prints_without_end_is_ended(shell: Shell) -> None:
    done = shell.run_now("check", "smtps://a@x", "--password-command=yes")
    assert done.status == 65
    assert "the output of the password command is longer than 65536 octets" in done.err


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        ("smtps://a@x --bearer --password-file absent", 66, "password file absent cannot be read"),
        ("smtps://a@x?bearer=true", 78, "bearer in the server's URL cannot be used; for a file"),
        ("smtps://a@x?bearer=no&password-file=t", 78, "bearer in the server's URL cannot"),
        ("smtps://a@x?password-file=t", 78, "password-file in the server's URL cannot"),
        (
            "smtps://a@x?bearer=true&password-file=t&oauth-client-id=c",
            78,
            "write bearer=true&password-file=FILE, and no setting of OAuth",
        ),
        (
            "smtps://a@x?bearer=true&password-file=t --password-command x",
            64,
            "--password-command contradicts the server's URL",
        ),
    ],
)
def test_a_mistake_is_one_line(shell: Shell, words: str, status: int, problem: str) -> None:
    done = shell.run_now("check", *words.split())
    assert done.status == status
    assert problem in done.err
    assert done.err.count("\n") == 1
