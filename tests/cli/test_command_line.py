"""The command line: every mistake is one line and an exit status."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.cli.scripted import GOOD, SILENCE, ScriptedServer
from tests.cli.shell import COMMAND, MESSAGE, Shell, read_terminal
from twisted_sendmail import InvalidInput
from twisted_sendmail.cli.main import SUBCOMMANDS, main, parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
SECRET = "hunter2"

GOOGLE = "--oauth-provider google --oauth-client-id c"

# The words, the status, and what the one line has to hold.
WRONG = [
    ("", 64, "COMMAND"),
    ("bogus", 64, "'bogus'"),
    ("send --bogus x", 64, "option --bogus is not known; see twisted-sendmail send --help"),
    ("send -z", 64, "option -z is not known"),
    ("send one two three", 64, "unexpected argument: two; see twisted-sendmail send --help"),
    ("send message.eml", 64, "add --server URL, or set the variable TWISTED_SENDMAIL_SERVER"),
    ("check", 64, "give its URL, or set the variable TWISTED_SENDMAIL_SERVER"),
    ("login", 64, "there are no settings of OAuth; add --oauth-provider"),
    ("login --port 0", 64, "it is a number from 1 to 65535"),
    (
        "check smtps://x --mechanism external",
        64,
        "EXTERNAL needs a certificate; give --client-cert",
    ),
    (
        "check smtps://a@x --mechanism EXTERNAL --password-file password",
        64,
        "EXTERNAL uses no password and no token; leave them out",
    ),
    (
        "check smtp://x --mechanism EXTERNAL --client-certificate password",
        78,
        "a user cannot be given with --tls none",
    ),
    ("login smtps://x?oauth-provider=google", 64, "there is no --oauth-client-id; give it"),
    ("login smtps://x?oauth-client-id=c", 78, "there is no token endpoint; name a provider"),
    ("login ftp://x?oauth-client-id=c", 78, "'ftp://x' cannot be used"),
    ("login smtps://x?password=hunter2", 78, "password is no setting of a URL; the settings of"),
    ("login smtps://x?oauth-scope=a&oauth-scope=b", 78, "oauth-scope in the server's URL cannot"),
    (
        f"check smtps://a@x?oauth-provider=google {GOOGLE}",
        78,
        "there is no refresh token; name its",
    ),
    (f"check smtps://a@x?oauth-provider=yahoo {GOOGLE}", 64, "--oauth-provider contradicts the"),
    (f"check smtps://x {GOOGLE}", 64, "there are settings of OAuth but no user; add --user"),
    (
        f"check smtps://a@x {GOOGLE} --password-file password",
        64,
        "there are a password and settings",
    ),
    (
        f"check smtps://a@x {GOOGLE} --oauth-refresh-token-file absent",
        78,
        "there is no file absent with a refresh token; log in, as with twisted-sendmail login",
    ),
    (
        f"check smtps://a@x {GOOGLE} --oauth-refresh-token-file password --oauth-store-command x",
        78,
        "there are a file and a command for the refresh token; give one of them",
    ),
    (
        f"check smtps://a@x {GOOGLE} --oauth-client-secret-file absent",
        66,
        "client secret file absent cannot be read",
    ),
    (
        f"check smtps://a@x {GOOGLE} --oauth-auth-method basic --oauth-refresh-token-file password",
        78,
        "there is no authentication method basic; write client_secret_post or client_secret_basic",
    ),
    (f"check smtps://a@x {GOOGLE} --oauth-ca-file absent", 78, "'absent' cannot be used for TLS"),
    ("send --server ftp://x message.eml", 78, "'ftp://x'"),
    ("send --server smtps:// message.eml", 78, "it has no host"),
    ("send --server x:y message.eml", 78, "the port of 'x…'"),
    ("send --server x:0 message.eml", 78, "port 0 of x"),
    ("send --server x:99999 message.eml", 78, "port 99999 of x"),
    ("send --server [::1 message.eml", 78, "IPv6 address in brackets"),
    ("send --server smtps://x --tls none message.eml", 64, "--tls none contradicts the URL"),
    ("send --server x --tls maybe message.eml", 64, "'maybe'"),
    ("send --server x --timeout 0 message.eml", 64, "'0' is no number of seconds above zero"),
    ("send --server x --timeout nan message.eml", 64, "'nan' is no number"),
    ("send --server smtps://a@x --user b message.eml", 64, "--user b contradicts"),
    ("send --server smtp://x --user a message.eml", 78, "a password goes over TLS only"),
    ("send --server x --user a message.eml", 64, "there is no password for a"),
    ("send --server x --password-file password message.eml", 64, "a password but no user"),
    ("send --server x --user a --password-file absent message.eml", 66, "absent cannot be read"),
    ("send --server x --ca-file absent message.eml", 78, "'absent' cannot be used for TLS"),
    ("send --server x --ca-file message.eml message.eml", 78, "no usable PEM data"),
    ("send --server x --fingerprint 00 message.eml", 78, "64 hexadecimal digits"),
    ("send --server x --helo a_b! message.eml", 65, "'a_b!'"),
    ("send --server x absent.eml", 66, "absent.eml cannot be read: No such file"),
    ("send --server x .", 66, "Is a directory"),
    ("send --server x empty", 65, "empty is empty"),
    ("send --server x", 65, "the message is empty"),
    ("send --server x headless", 65, "give"),
    ("send --server x --to nobody message.eml", 65, "'nobody' cannot be used: it has no @"),
    ("send --server x --from a@ message.eml", 65, "'a@' cannot be used"),
    ("send --server x --notify often --from a@b --to c@d message.eml", 64, "NOTIFY=OFTEN"),
    ("send --server x --envid 1 message.eml", 64, "give --from and --to"),
    ("send --server x --require-tls message.eml", 64, "give --from and --to"),
    ("send --server x --subject hi", 64, "needs --from, or an account with the key from"),
    ("send --server x --subject hi --from a@b", 64, "needs --to"),
    ("send --server x --text hi --from a@b --to c@d message.eml", 64, "--text-file message.eml"),
    ("send --server x --text a --text-file b --from a@b --to c@d", 64, "given twice"),
    (
        "send --server x --text-file - --html - --from a@b --to c@d",
        64,
        "both the text and the HTML",
    ),
    ("send --server x --text b --from a@b --to c@d --attach absent", 66, "absent cannot be read"),
    ("send --server x --text b --from a@b --to c@d --attach /", 65, "cannot be used"),
    ("send --server x --text b --from a@b --to c@d --attach pdf:empty", 66, "pdf is no media type"),
    ("send --server x --text b --from a@b --to c@d --inline empty", 64, "does not show cid:empty"),
    (
        "send --server x --text b --from a@b --to c@d --inline empty --inline ./empty",
        64,
        "two files of --inline have the name empty; rename one",
    ),
    ("send --server x --from a@b --to c@d --text-file latin1", 65, "text is not UTF-8 in line 2"),
    ("send --server x --from a@b --to c@d --html latin1", 65, "the HTML is not UTF-8 in line 2"),
    ("send --server x --text b --from a@b --to c@@d", 65, "To"),
    ("send --server x --text b --from a@b --to c@d --header X", 64, "has no colon; write it as"),
    ("send --server x --text b --from a@b --to c@d --header To:e@f", 64, "To is given twice"),
    *(
        (f"send --server x --text b --from a@b --to c@d --date {date}", 64, "write it as 2026-")
        for date in ("now", "2026-07-01+02:00", "2026-07-01-05:00", "2026-07-01Z", "2026-07-01T")
    ),
    ("send --server x --text b --from a@b --to c@d --date 2026-07-01", 64, "has no time zone"),
    ("send --server x --text b --from a@b --to c@d --verbatim", 64, "leave it out"),
    ("send --server x --account work message.eml", 64, "--account contradicts the server"),
    ("send --account work message.eml", 78, "there is no file of accounts; write it into"),
    ("send --server 127.0.0.1:1 message.eml", 75, "refused"),
    ("check 127.0.0.1:1", 75, "refused"),
]


@pytest.mark.parametrize(("words", "status", "held"), WRONG, ids=[words for words, _, _ in WRONG])
def test_each_mistake_is_one_line_and_a_status(
    shell: Shell, words: str, status: int, held: str
) -> None:
    shell.write("empty", b"")
    shell.write("headless", b"no header at all\n")
    shell.write("latin1", b"Hallo\nGr\xfc\xdfe\n")
    done = shell.run_now(*words.split())
    assert (done.status, len(done.err.splitlines())) == (status, 1), done.err
    assert done.err.startswith("twisted-sendmail: ")
    assert held in done.err
    assert words.startswith("check") or done.out == ""


@pytest.mark.parametrize(
    "words",
    [
        f"send --password {SECRET}",
        f"send --password={SECRET}",
        f"send -p {SECRET}",
        f"send -p{SECRET}",
        f"send --token {SECRET}",
        f"send --pasword {SECRET}",
        f"send --pasword={SECRET}",
        f"send -w{SECRET}",
        f"send --server smtps://alice:{SECRET}@mail.example.net message.eml",
        f"send --server smtps:alice:{SECRET}@mail.example.net message.eml",
        f"send --server alice:{SECRET}@mail.example.net message.eml",
        f"send --server smtps://alice:{SECRET}@[::1 message.eml",
        f"check smtp://alice:{SECRET}@mail.example.net",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    shell: Shell, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status = main(words.split())
    out, err = capfd.readouterr()
    assert (status, out, len(err.splitlines())) == (64, "", 1)
    assert SECRET not in err
    assert "pasword" in words or "-w" in words or "use --password-file" in err


def test_a_password_in_the_server_variable_is_refused(shell: Shell) -> None:
    done = shell.run_now("check", TWISTED_SENDMAIL_SERVER=f"smtps://alice:{SECRET}@x")
    assert (done.status, SECRET in done.err) == (64, False)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (b"", "is empty"),
        (b"one\ntwo\n", "has a line break in it"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"x" * 70000, "is longer than 65536 octets"),
    ],
)
def test_a_password_file_without_a_usable_password_is_refused(
    shell: Shell, content: bytes, held: str
) -> None:
    shell.write("password", content, 0o600)
    words = "send --server x --user alice --password-file password message.eml"
    done = shell.run_now(*words.split())
    assert (len(done.err.splitlines()), held in done.err) == (1, True), done.err
    assert done.status in {64, 65}


def test_an_unexpected_error_is_one_line_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_command: str | None) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("twisted_sendmail.cli.main.parser", fail)
    assert main([]) == 70
    err = capsys.readouterr().err
    assert err.startswith("twisted-sendmail: a fault of this program: RuntimeError")
    assert (len(err.splitlines()), SECRET in err) == (1, False)


def test_json_reports_mistakes_too(shell: Shell) -> None:
    send = shell.run_now("send", "--json", "--server", "ftp://x", shell.message)
    check = shell.run_now("check", "--json", "ftp://x")
    for done in (send, check):
        assert (
            done.status,
            done.json["exit_status"],
            done.json["error"]["class"],
        ) == (78, 78, "InvalidServer")


def test_help_and_version_are_printed(shell: Shell) -> None:
    version = shell.run_now("--version")
    assert (version.status, version.err) == (0, "")
    assert version.out.startswith("twisted-sendmail ")
    for words in (["--help"], *([name, "--help"] for name in SUBCOMMANDS)):
        done = shell.run_now(*words)
        assert (done.status, done.err) == (0, "")


def test_a_terminal_is_not_read_as_a_message(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [COMMAND, "send", "--server", "x"],
            stdin=theirs,
            capture_output=True,
            env=shell.env,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 64
    assert done.stderr == b"twisted-sendmail: the message is missing; name a file, or pipe it in\n"


@ensureDeferred
async def test_an_interrupt_ends_the_command_and_reports_the_state_of_the_message(
    scripted: ScriptedServer, shell: Shell
) -> None:
    """The server is silent before it has the message, or after the final dot."""
    for silent, held in (
        ("greeting", "cancelled"),
        ("DATA", "; nothing was delivered"),
        (".", "may have been delivered"),
    ):
        scripted.replies["."] = b"250 ok"
        scripted.replies[silent] = SILENCE
        scripted.received.clear()
        process = shell.start("send", "--server", scripted.url, shell.message)

        def interrupt(process: subprocess.Popen[bytes] = process) -> tuple[bytes, bytes]:
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)

        await scripted.wait_for(silent)
        out, err = await deferToThread(interrupt)
        scripted.replies = dict(GOOD)
        assert (process.returncode, out, len(err.splitlines())) == (130, b"", 1), err
        assert held in err.decode()


@ensureDeferred
async def test_a_large_upload_shows_its_progress_on_a_terminal(
    scripted: ScriptedServer, shell: Shell
) -> None:
    large = shell.write("large.eml", MESSAGE + (b"x" * 76 + b"\r\n") * 40_000)
    ours, theirs = pty.openpty()
    process = shell.start("send", "--server", scripted.url, large, stderr=theirs)
    os.close(theirs)
    seen = await deferToThread(read_terminal, ours)
    out, _ = await deferToThread(process.communicate)
    os.close(ours)
    assert process.returncode == 0
    assert b"3.1 MB" in seen
    assert b"accepted by [127.0.0.1]" in out


def test_the_reference_page_lists_exactly_the_options() -> None:
    """The page lists no other options."""
    page = PAGE.read_text("utf-8")
    for name in SUBCOMMANDS:
        section = page.partition(f"## twisted-sendmail {name}\n")[2].partition("\n## ")[0]
        written = set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
        (below,) = (a for a in parser(name)._actions if a.dest == "command")
        assert below.choices is not None
        assert options(dict(below.choices)[name]) - {"--help"} == written, name


def options(below: ArgumentParser) -> set[str]:
    """The options of a subcommand, and of what is below it."""
    found = {
        a.option_strings[-1]
        for a in below._actions
        if a.option_strings and a.help != "==SUPPRESS=="
    }
    for action in below._actions:
        if isinstance(action, _SubParsersAction):
            found |= {option for each in action.choices.values() for option in options(each)}
    return found


def test_an_error_outside_of_a_subcommand_has_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_command: str | None) -> Any:
        raise InvalidInput("not like this")

    monkeypatch.setattr("twisted_sendmail.cli.main.parser", fail)
    assert (main([]), capsys.readouterr().err) == (64, "twisted-sendmail: not like this\n")


@ensureDeferred
async def test_a_pipe_that_stays_open_does_not_delay_the_end(
    scripted: ScriptedServer, shell: Shell
) -> None:
    """A thread waits for the pipe, and the command does not wait for the thread."""
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)
    ours = os.open(pipe, os.O_RDWR)
    words = ["--from=a@example.org", "--to=b@example.net", "--timeout=0.5", str(pipe)]
    done = await shell.run("send", "--server", scripted.url, *words)
    os.close(ours)
    assert (done.status, done.out) == (75, "")
    assert done.err.endswith("took more than 0.5 s; nothing was delivered\n")


def test_a_closed_stdin_is_an_error(shell: Shell) -> None:
    done = shell.line(f"exec {COMMAND} send --server x <&-")
    assert (
        done.returncode,
        done.stderr,
    ) == (66, b"twisted-sendmail: the message is missing: stdin is closed\n")


def test_a_command_imports_only_its_own_parts() -> None:
    """A command in a loop has to start fast; Twisted's part is most of the rest."""
    code = (
        "import sys; from twisted_sendmail.cli.main import main\n"
        "assert main(['send', '--server', 'smtp://[::1]:1', '/nowhere']) == 66\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    unneeded = {"twisted_sendmail.queue", "twisted_sendmail.server", "twisted_sendmail.testing"}
    unneeded |= {"importlib.metadata", "rich.console", "rich.progress", "prometheus_client"}
    assert loaded & unneeded == set()
