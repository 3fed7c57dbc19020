"""The file that the sendmail command writes, in odd surroundings and killed at every system call."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.cli.test_sendmail import MESSAGE, SESSION, SendmailCommand, silent
from tests.other_users import needs_root

#: With a limit for files, Python would leave truncated caches of modules behind.
WITHOUT_CACHE = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def sendmail(tmp_path: Path, sendmail_command: str) -> SendmailCommand:
    return SendmailCommand(tmp_path, sendmail_command)


def test_an_empty_environment_is_enough(sendmail: SendmailCommand) -> None:
    done = subprocess.run(
        [sendmail.command, f"-OQueueDirectory={sendmail.folder}/queue", "bob@example.net"],
        input=MESSAGE,
        capture_output=True,
        env={},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sendmail.recipients == ["bob@example.net"]


def test_the_spool_may_be_mounted_at_another_path(sendmail: SendmailCommand) -> None:
    elsewhere = sendmail.folder / "elsewhere"
    (sendmail.folder / "queue").rename(elsewhere)
    silent(sendmail("bob@example.net", TWISTED_SENDMAIL_SPOOL=str(elsewhere)))
    silent(sendmail("-C", f"{elsewhere}/sendmail.json", "bob@example.net"))
    assert len(list((elsewhere / "drop").iterdir())) == 2


def test_settings_of_another_version_are_a_temporary_failure(sendmail: SendmailCommand) -> None:
    (sendmail.folder / "queue" / "sendmail.json").write_text('{"format": 2}')
    done = sendmail("bob@example.net")
    assert done.status == 75
    assert "is not a file of the relay: format 1 was expected; restart the relay" in done.err


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "tr_TR.UTF-8", "absent"])
def test_the_locale_changes_nothing(sendmail: SendmailCommand, locale: str) -> None:
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = "To: bob@example.net\nSubject: \xfc\n\n\xfc\n".encode()
    silent(sendmail("-t", "-F", "Z\xfcrich", stdin=text, **env))
    assert sendmail.recipients == ["bob@example.net"]
    assert "Subject: \xfc\r\n" in sendmail.content
    assert sendmail.content.endswith("\r\n\r\n\xfc\r\n")
    assert "\r\nFrom: =?utf-8?q?Z=C3=BCrich?=" in sendmail.content


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_output_may_be_closed(sendmail: SendmailCommand, closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sendmail.command} -v bob@example.net {closed}"],
        input=MESSAGE,
        capture_output=True,
        env=sendmail.env,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n")


def test_without_any_descriptor_nothing_is_sent(sendmail: SendmailCommand) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sendmail.command} bob@example.net 0<&- 1>&- 2>&-; echo $?"],
        capture_output=True,
        env=sendmail.env,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"74\n"
    sendmail.assert_nothing_was_taken()


@pytest.mark.parametrize("size", [10, 200, 4096, 60_000])
def test_on_a_full_disk_the_status_is_75_and_nothing_is_left(
    sendmail: SendmailCommand, size: int
) -> None:
    done = subprocess.run(
        [sendmail.command, "bob@example.net"],
        input=MESSAGE + b"x\n" * 40_000,
        capture_output=True,
        env=WITHOUT_CACHE | sendmail.env,
        timeout=60,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (75, 1), done.stderr
    assert b"/drop cannot be written: File too large; try again later" in done.stderr
    sendmail.assert_nothing_was_taken()


def test_bs_on_a_full_disk_replies_452_and_leaves_nothing(sendmail: SendmailCommand) -> None:
    session = SESSION.replace(b"Hi.", b"x\r\n" * 30_000)
    done = subprocess.run(
        [sendmail.command, "-bs"],
        input=session,
        capture_output=True,
        env=WITHOUT_CACHE | sendmail.env,
        timeout=60,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert b"\r\n452 4.3.1 Insufficient system storage\r\n221 " in done.stdout
    sendmail.assert_nothing_was_taken()


@needs_root
def test_a_full_file_system_is_one_line(sendmail: SendmailCommand) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=3733", "none", str(sendmail.drop)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mount(8) is not allowed here")
    try:
        done = sendmail("bob@example.net", stdin=MESSAGE + b"x\n" * 40_000)
        assert (done.status, sendmail.dropped) == (75, [])
        assert "cannot be written: No space left on device; try again later" in done.err
        silent(sendmail("bob@example.net"))
        subprocess.run(["mount", "-o", "remount,ro", str(sendmail.drop)], check=True)
        done = sendmail("bob@example.net")
        assert done.status == 75
        remedy = "a systemd service with a read-only file system needs ReadWritePaths="
        assert f"Read-only file system; {remedy}{sendmail.folder}/queue" in done.err
    finally:
        subprocess.run(["umount", str(sendmail.drop)], check=True)


def test_the_command_loads_neither_twisted_nor_sqlite_nor_the_configuration(
    sendmail: SendmailCommand,
) -> None:
    code = (
        "import sys\n"
        "from twisted_sendmail.cli.sendmail.command import main\n"
        "assert main(['sendmail', '-t']) == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('twisted_sendmail.')))\n"
    )
    python = str(Path(sendmail.command).parent / "python")
    done = subprocess.run(
        [python, "-c", code], input=MESSAGE, capture_output=True, env=sendmail.env, check=True
    )
    packages, modules = done.stdout.decode().splitlines()
    unwanted = {"twisted", "zope", "sqlite3", "tomllib", "asyncio", "email", "socket", "ssl"}
    assert unwanted & set(packages.split()) == set()
    assert {"daemon", "queue", "server", "client", "relay"} & {
        name.split(".")[1] for name in modules.split()
    } == set()


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
def test_killed_at_any_system_call_the_message_is_taken_once_or_never(
    sendmail: SendmailCommand,
) -> None:
    trace = sendmail.folder / "trace"
    traced(sendmail, "-o", str(trace))
    assert sendmail.recipients == ["bob@example.net"]
    calls = re.findall(r"^(?:\d+ +)?(\w+)\(.*$", trace.read_text("utf-8"), re.MULTILINE)
    first = max(n for n, name in enumerate(calls) if name == "getrandom")
    taken = []
    for place in range(first, len(calls)):
        name, ordinal = calls[place], calls[: place + 1].count(calls[place])
        before = len(sendmail.queue.messages)
        status = traced(sendmail, "-e", f"inject={name}:signal=KILL:when={ordinal}")
        assert status != 0
        modes = {path.stat().st_mode & 0o777 for path in sendmail.drop.iterdir()}
        sendmail.run_relay()
        new = len(sendmail.queue.messages) - before
        # Never taken before it is complete.
        assert (modes, new) in (
            (set(), 0),
            ({0o600}, 0),
            ({0o640}, 1),
        ), calls[place]
        for path in sendmail.drop.iterdir():
            path.unlink()
        taken.append(new)
    # Once it is complete, it stays so.
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (0, 1)


def traced(sendmail: SendmailCommand, *options: str) -> int:
    """Call the command under strace; its exit status."""
    done = subprocess.run(
        ["strace", "-qq", *options, sendmail.command, "-i", "bob@example.net"],
        input=MESSAGE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=sendmail.env,
        timeout=100,
        check=False,
    )
    return done.returncode
