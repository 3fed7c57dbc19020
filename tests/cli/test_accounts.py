"""Accounts of a person: one file, by name or by default, for `twisted-sendmail` and `sendmail`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.cli.shell import PASSWORD, Shell
from tests.token_endpoint import REFRESH, SECRET, Endpoint, listen
from twisted_sendmail.drop import DEFAULT_SPOOL
from twisted_sendmail.testing import LoopbackServer

USERS = {"alice": PASSWORD}
FILE = ".config/twisted-sendmail/accounts.toml"
COMPOSED = ["send", "--to=bob@example.net", "--text=Hi."]


def write_accounts(shell: Shell, text: str, mode: int = 0o600) -> str:
    (shell.folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    return shell.write(FILE, text.encode(), mode)


def account(server: LoopbackServer, secret: str, name: str = "work") -> str:
    url = server.url.replace("://", "://alice@")
    return (
        f'[account.{name}]\nurl = "{url}"\nca-file = "{server.ca_file}"\n'
        f'from = "Alice <alice@example.org>"\n{secret}\n'
    )


def oauth_keys(port: Any, refresh_token_file: str) -> str:
    """The keys of an account that logs in with tokens of the endpoint at *port*."""
    return f"""
        oauth-token-url = "http://127.0.0.1:{port.getHost().port}/token"
        oauth-client-id = "mailer"
        oauth-client-secret-file = "../../client"
        oauth-refresh-token-file = "../../{refresh_token_file}"
    """


@ensureDeferred
async def test_an_account_logs_in_with_oauth(reactor: Any, shell: Shell) -> None:
    """And stores the refresh token that the endpoint gives in place of the first."""
    endpoint = Endpoint()
    endpoint.rotates = True
    port = listen(reactor, endpoint)
    shell.write("refresh", REFRESH.encode(), 0o600)
    shell.write("client", SECRET.encode(), 0o600)
    async with LoopbackServer(reactor, tokens={"alice": "access-2"}) as server:
        keys = oauth_keys(port, "refresh")
        write_accounts(shell, account(server, keys), 0o644)
        done = await shell.run(*COMPOSED)
        (received,) = server.messages
    await port.stopListening()
    assert (done.status, done.err, received.user) == (0, "", "alice")
    assert (shell.folder / "refresh").read_text() == f"{REFRESH}-2\n"


@ensureDeferred
async def test_commands_for_the_refresh_token_replace_the_file_of_an_account(
    reactor: Any, shell: Shell
) -> None:
    endpoint = Endpoint()
    port = listen(reactor, endpoint)
    shell.write("kept", REFRESH.encode(), 0o600)
    shell.write("client", SECRET.encode(), 0o600)
    async with LoopbackServer(reactor, tokens={"alice": "access-2"}) as server:
        keys = oauth_keys(port, "absent")
        write_accounts(shell, account(server, keys), 0o644)
        words = ["--oauth-refresh-token-command=cat kept", "--oauth-store-command=cat > kept"]
        done = await shell.run(*COMPOSED, *words)
        assert len(server.messages) == 1
    await port.stopListening()
    assert (done.status, done.err) == (0, "")


@ensureDeferred
@pytest.mark.parametrize(
    "secret",
    [
        f'password = "{PASSWORD}"',
        'password-file = "../../password"',
        'password-command = ["cat", "{folder}/password"]',
        'password-shell = "cat {folder}/password | cat"',
        'password-environment = "SECRET_OF_WORK"',
    ],
    ids=lambda secret: secret.partition(" ")[0],
)
async def test_the_default_account_gives_server_sender_and_password(
    reactor: Any, shell: Shell, secret: str
) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        text = account(server, secret.replace("{folder}", str(shell.folder)))
        write_accounts(shell, text)
        done = await shell.run(*COMPOSED, SECRET_OF_WORK=PASSWORD)
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    assert (received.user, received.email["From"]) == ("alice", "Alice <alice@example.org>")


@ensureDeferred
async def test_an_account_is_named_and_options_precede_its_keys(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        other = '[account.other]\nurl = "smtps://127.0.0.1:1"\n'
        wrong = account(server, 'password = "wrong"')
        write_accounts(shell, f'default = "other"\n{other}{wrong}')
        by_default = await shell.run(*COMPOSED, "--from=a@example.org")
        refused = await shell.run(*COMPOSED, "--account=work")
        words = ["--account=work", "--password-file", shell.password, "--from=c@example.org"]
        sent = await shell.run(*COMPOSED, *words)
        checked = await shell.run("check", *words[:3])
        (received,) = server.messages
    assert (by_default.status, refused.status, sent.status, checked.status) == (75, 77, 0, 0)
    assert received.email["From"] == "c@example.org"


@ensureDeferred
async def test_a_server_by_option_or_variable_precedes_the_default_account(
    reactor: Any, shell: Shell
) -> None:
    write_accounts(shell, '[account.work]\nurl = "smtps://127.0.0.1:1"\n')
    async with LoopbackServer(reactor) as server:
        words = ["--ca-file", server.ca_file, shell.message]
        by_option = await shell.run("send", "--server", server.url, *words)
        by_variable = await shell.run("send", *words, TWISTED_SENDMAIL_SERVER=server.url)
    assert (by_option.status, by_variable.status, len(server.messages)) == (0, 0, 2)


# -- sendmail -----------------------------------------------------------------

NO_RELAY = pytest.mark.skipif(
    os.path.lexists(DEFAULT_SPOOL), reason="a relay is installed on this machine"
)
CRON = (
    b"From: root (Cron Daemon)\nTo: root\nSubject: job\nBcc: hidden@example.net\n\nH\xc3\xa4llo.\n"
)


UNREACHABLE = '[account.work]\nurl = "smtps://127.0.0.1:1"\nfrom = "a@example.org"\n'


async def sendmail(
    shell: Shell, *words: str, stdin: bytes = CRON, **env: str
) -> subprocess.CompletedProcess[str]:
    command = str(Path(sys.executable).parent / "twisted-sendmail-sendmail")
    done = await deferToThread(
        subprocess.run,
        [command, *words],
        input=stdin,
        capture_output=True,
        env={**shell.env, **env},
        timeout=100,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert PASSWORD not in out + err
    assert "Traceback" not in err
    return subprocess.CompletedProcess(words, done.returncode, out, err)


@NO_RELAY
@ensureDeferred
async def test_sendmail_submits_by_the_default_account_where_no_relay_is_installed(
    reactor: Any, shell: Shell
) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        text = account(server, f'password = "{PASSWORD}"\nlocal-mail-to = "admin@example.org"')
        write_accounts(shell, text)
        cron = await sendmail(shell, "-i", "root", "-Fignored", "-Nfailure", "-Rhdrs")
        words = ["-t", "-v", "-f", "bounces@example.org", "-F", "Bob B", "-oi", "carol@example.net"]
        plain = await sendmail(shell, *words, stdin=b"To: dave@example.net\n\n.\nHi.")
        first, second = server.messages
    assert (cron.returncode, cron.stdout, cron.stderr) == (0, "", "")
    assert plain.stderr.startswith("-- accepted by ")
    assert (first.user, str(first.sender), [str(each) for each in first.recipients]) == (
        "alice",
        "alice@example.org",
        ["admin@example.org"],
    )
    assert (first.parameters.ret, sorted(first.recipients[0].notify)) == ("HDRS", ["FAILURE"])
    assert b"From: root@example.org (Cron Daemon)\r\n" in first.content
    assert b"hidden" not in first.content
    assert {"Date", "Message-ID"} <= set(first.email.keys())
    assert str(second.sender) == "bounces@example.org"
    assert [str(each) for each in second.recipients] == ["carol@example.net", "dave@example.net"]
    assert second.email["From"] == "Bob B <bounces@example.org>"
    assert second.content.endswith(b"\r\n\r\n.\r\nHi.\r\n")


@NO_RELAY
@ensureDeferred
async def test_sendmail_by_an_account_has_the_statuses_of_send(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        write_accounts(shell, account(server, 'password = "wrong"'))
        refused = await sendmail(shell, "bob@example.net")
        local = await sendmail(shell, "root")
        queue = await sendmail(shell, "-bp")
    write_accounts(shell, UNREACHABLE)
    down = await sendmail(shell, "bob@example.net")
    results = [each.returncode for each in (refused, local, queue, down)]
    assert results == [77, 78, 69, 75]
    assert (
        "there is no address for root, a user of this machine; write local-mail-to" in local.stderr
    )
    assert "no relay is installed on this machine" in queue.stderr
    assert all(len(each.stderr.splitlines()) == 1 for each in (refused, local, queue, down))


@ensureDeferred
async def test_sendmail_waits_for_a_relay_that_is_installed_and_down(
    reactor: Any, shell: Shell
) -> None:
    write_accounts(shell, UNREACHABLE)
    done = await sendmail(shell, "bob@example.net", TWISTED_SENDMAIL_SPOOL=str(shell.folder))
    assert (done.returncode, "start the relay" in done.stderr) == (75, True), done.stderr


WORK = '[account.work]\nurl = "smtps://a@x"\n'
MISTAKES = {
    "no TOML": ("[account", "accounts.toml is no TOML"),
    "no account": ('default = "work"', "has no account; correct the name"),
    "another": ('[account.home]\nurl = "smtps://x"', "accounts.toml has home; correct the name"),
    "no url": ("[account.work]", "account.work.url is missing; write smtps://USER@HOST"),
    "no scheme": ('[account.work]\nurl = "x"', "account.work.url cannot be used; write smtps://"),
    "password in url": (
        WORK.replace("a@", "a:s3cret@"),
        "holds a password; write password-command",
    ),
    "two secrets": (f'{WORK}password="s3cret"\npassword-file="x"', "there is a password-file too"),
    "unknown key": (f'{WORK}pasword = "s3cret"', "account.work.pasword is no key; write password"),
    "unknown table": (f"[acount.x]\n{WORK}", "acount is no key; write account"),
    "wrong type": (f"{WORK}password = 3", "account.work.password cannot be used; write one line"),
    "text as command": (f'{WORK}password-command = "pass"', 'write a list such as ["one"'),
    "oauth without a client": (f'{WORK}oauth-provider = "google"', "there is no oauth-client-id"),
    "oauth and a password": (
        f'{WORK}oauth-client-id = "c"\npassword-file = "p"',
        "there is a password-file too; give one of them",
    ),
    "long number": (f"{WORK}password = {'1' * 5000}", "a number in it is too long; correct it"),
    "flag": (f'{WORK}bearer = "yes"', "write true or false, without quotes"),
    "too long": (
        f"{WORK}#{'x' * 1024 * 1024}",
        "it has more than 1048576 octets; name the file of",
    ),
    "no tables": ('account = ["x"]', "account cannot be used: it holds no table; write [account."),
}


@pytest.mark.parametrize(("text", "problem"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_shows_no_secret(shell: Shell, text: str, problem: str) -> None:
    write_accounts(shell, text)
    done = shell.run_now(*COMPOSED, "--account=work")
    assert (done.status, len(done.err.splitlines())) == (78, 1)
    assert problem in done.err
    assert "s3cret" not in done.err


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (f'{WORK}password = "s3cret"', 0o644, "may be read by everybody; chmod 640"),
        (f'{WORK}password-command = ["pass"]', 0o664, "may be changed by others than its owner"),
    ],
)
def test_a_file_that_others_may_change_or_read_a_password_in_is_refused(
    shell: Shell, text: str, mode: int, problem: str
) -> None:
    write_accounts(shell, text, mode)
    done = shell.run_now(*COMPOSED, "--account=work")
    assert (done.status, problem in done.err) == (78, True), done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_of_another_user_is_refused(shell: Shell) -> None:
    os.chown(write_accounts(shell, WORK), 65534, 65534)
    done = shell.run_now(*COMPOSED, "--account=work")
    assert (done.status, "belongs to another user" in done.err) == (78, True), done.err


def test_accounts_are_read_without_twisted(shell: Shell, tmp_path: Path) -> None:
    write_accounts(shell, f'{WORK}password = "s3cret"')
    code = (
        "import sys; from twisted_sendmail.accounts import find_account; print(find_account());"
        "print({name.partition('.')[0] for name in sys.modules} & {'twisted', 'OpenSSL', 'email'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=shell.env, check=True, text=True
    )
    assert done.stdout.splitlines() == [f"Account('work', '{shell.folder}/{FILE}')", "set()"]
