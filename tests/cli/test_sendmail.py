"""The sendmail command as programs call it, and the queue into which the relay takes its messages."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tests.cli.intake import run_intake
from tests.cli.queues import Queue
from tests.cli.shell import Done
from tests.forked import run_forked
from tests.names import QueuedMessage, read_configuration
from tests.other_users import ALICE, as_user, needs_root
from twisted_sendmail.cli.sendmail.command import main

MESSAGE = b"To: bob@example.net\nSubject: hello\n\nHi.\n"


class SendmailCommand:
    """Calls the sendmail command, for a relay with its own queue."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        self.command = command
        self.queue = Queue(folder / "queue")
        self.drop = folder / "queue" / "drop"
        self.configure()
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "TWISTED_SENDMAIL_SPOOL": str(folder / "queue"),
            # As the tests themselves: a warning is a fault.
            "PYTHONWARNINGS": "error",
        }

    def configure(self, more: str = "") -> None:
        """Write a configuration, start the relay with it, and stop it."""
        if "[[smarthost]]" not in more:
            more += '[[smarthost]]\nurl = "smtp://mail.example.net"\n'
        (self.folder / "relay.toml").write_text(
            f'name = "relay.example.org"\nqueue = "queue"\n{more}', "utf-8"
        )
        self.run_relay()

    def run_relay(self) -> None:
        """Let the relay take what is in the drop directory into its queue."""
        run_intake(read_configuration(self.folder / "relay.toml", Clock()))

    @property
    def dropped(self) -> list[str]:
        """The files in the drop directory."""
        return sorted(path.name for path in self.drop.iterdir())

    def __call__(self, *words: str, stdin: bytes = MESSAGE, name: str = "", **env: str) -> Done:
        if not env:
            forked = run_forked(
                self.called(name), *words, folder=self.folder, env=self.env, stdin=stdin
            )
            return self._checked(forked.returncode, forked.stdout, forked.stderr)
        # The start of an interpreter depends on its environment.
        done = subprocess.run(
            [self.called(name), *words],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={**self.env, **env},
            timeout=100,
            check=False,
        )
        return self._checked(done.returncode, done.stdout.decode(), done.stderr.decode())

    def _checked(self, status: int, out: str, err: str) -> Done:
        return Done(status, out.replace("\r\n", "\n"), err).check()

    def called(self, name: str) -> str:
        """The program by that name, as a distribution would have it."""
        link = self.folder / "bin" / (name or "sendmail")
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(self.command)
        return str(link)

    @property
    def message(self) -> QueuedMessage:
        """The one message of the queue, after the relay ran."""
        self.run_relay()
        assert self.dropped == []
        (message,) = self.queue.messages.values()
        return message

    @property
    def recipients(self) -> list[str]:
        return [str(each.recipient) for each in self.message.recipients]

    @property
    def content(self) -> str:
        return self.queue.content(self.message.id).decode("utf-8", "surrogateescape")

    def assert_nothing_was_taken(self) -> None:
        assert self.dropped == []
        assert self.queue.messages == {}


@pytest.fixture
def sendmail(tmp_path: Path, sendmail_command: str) -> SendmailCommand:
    return SendmailCommand(tmp_path, sendmail_command)


def silent(done: Done) -> None:
    assert (done.status, done.out, done.err) == (0, "", "")


# -- into the drop directory, and from there into the queue ---------------------------


def test_the_message_is_queued_when_the_relay_runs(sendmail: SendmailCommand) -> None:
    silent(sendmail("-i", "-f", "alice@example.org", "bob@example.net"))
    message = sendmail.message
    assert (
        str(message.info.envelope.sender),
        sendmail.recipients,
        message.info.route,
    ) == ("alice@example.org", ["bob@example.net"], "default")
    assert f"(uid {os.getuid()}) local" in message.info.origin
    lines = sendmail.content.split("\r\n")
    stamp = (
        "Received: by relay.example.org (twisted_sendmail, invoked by "
        f"uid {os.getuid()}) id {message.id};"
    )
    assert stamp == " ".join([lines[0], *lines[1].split()])[: len(stamp)]
    assert lines[-3:] == ["", "Hi.", ""]
    assert "From: " in sendmail.content
    assert f"\r\nMessage-ID: {message.info.message_id}\r\n" in sendmail.content


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077, 0o777], ids=oct)
def test_other_users_cannot_read_the_message_whatever_the_umask(
    sendmail: SendmailCommand, mask: int
) -> None:
    before = os.umask(mask)
    try:
        silent(sendmail("bob@example.net"))
    finally:
        os.umask(before)
    (path,) = sendmail.drop.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sendmail.recipients == ["bob@example.net"]


def test_cron_s_options_work(sendmail: SendmailCommand) -> None:
    """``sendmail -FCronDaemon -i -B8BITMIME -oem root``, with ``To: root`` in the header."""
    stdin = (
        b'From: "(Cron Daemon)" <root>\nTo: root\nSubject: x\n\n8-bit: \xc3\xbc\nbare \r CR\n.\nend'
    )
    silent(sendmail("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", stdin=stdin))
    assert sendmail.recipients == ["root@relay.example.org"]
    assert sendmail.content.endswith("\r\n\r\n8-bit: ü\r\nbare \r\n CR\r\n.\r\nend\r\n")
    assert sendmail.message.info.eight_bit


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        # cron
        (
            ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t"],
            b'From: "(Cron Daemon)" <root>\nTo: root\nSubject: x\n\nx\n',
            'From: "(Cron Daemon)" <root@example.org>\r\nTo: root@example.org\r\nSubject: x\r\n',
        ),
        # mdadm
        (
            ["-t"],
            b"From: mdadm monitoring <root>\nTo: root, admin@example.net\nSubject: x\n\nx\n",
            "From: mdadm monitoring <root@example.org>\r\nTo: root@example.org, admin@example.net\r\n",
        ),
        # sudo
        (
            ["-t"],
            b"To: root\nFrom: jane\nAuto-Submitted: auto-generated\nSubject: x\n\nx\n",
            "To: root@example.org\r\nFrom: jane@example.org\r\nAuto-Submitted: auto-generated\r\n",
        ),
        (
            ["root"],
            b'To: undisclosed-recipients:;\nFrom: <>\nCc: "root" <root@x.example>\n\nx\n',
            'To: undisclosed-recipients:;\r\nFrom: <>\r\nCc: "root" <root@x.example>\r\n',
        ),
    ],
)
def test_addresses_without_a_domain_get_one_in_the_header_too(
    sendmail: SendmailCommand, words: list[str], stdin: bytes, expected: str
) -> None:
    sendmail.configure("[rewrite]\nappend-domain = 'example.org'\n")
    silent(sendmail(*words, stdin=stdin))
    assert f"\r\n{expected}" in sendmail.content
    assert sendmail.recipients[0] == "root@example.org"


def test_a_masqueraded_sender_without_a_domain_is_in_the_header(sendmail: SendmailCommand) -> None:
    sendmail.configure("[rewrite]\nmasquerade = ['example.org']\nlocal-mail-to = 'a@example.net'\n")
    silent(sendmail("-f", "root", "root", stdin=b"From: mdadm <root>\nTo: root\n\nx\n"))
    assert str(sendmail.message.info.envelope.sender) == "root@example.org"
    assert (
        "\r\nFrom: mdadm <root@example.org>\r\nTo: root@relay.example.org\r\n" in sendmail.content
    )
    assert sendmail.recipients == ["a@example.net"]


def test_the_relay_s_rewriting_applies(sendmail: SendmailCommand) -> None:
    sendmail.configure(
        "[rewrite]\nlocal-mail-to = 'admin@example.com'\nappend-domain = 'example.org'\n"
        "senders = {'app@example.org' = 'no-reply@example.com'}\n"
    )
    silent(sendmail("-f", "app", "root", "bob@example.net"))
    assert sendmail.recipients == ["admin@example.com", "bob@example.net"]
    assert str(sendmail.message.info.envelope.sender) == "no-reply@example.com"
    assert re.search(r"\r\nFrom: (.* )?<?no-reply@example\.com>?\r\n", sendmail.content)


def test_the_route_is_that_of_the_sender(sendmail: SendmailCommand) -> None:
    sendmail.configure(
        '[[route]]\nname = "other"\nsenders = ["@example.com"]\n'
        '[[route.smarthost]]\nurl = "smtps://x"\n'
    )
    silent(sendmail("-f", "eve@example.com", "bob@example.net"))
    assert sendmail.message.info.route == "other"


def test_php_s_options_work(sendmail: SendmailCommand) -> None:
    """``sendmail -t -i``; Bcc is removed."""
    stdin = b"To: bob@example.net\nCc: carol@example.net\nBcc: dave@example.net\n\nHi.\n"
    silent(sendmail("-t", "-i", "-fwww@example.org", stdin=stdin))
    assert [each.partition("@")[0] for each in sendmail.recipients] == ["bob", "carol", "dave"]
    assert "dave" not in sendmail.content


def test_a_lone_dot_ends_the_message_without_i(sendmail: SendmailCommand) -> None:
    silent(sendmail("bob@example.net", stdin=b"To: x\n\nfirst\n.\nsecond\n"))
    assert sendmail.content.endswith("\r\n\r\nfirst\r\n")


def test_options_request_reports(sendmail: SendmailCommand) -> None:
    silent(sendmail("-N", "success,delay", "-R", "hdrs", "-V", "QQ1", "a@x.org", "b@x.org"))
    envelope = sendmail.message.info.envelope
    assert (envelope.ret, envelope.envid) == ("HDRS", "QQ1")
    assert [set(r.notify) for r in envelope.recipients] == [{"SUCCESS", "DELAY"}] * 2


def test_the_null_sender_has_no_full_name(sendmail: SendmailCommand) -> None:
    silent(sendmail("-f", "<>", "-F", "Nobody", "bob@example.net"))
    assert sendmail.message.info.envelope.sender.mailbox is None
    assert "\r\nFrom: MAILER-DAEMON@relay.example.org\r\n" in sendmail.content


def test_the_full_name_comes_from_the_environment(sendmail: SendmailCommand) -> None:
    silent(sendmail("-f", "alice@example.org", "bob@example.net", NAME="Alice Liddell"))
    assert "\r\nFrom: Alice Liddell <alice@example.org>\r\n" in sendmail.content


def test_verbose_prints_the_name_of_the_file(sendmail: SendmailCommand) -> None:
    done = sendmail("-v", "bob@example.net")
    (name,) = sendmail.dropped
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert done.err == f"-- put into {sendmail.drop} as {name}\n"


def test_a_message_of_many_megabytes_is_queued_completely(sendmail: SendmailCommand) -> None:
    body = (b"x" * 75 + b"\n") * 200_000
    silent(sendmail("bob@example.net", stdin=b"To: b\n\n" + body))
    assert sendmail.content.encode().endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))


def test_memory_is_constant_for_long_messages(sendmail: SendmailCommand) -> None:
    sendmail.configure('[limits]\nmessage-size = "100 MB"\n')

    def peak(megabytes: int) -> int:
        code = (
            "import os, resource, sys\n"
            "from twisted_sendmail.cli.sendmail.command import main\n"
            "status = main(['sendmail', '-i', 'bob@example.net'])\n"
            "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        with (sendmail.folder / "large").open("wb+") as file:
            file.write(b"To: b\n\n")
            for _ in range(megabytes):
                file.write((b"x" * 75 + b"\n") * 13_797)
            file.seek(0)
            python = str(Path(sendmail.command).parent / "python")
            done = subprocess.run(
                [python, "-c", code],
                stdin=file,
                capture_output=True,
                env=sendmail.env,
                timeout=100,
                check=True,
            )
        status, kilobytes = done.stdout.split()
        assert status == b"0"
        return int(kilobytes)

    assert peak(60) - peak(2) < 20_000


@pytest.mark.parametrize(
    ("words", "stdin", "status", "held"),
    [
        ([], b"", 64, "there are no recipients"),
        (["-z", "bob@example.net"], b"", 64, "option -z is not known"),
        (["-t"], b"Subject: hi\n\nHi\n", 65, "there are no recipients in the header"),
        (["-t"], b"To: a@b, <c\n\nHi\n", 65, "cannot be used"),
        (["bob@@example.net"], MESSAGE, 65, "bob@@example.net"),
        (["bob@example.net\nRCPT"], MESSAGE, 65, "cannot be used"),
        (["-f", "a b", "bob@example.net"], MESSAGE, 65, "cannot be used"),
        (["-C", "absent", "bob@example.net"], MESSAGE, 78, "absent: the file cannot be read"),
        (["-C", "relay.toml", "bob@example.net"], MESSAGE, 78, "is not a file of the relay"),
        (["-V", "\x01", "bob@example.net"], MESSAGE, 64, "ENVID cannot be used"),
        (["-O", "QueueDirectory=/absent/q", "b@x.org"], MESSAGE, 75, "cannot be read: No such"),
    ],
)
def test_each_mistake_is_one_line_and_a_status(
    sendmail: SendmailCommand, words: list[str], stdin: bytes, status: int, held: str
) -> None:
    done = sendmail(*words, stdin=stdin)
    assert (done.status, done.out, len(done.err.splitlines())) == (status, "", 1), done.err
    assert done.err.startswith("sendmail: ")
    assert held in done.err
    sendmail.assert_nothing_was_taken()


def test_without_a_drop_directory_the_status_is_75(sendmail: SendmailCommand) -> None:
    sendmail.drop.rmdir()
    done = sendmail("bob@example.net")
    assert (done.status, len(done.err.splitlines())) == (75, 1)
    assert "the message was not taken: " in done.err
    assert "start the relay" in done.err


@needs_root
@pytest.mark.parametrize("mode", ["", "-bp"])
def test_a_spool_that_is_closed_to_the_user_is_named_as_such(
    sendmail: SendmailCommand, mode: str
) -> None:
    """The relay may run: nothing is said about that."""
    spool = sendmail.folder / "queue"
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    code = "import sys; sys.exit(main(['sendmail', *sys.argv[1:]]))"
    imports = "from twisted_sendmail.cli.sendmail.command import main"
    words = ["-O", f"QueueDirectory={spool}", *([mode] if mode else []), "bob@example.net"]
    done = as_user(ALICE, code, *words, imports=imports, stdin=b"Subject: x\n\nx\n")
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.decode().endswith(
        "/sendmail.json: the file cannot be read: Permission denied; the spool directory is closed to "
        "this user: run as root, or set spool in the configuration of the relay to a directory that "
        "is open to all users\n"
    )


def test_a_closed_stdin_is_one_line(sendmail: SendmailCommand) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sendmail.command} bob@example.net <&-"],
        capture_output=True,
        env=sendmail.env,
        timeout=60,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (74, 1), done.stderr
    sendmail.assert_nothing_was_taken()


# -- signals -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_message_leaves_nothing_behind(
    sendmail: SendmailCommand, number: signal.Signals
) -> None:
    """The program is interrupted while it reads the body."""
    process = subprocess.Popen(
        [sendmail.called(""), "bob@example.net"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=sendmail.env,
        # The tests may run with signals ignored, as by nohup, and the command respects that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdin is not None
    process.stdin.write(MESSAGE)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not sendmail.dropped:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"sendmail: interrupted; nothing was sent\n")
    sendmail.assert_nothing_was_taken()


# -- what else it is called for ------------------------------------------------------


def test_mailq(sendmail: SendmailCommand) -> None:
    assert _all(sendmail(name="mailq")) == (0, "Mail queue is empty\n", "")
    first = sendmail.queue.defer(sendmail.queue.take(arrived=1767268800.0))
    held = sendmail.queue.hold(sendmail.queue.take("", ["dave@example.net"]))
    done = sendmail("-bp", TZ="UTC")
    lines = done.out.splitlines()
    assert lines[0] == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    assert re.match(rf"{first}  +\d+ Thu Jan  1 12:00:00  alice@example\.org$", lines[1])
    assert lines[2].strip() == "(mx.example.net[192.0.2.9]:25: 450 4.2.2 Mailbox \\x1b[2Jfull)"
    assert lines[3] == f"{'':41}bob@example.net"
    assert lines[5].startswith(f"{held}! ")
    assert lines[5].endswith("MAILER-DAEMON")
    assert lines[-1] == "-- 1 Kbytes in 2 Requests."
    assert done.out == sendmail(name="mailq", TZ="UTC").out
    assert held not in sendmail("-bp", f"-qI{first}").out
    # What it prints is what `queue` reads.
    assert first in sendmail("-bp", "-qSalice").out


def _all(done: Done) -> tuple[int, str, str]:
    return done.status, done.out, done.err


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"", "the answer of the relay is incomplete"),
        (b"what?\n", "the answer of the relay cannot be parsed"),
        (b'{"error": "no \\u001b[2J"}\n', "the relay refused: no \\x1b[2J"),
    ],
)
def test_mailq_of_a_relay_that_does_not_answer(
    sendmail: SendmailCommand, answer: bytes, line: str
) -> None:
    requests: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            requests.append(connection.recv(65536))
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sendmail.drop.parent / "mailq"))
        server.listen()
        thread = threading.Thread(target=serve, args=[server])
        thread.start()
        done = sendmail("-bp", "-qRbob", "-qIABC", name="mailq")
        thread.join(30)
    assert (done.status, done.err.splitlines()[-1]) == (75, f"mailq: {line}; try again later")
    assert json.loads(requests[0]) == {
        "action": "list",
        "ids": ["ABC"],
        "recipient": "bob",
        "sender": None,
    }


def test_newaliases_does_nothing(sendmail: SendmailCommand) -> None:
    silent(sendmail(name="newaliases"))
    silent(sendmail("-bi"))


@pytest.mark.parametrize("option", ["-q", "-q30m", "-qI{}", "-qRbob", "-qS@example.org"])
def test_q_makes_messages_due(sendmail: SendmailCommand, option: str) -> None:
    name = sendmail.queue.defer(sendmail.queue.take())
    assert sendmail.message.due > time.time()
    silent(sendmail(option.format(name)))
    assert sendmail.message.due <= time.time()


def test_q_with_an_unknown_id_flushes_nothing(sendmail: SendmailCommand) -> None:
    sendmail.queue.defer(sendmail.queue.take())
    silent(sendmail("-qInonsense"))
    silent(sendmail("-qRnobody"))
    assert sendmail.message.due > time.time()


LARGE = b"To: bob@example.net\n\n" + b"x" * 1200 + b"\n"


def test_a_message_above_the_relay_s_limit_is_refused(sendmail: SendmailCommand) -> None:
    sendmail.configure('[limits]\nmessage-size = "1 kB"\n')
    done = sendmail("-i", "bob@example.net", stdin=LARGE)
    assert done.status == 65
    assert re.fullmatch("sendmail: message too large: the relay takes 1000 octets.*\n", done.err)
    sendmail.assert_nothing_was_taken()
    silent(sendmail("-i", "bob@example.net", stdin=LARGE[:500]))
    assert sendmail.message.size > 500


def test_a_header_above_the_relay_s_limit_is_refused(sendmail: SendmailCommand) -> None:
    sendmail.configure('[limits]\nheader-size = "1 kB"\n')
    done = sendmail(
        "bob@example.net", stdin=b"To: bob@example.net\nX: " + b"y" * 980 + b"\n\nHi.\n"
    )
    assert done.status == 65
    assert "header cannot be used: it is longer than 1000 octets" in done.err
    sendmail.assert_nothing_was_taken()
    silent(sendmail("bob@example.net", stdin=b"X: " + b"y" * 900 + b"\n\n" + b"z" * 2000))


def test_more_recipients_than_the_relay_takes_are_refused(sendmail: SendmailCommand) -> None:
    sendmail.configure("[limits]\nrecipients = 2\n")
    done = sendmail("a@x.org", "b@x.org", "c@x.org")
    assert done.status == 65
    assert "there are 3 recipients, and the relay takes 2" in done.err
    sendmail.assert_nothing_was_taken()
    silent(sendmail("a@x.org", "b@x.org", "a@X.org"))


SESSION = (
    b"EHLO client\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
    b"To: bob@example.net\r\n\r\nHi.\r\n..\r\n.\r\nQUIT\r\n"
)


def test_bs_completes_the_file_before_the_250(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION)
    assert (done.status, done.err) == (0, "")
    replies = done.out.splitlines()
    assert replies[0] == "220 relay.example.org ESMTP"
    (name,) = sendmail.dropped
    assert replies[-2] == f"250 2.0.0 Ok: queued as {name}"
    assert replies[-1].startswith("221 ")
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n.\r\n")


def test_bs_needs_no_ehlo(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION.partition(b"\r\n")[2])
    assert (done.status, done.err) == (0, "")
    (name,) = sendmail.dropped
    assert done.out.splitlines()[-2] == f"250 2.0.0 Ok: queued as {name}"


def test_bs_has_the_limits_of_the_relay(sendmail: SendmailCommand) -> None:
    sendmail.configure("[limits]\nmessage-size = 100\nrecipients = 1\n")
    twice = SESSION.replace(b"DATA\r\n", b"RCPT TO:<carol@example.net>\r\nDATA\r\n")
    done = sendmail("-bs", stdin=twice.replace(b"Hi.", b"x" * 100))
    assert "\n250-SIZE 100\n" in done.out
    assert "\n452 4.5.3 " in done.out
    assert done.out.splitlines()[-2].startswith("552 5.3.4 ")
    sendmail.assert_nothing_was_taken()


def test_bs_without_the_final_dot_queues_nothing(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION[:-12])
    assert done.status == 0
    sendmail.assert_nothing_was_taken()


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"EHLO x\r\nQUIT", b"EHLO QUIT\r\n"])
def test_bs_ends_when_stdin_does(sendmail: SendmailCommand, said: bytes) -> None:
    done = sendmail("-bs", stdin=said)
    assert (done.status, done.err) == (0, "")


def test_bs_accepts_lf_line_ends(sendmail: SendmailCommand) -> None:
    said = SESSION.replace(b"\r\n", b"\n")
    done = sendmail("-bs", stdin=said)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("221 ")
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n.\r\n")


def test_bs_without_a_drop_directory_replies_451(sendmail: SendmailCommand) -> None:
    sendmail.drop.rmdir()
    done = sendmail("-bs", stdin=SESSION)
    assert (done.status, done.err) == (0, "")
    assert "\n451 4.3.0 " in done.out


def test_a_message_may_be_typed_on_a_terminal(sendmail: SendmailCommand) -> None:
    """The message ends at a dot."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sendmail.called(""), "bob@example.net"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=sendmail.env,
        )
        os.write(ours, b"Subject: typed\n\nHi.\n.\n")
        assert process.wait(60) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n")


def test_missing_settings_have_a_remedy_with_the_command_s_own_options(
    sendmail: SendmailCommand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWISTED_SENDMAIL_SPOOL", str(sendmail.folder / "absent"))
    assert main(["sendmail", "bob@example.net"]) == 75
    err = capsys.readouterr().err
    assert err.startswith(f"sendmail: {sendmail.folder}/absent/sendmail.json: the file cannot be ")
    remedy = "name its spool directory by -O QueueDirectory=DIR or TWISTED_SENDMAIL_SPOOL"
    assert remedy in err


def test_help_names_the_options(sendmail: SendmailCommand) -> None:
    done = sendmail("--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("usage: sendmail [OPTION]... [RECIPIENT]...\n")


def test_the_good_addresses_of_a_header_get_it_and_a_bad_one_is_named(
    sendmail: SendmailCommand,
) -> None:
    done = sendmail(
        "-t", stdin=b"To: ok@example.net, bad..dots@example.net\nCc: also@example.net.\n\nHi.\n"
    )
    assert (done.status, done.out) == (69, "")
    assert done.err == (
        "sendmail: bad..dots@example.net refused: 553 5.1.3 Bad recipient address syntax: it does "
        "not fit RFC 5321 section 4.1.2; if that is the name of the mailbox, put it in quotes: "
        '"bad..dots"@example.net\n'
    )
    assert sendmail.recipients == ["ok@example.net", "also@example.net"]


def test_a_missing_comma_between_addresses_is_named(sendmail: SendmailCommand) -> None:
    done = sendmail("-t", stdin=b"To: a@example.net b@example.net\nCc: ok@example.net\n\nHi.\n")
    assert sendmail.recipients == ["ok@example.net"]
    assert done.err.endswith(
        "; give several addresses as a list, in a header with a comma between them\n"
    )


@pytest.mark.parametrize(
    ("words", "header"),
    [
        (["-t"], b"To: bad..dots@example.net\n"),
        (["-t"], b'To: ok@example.net, "bad@example.net\n'),
        (["-t"], b"To: ok@example.net, bad\0@[example.net\n"),
        (["ok@example.net", "bad..dots@example.net"], b"To: ok@example.net\n"),
        (["-t", "bad..dots@example.net"], b"To: ok@example.net\n"),
    ],
)
def test_a_bad_address_refuses_the_call_where_it_was_given_or_is_the_only_one(
    sendmail: SendmailCommand, words: list[str], header: bytes
) -> None:
    done = sendmail(*words, stdin=header + b"\nHi.\n")
    assert done.status == 65
    assert len(done.err.splitlines()) == 1
    sendmail.assert_nothing_was_taken()


@pytest.mark.parametrize("end", [b"\r\r\n", b"\r\n", b"\n"])
@pytest.mark.parametrize("words", [["-i"], []])
def test_cr_cr_lf_is_one_line_end(sendmail: SendmailCommand, end: bytes, words: list[str]) -> None:
    lines = [b"To: bob@example.net", b"Subject: x", b"", b"one" * 30_000, b"", b"two", b"."]
    silent(sendmail(*words, "bob@example.net", stdin=end.join(lines) + end))
    expected = "\r\n\r\n" + "one" * 30_000 + "\r\n\r\ntwo\r\n"
    assert sendmail.content.endswith(expected + ".\r\n" if words else expected)
    assert "\r\nTo: bob@example.net\r\nSubject: x\r\n" in sendmail.content
    assert sendmail.message.info.long_lines
