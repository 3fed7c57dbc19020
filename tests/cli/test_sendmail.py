"""The sendmail command as programs call it: with a relay over its socket, without one into its queue."""

from __future__ import annotations

import os
import pty
import re
import signal
import stat
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.queues import Queue
from tests.cli.shell import Done
from tests.cli.unix_server import END, SILENCE, UnixServer
from tests.names import QueuedMessage
from twisted_sendmail.cli.sendmail import main

MESSAGE = b"To: bob@example.net\nSubject: hello\n\nHi.\n"


class SendmailCommand:
    """Calls the sendmail command, for a relay with its own queue."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        self.command = command
        self.queue = Queue(folder / "queue")
        self.socket = folder / "queue" / "submission"
        self.configure()
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "TWISTED_SENDMAIL_CONFIG": str(folder / "relay.toml"),
            # As the tests themselves: a warning is a fault.
            "PYTHONWARNINGS": "error",
        }

    def configure(self, more: str = "") -> None:
        (self.folder / "relay.toml").write_text(
            f'name = "relay.example.org"\nqueue = "queue"\n{more}', "utf-8"
        )

    def __call__(self, *words: str, stdin: bytes = MESSAGE, name: str = "", **env: str) -> Done:
        done = subprocess.run(
            [self.called(name), *words],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env={**self.env, **env},
            timeout=100,
            check=False,
        )
        out = done.stdout.decode().replace("\r\n", "\n")
        return Done(done.returncode, out, done.stderr.decode()).check()

    def called(self, name: str) -> str:
        """The program by that name, as a distribution would have it."""
        link = self.folder / "bin" / (name or "sendmail")
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(self.command)
        return str(link)

    @property
    def message(self) -> QueuedMessage:
        """The one message of the queue."""
        (message,) = self.queue.messages.values()
        return message

    @property
    def recipients(self) -> list[str]:
        return [str(each.recipient) for each in self.message.recipients]

    @property
    def content(self) -> str:
        return self.queue.content(self.message.id).decode("utf-8", "surrogateescape")


@pytest.fixture
def sendmail(tmp_path: Path, sendmail_command: str) -> SendmailCommand:
    return SendmailCommand(tmp_path, sendmail_command)


def silent(done: Done) -> None:
    assert (done.status, done.out, done.err) == (0, "", "")


# -- without a relay: into the queue------------------------------------------------


def test_without_a_relay_the_message_is_queued(sendmail: SendmailCommand) -> None:
    silent(sendmail("-i", "-f", "alice@example.org", "bob@example.net"))
    message = sendmail.message
    assert (
        str(message.info.envelope.sender),
        sendmail.recipients,
        message.info.route,
    ) == ("alice@example.org", ["bob@example.net"], "default")
    assert f"(uid {os.getuid()}) local" in message.info.origin
    lines = sendmail.content.split("\r\n")
    stamp = f"Received: by relay.example.org (twisted_sendmail, from userid {os.getuid()}) id {message.id};"
    assert stamp == " ".join([lines[0], *lines[1].split()])[: len(stamp)]
    assert lines[-3:] == ["", "Hi.", ""]
    assert "From: " in sendmail.content
    assert f"\r\nMessage-ID: {message.info.message_id}\r\n" in sendmail.content


def test_other_users_cannot_read_the_queue_whatever_the_umask(sendmail: SendmailCommand) -> None:
    before = os.umask(0)
    try:
        silent(sendmail("bob@example.net"))
    finally:
        os.umask(before)
    for path in (sendmail.folder / "queue").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_cron_s_options_work(sendmail: SendmailCommand) -> None:
    """``sendmail -FCronDaemon -i -B8BITMIME -oem root``, with ``To: root`` in the header."""
    stdin = (
        b'From: "(Cron Daemon)" <root>\nTo: root\nSubject: x\n\n8-bit: \xc3\xbc\nbare \r CR\n.\nend'
    )
    silent(sendmail("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", stdin=stdin))
    assert sendmail.recipients == ["root@relay.example.org"]
    assert sendmail.content.endswith("\r\n\r\n8-bit: ü\r\nbare \r\n CR\r\n.\r\nend\r\n")
    assert sendmail.message.info.eight_bit


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
        '[[smarthost]]\nurl = "smtps://absent:x@y"\npassword-file = "/absent"\n'
        '[[route]]\nname = "other"\nsenders = ["@example.com"]\n'
        '[[route.smarthost]]\nurl = "smtps://x"\nca-file = "/absent"\n'
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


def test_verbose_prints_the_queue_id(sendmail: SendmailCommand) -> None:
    done = sendmail("-v", "bob@example.net")
    assert done.err.splitlines()[-1] == f"-- queued as {sendmail.message.id}"


def test_a_message_of_many_megabytes_is_queued_completely(sendmail: SendmailCommand) -> None:
    body = (b"x" * 75 + b"\n") * 200_000
    silent(sendmail("bob@example.net", stdin=b"To: b\n\n" + body))
    assert sendmail.content.encode().endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))


def test_memory_is_constant_for_long_messages(sendmail: SendmailCommand) -> None:
    sendmail.configure('[limits]\nmessage-size = "100 MB"\n')

    def peak(megabytes: int) -> int:
        code = (
            "import os, resource, sys\n"
            "from twisted_sendmail.cli.sendmail import main\n"
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
        (
            ["-C", "absent.toml", "bob@example.net"],
            MESSAGE,
            78,
            "absent.toml: the file cannot be read",
        ),
        (["-V", "\x01", "bob@example.net"], MESSAGE, 64, "ENVID cannot be used"),
        (["-O", "QueueDirectory=/absent/q", "-C", "", "b@x.org"], MESSAGE, 75, "does not exist"),
    ],
)
def test_each_mistake_is_one_line_and_a_status(
    sendmail: SendmailCommand, words: list[str], stdin: bytes, status: int, held: str
) -> None:
    done = sendmail(*words, stdin=stdin)
    assert (done.status, done.out, len(done.err.splitlines())) == (status, "", 1), done.err
    assert done.err.startswith("sendmail: ")
    assert held in done.err
    assert sendmail.queue.messages == {}


def test_without_relay_and_queue_the_status_is_75(sendmail: SendmailCommand) -> None:
    for file in (sendmail.folder / "queue").iterdir():
        file.unlink()
    (sendmail.folder / "queue").rmdir()
    done = sendmail("bob@example.net")
    assert (done.status, len(done.err.splitlines())) == (75, 1)
    assert "the message was not taken, try again later: no relay is running; the queue" in done.err


def test_a_closed_stdin_is_one_line(sendmail: SendmailCommand) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sendmail.command} bob@example.net <&-"],
        capture_output=True,
        env=sendmail.env,
        timeout=60,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (74, 1), done.stderr
    assert sendmail.queue.messages == {}


# -- a relay: over its socket -------------------------------------------------------


def test_a_running_relay_receives_the_message(sendmail: SendmailCommand) -> None:
    with UnixServer(sendmail.socket) as relay:
        silent(sendmail("-N", "never", "-f", "alice@example.org", "bob@example.net", "root"))
    assert [relay.heard[0], relay.heard[1].partition("=")[0], *relay.heard[2:5]] == [
        "EHLO localhost",
        "MAIL FROM:<alice@example.org> SIZE",
        "RCPT TO:<bob@example.net> NOTIFY=NEVER",
        "RCPT TO:<root@relay.example.org> NOTIFY=NEVER",
        "DATA",
    ]
    (content,) = relay.contents
    assert content.startswith("To: bob@example.net\r\nSubject: hello\r\n")
    assert "\r\nMessage-ID: <" in content
    assert sendmail.queue.messages == {}


def test_the_configuration_sets_the_socket(sendmail: SendmailCommand) -> None:
    sendmail.configure('submission-socket = "other"\n')
    with UnixServer(sendmail.folder / "other") as relay:
        silent(sendmail("bob@example.net"))
    assert len(relay.contents) == 1


def test_verbose_shows_the_dialogue(sendmail: SendmailCommand) -> None:
    with UnixServer(sendmail.socket):
        done = sendmail("-v", "bob@example.net")
    assert (done.status, done.out) == (0, "")
    assert "S: 220 relay.example.org ESMTP" in done.err
    assert "C: RCPT TO:<bob@example.net>" in done.err
    assert "Hi." not in done.err


def test_a_large_message_is_submitted_completely(sendmail: SendmailCommand) -> None:
    body = (b"x" * 75 + b"\n") * 10_000
    with UnixServer(sendmail.socket) as relay:
        silent(sendmail("bob@example.net", stdin=b"To: b\n\n" + body))
    (content,) = relay.contents
    assert content.encode().endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n")[:-2])


@pytest.mark.parametrize(
    "replies",
    [
        {"greeting": "421 4.3.2 closing"},
        {"greeting": "450 4.3.2 not now"},
        {"greeting": END},
        {"greeting": "+OK POP3 ready"},
        {"EHLO": "421 4.3.2 closing"},
        {"MAIL": "451 4.3.0 trouble"},
        {"RCPT": "452 4.3.1 no room"},
        {"RCPT": END},
        {"DATA": "451 4.3.0 trouble"},
        {"DATA": END},
        {"_": "452 4.3.1 no room"},
    ],
    ids=str,
)
def test_a_message_that_the_relay_does_not_take_is_queued(
    sendmail: SendmailCommand, replies: dict[str, str]
) -> None:
    with UnixServer(sendmail.socket, **replies) as relay:
        silent(sendmail("bob@example.net"))
    assert sendmail.recipients == ["bob@example.net"]
    assert relay.contents == []


def test_a_stale_socket_does_not_prevent_queueing(sendmail: SendmailCommand) -> None:
    with UnixServer(sendmail.socket):
        pass
    assert sendmail.socket.exists()
    silent(sendmail("bob@example.net"))
    assert sendmail.recipients == ["bob@example.net"]


def test_a_message_whose_reply_was_lost_is_queued_with_the_same_message_id(
    sendmail: SendmailCommand,
) -> None:
    with UnixServer(sendmail.socket, _=END) as relay:
        silent(sendmail("bob@example.net"))
    said = next(line for line in relay.heard if line.startswith("Message-ID: "))
    assert f"\r\n{said}\r\n" in sendmail.content
    assert sendmail.recipients == ["bob@example.net"]


def test_only_recipients_that_the_relay_did_not_accept_are_queued(
    sendmail: SendmailCommand,
) -> None:
    replies = {"RCPT TO:<later@x.org>": "450 4.2.0 later"}
    with UnixServer(sendmail.socket, **replies) as relay:
        silent(sendmail("bob@example.net", "later@x.org"))
    assert (len(relay.contents), sendmail.recipients) == (1, ["later@x.org"])


def test_a_permanently_refused_recipient_is_named(sendmail: SendmailCommand) -> None:
    replies = {
        "RCPT TO:<never@x.org>": "550 5.1.1 no \x1b[2Jsuch user",
        "RCPT TO:<later@x.org>": "450 4.2.0 later",
    }
    with UnixServer(sendmail.socket, **replies) as relay:
        done = sendmail("bob@example.net", "never@x.org", "later@x.org")
    assert (done.status, len(done.err.splitlines())) == (67, 1), done.err
    assert "never@x.org refused: 550 5.1.1 no \\x1b[2Jsuch user" in done.err
    assert (len(relay.contents), sendmail.recipients) == (1, ["later@x.org"])


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ({"RCPT": "550 5.1.1 no"}, 67),
        ({"MAIL": "553 5.7.1 no"}, 69),
        ({"_": "554 5.4.6 in circles"}, 69),
        ({"greeting": "554 5.7.1 not for you"}, 69),
        ({"EHLO": "250-relay\r\n250 SIZE 10"}, 65),
    ],
    ids=str,
)
def test_a_permanently_refused_message_is_not_queued(
    sendmail: SendmailCommand, replies: dict[str, str], status: int
) -> None:
    with UnixServer(sendmail.socket, **replies):
        done = sendmail("bob@example.net")
    assert (done.status, done.out, len(done.err.splitlines())) == (status, "", 1), done.err
    assert sendmail.queue.messages == {}


def test_an_interrupted_message_is_not_queued(sendmail: SendmailCommand) -> None:
    """The relay is silent before it has the message."""
    with UnixServer(sendmail.socket, MAIL=SILENCE) as relay:
        process = subprocess.Popen(
            [sendmail.called(""), "bob@example.net"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=sendmail.env,
        )
        assert process.stdin is not None
        process.stdin.write(MESSAGE)
        process.stdin.close()
        deadline = time.monotonic() + 60
        while not any(line.startswith("MAIL") for line in relay.heard):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 130
    assert err.startswith(b"sendmail: interrupted: ")
    assert sendmail.queue.messages == {}


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


@pytest.mark.parametrize("relay", [False, True])
def test_with_a_locked_queue_the_command_ends_in_time(
    sendmail: SendmailCommand, *, relay: bool
) -> None:
    """In half a minute; here each second of it is a tenth of one.

    The caller may try again (75), but not where the silent relay may have the message (76).
    """
    code = (
        "from twisted_sendmail.cli import sendmail\n"
        "from twisted_sendmail.cli.sendmail import delivery\n"
        "assert 20 == delivery.RELAY_SILENCE\n"
        "assert (30, 10) == (delivery.TOTAL_TIMEOUT, delivery.MIN_QUEUE_TIMEOUT)\n"
        "delivery.RELAY_SILENCE = 2\n"
        "delivery.TOTAL_TIMEOUT, delivery.MIN_QUEUE_TIMEOUT = 3, 1\n"
        "print(sendmail.main(['sendmail', '-i', 'bob@example.net']))\n"
    )
    python = str(Path(sendmail.command).parent / "python")
    with ExitStack() as stack:
        if relay:
            _ = stack.enter_context(UnixServer(sendmail.socket, _=SILENCE))
        _ = stack.enter_context(sendmail.queue.locked())
        done = subprocess.run(
            [python, "-c", code],
            input=MESSAGE,
            capture_output=True,
            env=sendmail.env,
            timeout=25,
            check=True,
        )
    assert (b"76" if relay else b"75") == done.stdout.strip()
    advice = b"sending it again may duplicate it" if relay else b"try again later"
    assert b"the message was not taken, " in done.stderr
    assert advice in done.stderr
    assert b"is locked" in done.stderr
    assert sendmail.queue.messages == {}


LARGE = b"To: bob@example.net\n\n" + b"x" * 1200 + b"\n"


def test_a_message_above_the_relay_s_limit_is_refused_without_the_relay(
    sendmail: SendmailCommand,
) -> None:
    """The status is 65, and nothing is queued, whether the relay runs or not."""
    sendmail.configure('[limits]\nmessage-size = "1 kB"\n')
    down = sendmail("-i", "bob@example.net", stdin=LARGE)
    with UnixServer(sendmail.socket, EHLO="250-relay.example.org\r\n250 SIZE 1000"):
        up = sendmail("-i", "bob@example.net", stdin=LARGE)
    assert (down.status, up.status) == (65, 65)
    assert re.fullmatch(
        r"sendmail: message too large: it has \d+ octets, the relay takes 1000.*\n", down.err
    )
    assert "message too large" in up.err
    assert sendmail.queue.messages == {}
    silent(sendmail("-i", "bob@example.net", stdin=LARGE[:500]))
    assert len(sendmail.queue.messages) == 1


def test_without_a_configuration_there_is_no_size_limit(sendmail: SendmailCommand) -> None:
    env = {"TWISTED_SENDMAIL_CONFIG": ""}
    queue = str(sendmail.folder / "queue")
    where = f"-OQueueDirectory={queue}"
    silent(sendmail(where, "-i", "bob@example.net", stdin=LARGE, **env))


SESSION = (
    b"EHLO client\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
    b"To: bob@example.net\r\n\r\nHi.\r\n..\r\n.\r\nQUIT\r\n"
)


def test_bs_without_a_relay_commits_before_the_250(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION)
    assert (done.status, done.err) == (0, "")
    replies = done.out.splitlines()
    assert replies[0] == "220 relay.example.org ESMTP"
    assert replies[-2] == f"250 2.0.0 Ok: queued as {sendmail.message.id}"
    assert replies[-1].startswith("221 ")
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n.\r\n")


def test_bs_without_a_relay_needs_no_ehlo(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION.partition(b"\r\n")[2])
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-2] == f"250 2.0.0 Ok: queued as {sendmail.message.id}"


def test_bs_without_a_relay_has_the_limits_of_the_relay(sendmail: SendmailCommand) -> None:
    sendmail.configure("[limits]\nmessage-size = 100\nrecipients = 1\n")
    twice = SESSION.replace(b"DATA\r\n", b"RCPT TO:<carol@example.net>\r\nDATA\r\n")
    done = sendmail("-bs", stdin=twice.replace(b"Hi.", b"x" * 100))
    assert "\n250-SIZE 100\n" in done.out
    assert "\n452 4.5.3 " in done.out
    assert done.out.splitlines()[-2].startswith("552 5.3.4 ")
    assert sendmail.queue.messages == {}


def test_bs_without_the_final_dot_queues_nothing(sendmail: SendmailCommand) -> None:
    done = sendmail("-bs", stdin=SESSION[:-12])
    assert done.status == 0
    assert sendmail.queue.messages == {}


def test_bs_with_a_relay_is_a_session_with_the_relay(sendmail: SendmailCommand) -> None:
    with UnixServer(sendmail.socket) as relay:
        done = sendmail("-bs", stdin=SESSION)
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("\n354 go on\n250 2.0.0 Ok: queued as X1\n221 bye\n")
    assert SESSION.decode().splitlines() == relay.heard
    assert sendmail.queue.messages == {}


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"EHLO x\r\nQUIT", b"EHLO QUIT\r\n"])
def test_bs_ends_when_stdin_does(sendmail: SendmailCommand, said: bytes) -> None:
    with UnixServer(sendmail.socket):
        done = sendmail("-bs", stdin=said)
    assert (done.status, done.err) == (0, "")


def test_bs_accepts_lf_line_ends(sendmail: SendmailCommand) -> None:
    said = SESSION.replace(b"\r\n", b"\n")
    done = sendmail("-bs", stdin=said)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("221 ")
    assert sendmail.content.endswith("\r\n\r\nHi.\r\n.\r\n")
    with UnixServer(sendmail.socket) as relay:
        done = sendmail("-bs", stdin=said)
    assert (done.status, done.err) == (0, "")
    assert SESSION.decode().splitlines() == relay.heard


def test_bs_without_a_queue_replies_451(sendmail: SendmailCommand) -> None:
    for file in (sendmail.folder / "queue").iterdir():
        file.unlink()
    (sendmail.folder / "queue").rmdir()
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


def test_a_missing_configuration_has_a_remedy_with_the_command_s_own_options(
    sendmail: SendmailCommand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(sendmail.folder / "absent.toml")
    monkeypatch.setattr("twisted_sendmail.cli.sendmail.local_relay.DEFAULT_CONFIG", absent)
    monkeypatch.delenv("TWISTED_SENDMAIL_CONFIG", raising=False)
    assert main(["sendmail", "bob@example.net"]) == 78
    remedy = "name it by -C or TWISTED_SENDMAIL_CONFIG, or give the queue by -O QueueDirectory=DIR"
    assert remedy in capsys.readouterr().err
