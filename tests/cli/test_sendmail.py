"""The stand-in for sendmail as programs call it: over the relay's socket, or into its queue."""

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

MESSAGE = b"To: bob@example.net\nSubject: hello\n\nHi.\n"


class Standin:
    """Calls it, for a relay with a queue of its own."""

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
def standin(tmp_path: Path, sendmail_command: str) -> Standin:
    return Standin(tmp_path, sendmail_command)


def silent(done: Done) -> None:
    assert (0, "", "") == (done.status, done.out, done.err)


# -- no relay: into the queue -----------------------------------------------------


def test_without_a_relay_it_is_in_the_queue(standin: Standin) -> None:
    silent(standin("-i", "-f", "alice@example.org", "bob@example.net"))
    message = standin.message
    assert ("alice@example.org", ["bob@example.net"], "default") == (
        str(message.draft.envelope.sender),
        standin.recipients,
        message.draft.route,
    )
    assert f"(uid {os.getuid()}) local" in message.draft.origin
    lines = standin.content.split("\r\n")
    stamp = f"Received: by relay.example.org (twisted_sendmail, from userid {os.getuid()}) id {message.id};"
    assert stamp == " ".join([lines[0], *lines[1].split()])[: len(stamp)]
    assert lines[-3:] == ["", "Hi.", ""]
    assert "From: " in standin.content
    assert f"\r\nMessage-ID: {message.draft.message_id}\r\n" in standin.content


def test_whatever_the_umask_others_cannot_read_it(standin: Standin) -> None:
    before = os.umask(0)
    try:
        silent(standin("bob@example.net"))
    finally:
        os.umask(before)
    for path in (standin.folder / "queue").iterdir():
        assert 0o600 == stat.S_IMODE(path.stat().st_mode), path


def test_cron_s_way(standin: Standin) -> None:
    """``sendmail -FCronDaemon -i -B8BITMIME -oem root``, with ``To: root`` in the header."""
    stdin = (
        b'From: "(Cron Daemon)" <root>\nTo: root\nSubject: x\n\n8-bit: \xc3\xbc\nbare \r CR\n.\nend'
    )
    silent(standin("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", stdin=stdin))
    assert ["root@relay.example.org"] == standin.recipients
    assert standin.content.endswith("\r\n\r\n8-bit: ü\r\nbare \r\n CR\r\n.\r\nend\r\n")
    assert standin.message.draft.eight_bit


def test_local_mail_goes_where_the_relay_sends_it(standin: Standin) -> None:
    standin.configure(
        "[rewrite]\nlocal-mail-to = 'admin@example.com'\nappend-domain = 'example.org'\n"
        "senders = {'app@example.org' = 'no-reply@example.com'}\n"
    )
    silent(standin("-f", "app", "root", "bob@example.net"))
    assert ["admin@example.com", "bob@example.net"] == standin.recipients
    assert "no-reply@example.com" == str(standin.message.draft.envelope.sender)
    assert re.search(r"\r\nFrom: (.* )?<?no-reply@example\.com>?\r\n", standin.content)


def test_the_sender_has_his_route(standin: Standin) -> None:
    standin.configure(
        '[[smarthost]]\nurl = "smtps://absent:x@y"\npassword-file = "/absent"\n'
        '[[route]]\nname = "other"\nsenders = ["@example.com"]\n'
        '[[route.smarthost]]\nurl = "smtps://x"\nca-file = "/absent"\n'
    )
    silent(standin("-f", "eve@example.com", "bob@example.net"))
    assert "other" == standin.message.draft.route


def test_php_s_way_recipients_from_the_header(standin: Standin) -> None:
    """``sendmail -t -i``, Bcc is not shown."""
    stdin = b"To: bob@example.net\nCc: carol@example.net\nBcc: dave@example.net\n\nHi.\n"
    silent(standin("-t", "-i", "-fwww@example.org", stdin=stdin))
    assert ["bob", "carol", "dave"] == [each.partition("@")[0] for each in standin.recipients]
    assert "dave" not in standin.content


def test_a_lone_dot_ends_it_unless_it_is_to_be_ignored(standin: Standin) -> None:
    silent(standin("bob@example.net", stdin=b"To: x\n\nfirst\n.\nsecond\n"))
    assert standin.content.endswith("\r\n\r\nfirst\r\n")


def test_reports_are_asked_for(standin: Standin) -> None:
    silent(standin("-N", "success,delay", "-R", "hdrs", "-V", "QQ1", "a@x.org", "b@x.org"))
    envelope = standin.message.draft.envelope
    assert ("HDRS", "QQ1") == (envelope.ret, envelope.envid)
    assert [{"SUCCESS", "DELAY"}] * 2 == [set(r.notify) for r in envelope.recipients]


def test_the_null_sender_and_the_full_name(standin: Standin) -> None:
    silent(standin("-f", "<>", "-F", "Nobody", "bob@example.net"))
    assert standin.message.draft.envelope.sender.mailbox is None
    assert "\r\nFrom: MAILER-DAEMON@relay.example.org\r\n" in standin.content


def test_the_name_of_the_environment(standin: Standin) -> None:
    silent(standin("-f", "alice@example.org", "bob@example.net", NAME="Alice Liddell"))
    assert "\r\nFrom: Alice Liddell <alice@example.org>\r\n" in standin.content


def test_verbose_says_where_it_went(standin: Standin) -> None:
    done = standin("-v", "bob@example.net")
    assert f"-- queued as {standin.message.id}" == done.err.splitlines()[-1]


def test_a_message_of_many_megabytes_is_kept_whole(standin: Standin) -> None:
    body = (b"x" * 75 + b"\n") * 200_000
    silent(standin("bob@example.net", stdin=b"To: b\n\n" + body))
    assert standin.content.encode().endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))


def test_memory_does_not_grow_with_the_message(standin: Standin) -> None:
    standin.configure('[limits]\nmessage-size = "100 MB"\n')

    def peak(megabytes: int) -> int:
        code = (
            "import os, resource, sys\n"
            "from twisted_sendmail.cli.sendmail import main\n"
            "status = main(['sendmail', '-i', 'bob@example.net'])\n"
            "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        with (standin.folder / "large").open("wb+") as file:
            file.write(b"To: b\n\n")
            for _ in range(megabytes):
                file.write((b"x" * 75 + b"\n") * 13_797)
            file.seek(0)
            python = str(Path(standin.command).parent / "python")
            done = subprocess.run(
                [python, "-c", code],
                stdin=file,
                capture_output=True,
                env=standin.env,
                timeout=100,
                check=True,
            )
        status, kilobytes = done.stdout.split()
        assert b"0" == status
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
        (["-C", "absent.toml", "bob@example.net"], MESSAGE, 78, "absent.toml: it cannot be read"),
        (["-V", "\x01", "bob@example.net"], MESSAGE, 64, "ENVID cannot be used"),
        (["-O", "QueueDirectory=/absent/q", "-C", "", "b@x.org"], MESSAGE, 75, "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_status(
    standin: Standin, words: list[str], stdin: bytes, status: int, held: str
) -> None:
    done = standin(*words, stdin=stdin)
    assert (status, "", 1) == (done.status, done.out, len(done.err.splitlines())), done.err
    assert done.err.startswith("sendmail: ")
    assert held in done.err
    assert {} == standin.queue.messages


def test_where_neither_relay_nor_queue_is_it_may_be_tried_again(standin: Standin) -> None:
    for file in (standin.folder / "queue").iterdir():
        file.unlink()
    (standin.folder / "queue").rmdir()
    done = standin("bob@example.net")
    assert (75, 1) == (done.status, len(done.err.splitlines()))
    assert "the message was not taken, try again later: no relay is running; the queue" in done.err


def test_a_closed_stdin_is_one_line(standin: Standin) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {standin.command} bob@example.net <&-"],
        capture_output=True,
        env=standin.env,
        timeout=60,
        check=False,
    )
    assert (74, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert {} == standin.queue.messages


# -- a relay: over its socket -------------------------------------------------------


def test_a_relay_that_runs_gets_it(standin: Standin) -> None:
    with UnixServer(standin.socket) as relay:
        silent(standin("-N", "never", "-f", "alice@example.org", "bob@example.net", "root"))
    assert [
        "EHLO localhost",
        "MAIL FROM:<alice@example.org> SIZE",
        "RCPT TO:<bob@example.net> NOTIFY=NEVER",
        "RCPT TO:<root@relay.example.org> NOTIFY=NEVER",
        "DATA",
    ] == [relay.heard[0], relay.heard[1].partition("=")[0], *relay.heard[2:5]]
    (content,) = relay.contents
    assert content.startswith("To: bob@example.net\r\nSubject: hello\r\n")
    assert "\r\nMessage-ID: <" in content
    assert {} == standin.queue.messages


def test_the_socket_may_be_elsewhere(standin: Standin) -> None:
    standin.configure('submission-socket = "other"\n')
    with UnixServer(standin.folder / "other") as relay:
        silent(standin("bob@example.net"))
    assert 1 == len(relay.contents)


def test_verbose_shows_the_dialogue(standin: Standin) -> None:
    with UnixServer(standin.socket):
        done = standin("-v", "bob@example.net")
    assert (0, "") == (done.status, done.out)
    assert "S: 220 relay.example.org ESMTP" in done.err
    assert "C: RCPT TO:<bob@example.net>" in done.err
    assert "Hi." not in done.err


def test_a_large_message_goes_over_the_socket_whole(standin: Standin) -> None:
    body = (b"x" * 75 + b"\n") * 10_000
    with UnixServer(standin.socket) as relay:
        silent(standin("bob@example.net", stdin=b"To: b\n\n" + body))
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
def test_a_relay_that_does_not_take_it_does_not_lose_it(
    standin: Standin, replies: dict[str, str]
) -> None:
    with UnixServer(standin.socket, **replies) as relay:
        silent(standin("bob@example.net"))
    assert ["bob@example.net"] == standin.recipients
    assert [] == relay.contents


def test_a_socket_that_nobody_listens_at(standin: Standin) -> None:
    with UnixServer(standin.socket):
        pass
    assert standin.socket.exists()
    silent(standin("bob@example.net"))
    assert ["bob@example.net"] == standin.recipients


def test_a_lost_reply_makes_two_copies_at_worst_with_one_message_id(standin: Standin) -> None:
    with UnixServer(standin.socket, _=END) as relay:
        silent(standin("bob@example.net"))
    said = next(line for line in relay.heard if line.startswith("Message-ID: "))
    assert f"\r\n{said}\r\n" in standin.content
    assert ["bob@example.net"] == standin.recipients


def test_only_those_are_queued_whom_the_relay_did_not_take(standin: Standin) -> None:
    replies = {"RCPT TO:<later@x.org>": "450 4.2.0 later"}
    with UnixServer(standin.socket, **replies) as relay:
        silent(standin("bob@example.net", "later@x.org"))
    assert (1, ["later@x.org"]) == (len(relay.contents), standin.recipients)


def test_who_is_refused_for_good_is_named(standin: Standin) -> None:
    replies = {
        "RCPT TO:<never@x.org>": "550 5.1.1 no \x1b[2Jsuch user",
        "RCPT TO:<later@x.org>": "450 4.2.0 later",
    }
    with UnixServer(standin.socket, **replies) as relay:
        done = standin("bob@example.net", "never@x.org", "later@x.org")
    assert (67, 1) == (done.status, len(done.err.splitlines())), done.err
    assert "never@x.org refused: 550 5.1.1 no \\x1b[2Jsuch user" in done.err
    assert (1, ["later@x.org"]) == (len(relay.contents), standin.recipients)


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
def test_what_the_relay_will_never_take_is_not_queued(
    standin: Standin, replies: dict[str, str], status: int
) -> None:
    with UnixServer(standin.socket, **replies):
        done = standin("bob@example.net")
    assert (status, "", 1) == (done.status, done.out, len(done.err.splitlines())), done.err
    assert {} == standin.queue.messages


def test_an_interrupt_is_told(standin: Standin) -> None:
    """Who interrupts does not want it queued; the relay that is silent has not got it."""
    with UnixServer(standin.socket, MAIL=SILENCE) as relay:
        process = subprocess.Popen(
            [standin.called(""), "bob@example.net"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=standin.env,
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
        assert 130 == process.wait(60)
    assert err.startswith(b"sendmail: interrupted: ")
    assert {} == standin.queue.messages


# -- what else it is called for ------------------------------------------------------


def test_mailq(standin: Standin) -> None:
    assert (0, "Mail queue is empty\n", "") == _all(standin(name="mailq"))
    first = standin.queue.defer(standin.queue.take(arrived=1767268800.0))
    held = standin.queue.hold(standin.queue.take("", ["dave@example.net"]))
    done = standin("-bp", TZ="UTC")
    lines = done.out.splitlines()
    assert "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------" == lines[0]
    assert re.match(rf"{first}  +\d+ Thu Jan  1 12:00:00  alice@example\.org$", lines[1])
    assert "(mx.example.net[192.0.2.9]:25: 450 4.2.2 Mailbox \\x1b[2Jfull)" == lines[2].strip()
    assert f"{'':41}bob@example.net" == lines[3]
    assert lines[5].startswith(f"{held}! ")
    assert lines[5].endswith("MAILER-DAEMON")
    assert "-- 1 Kbytes in 2 Requests." == lines[-1]
    assert done.out == standin(name="mailq", TZ="UTC").out
    assert held not in standin("-bp", f"-qI{first}").out
    # What it prints is what `queue` reads.
    assert first in standin("-bp", "-qSalice").out


def _all(done: Done) -> tuple[int, str, str]:
    return done.status, done.out, done.err


def test_newaliases_has_nothing_to_do(standin: Standin) -> None:
    silent(standin(name="newaliases"))
    silent(standin("-bi"))


@pytest.mark.parametrize("option", ["-q", "-q30m", "-qI{}", "-qRbob", "-qS@example.org"])
def test_q_flushes(standin: Standin, option: str) -> None:
    name = standin.queue.defer(standin.queue.take())
    assert standin.message.due > time.time()
    silent(standin(option.format(name)))
    assert standin.message.due <= time.time()


def test_q_of_what_is_not_there_flushes_nothing(standin: Standin) -> None:
    standin.queue.defer(standin.queue.take())
    silent(standin("-qInonsense"))
    silent(standin("-qRnobody"))
    assert standin.message.due > time.time()


@pytest.mark.parametrize("relay", [False, True])
def test_beside_a_locked_queue_it_says_so_in_time(standin: Standin, *, relay: bool) -> None:
    """In half a minute; here each second of it is a tenth of one.

    The caller may try again (75), but not where the silent relay may have the message (76).
    """
    code = (
        "from twisted_sendmail.cli import sendmail\n"
        "from twisted_sendmail.cli.sendmail import delivery\n"
        "assert 20 == delivery.RELAY_SILENCE\n"
        "assert (30, 10) == (delivery.TOTAL_PATIENCE, delivery.QUEUE_PATIENCE)\n"
        "delivery.RELAY_SILENCE = 2\n"
        "delivery.TOTAL_PATIENCE, delivery.QUEUE_PATIENCE = 3, 1\n"
        "print(sendmail.main(['sendmail', '-i', 'bob@example.net']))\n"
    )
    python = str(Path(standin.command).parent / "python")
    with ExitStack() as stack:
        if relay:
            _ = stack.enter_context(UnixServer(standin.socket, _=SILENCE))
        _ = stack.enter_context(standin.queue.locked())
        done = subprocess.run(
            [python, "-c", code],
            input=MESSAGE,
            capture_output=True,
            env=standin.env,
            timeout=25,
            check=True,
        )
    assert (b"76" if relay else b"75") == done.stdout.strip()
    advice = b"may have it: the same again may make second" if relay else b"try again later"
    assert b"the message was not taken, " in done.stderr
    assert advice in done.stderr
    assert b"is locked" in done.stderr
    assert {} == standin.queue.messages


LARGE = b"To: bob@example.net\n\n" + b"x" * 1200 + b"\n"


def test_what_is_too_large_for_the_relay_is_refused_as_by_the_relay(standin: Standin) -> None:
    """65, and nothing in the queue, whether it runs or not."""
    standin.configure('[limits]\nmessage-size = "1 kB"\n')
    down = standin("-i", "bob@example.net", stdin=LARGE)
    with UnixServer(standin.socket, EHLO="250-relay.example.org\r\n250 SIZE 1000"):
        up = standin("-i", "bob@example.net", stdin=LARGE)
    assert (65, 65) == (down.status, up.status)
    assert re.fullmatch(
        r"sendmail: message too large: it has \d+ octets, the relay takes 1000.*\n", down.err
    )
    assert "message too large" in up.err
    assert {} == standin.queue.messages
    silent(standin("-i", "bob@example.net", stdin=LARGE[:500]))
    assert 1 == len(standin.queue.messages)


def test_without_a_configuration_nothing_is_known_of_limits(standin: Standin) -> None:
    env = {"TWISTED_SENDMAIL_CONFIG": ""}
    queue = str(standin.folder / "queue")
    where = f"-OQueueDirectory={queue}"
    silent(standin(where, "-i", "bob@example.net", stdin=LARGE, **env))


SESSION = (
    b"EHLO client\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
    b"To: bob@example.net\r\n\r\nHi.\r\n..\r\n.\r\nQUIT\r\n"
)


def test_bs_without_a_relay_keeps_before_it_says_so(standin: Standin) -> None:
    done = standin("-bs", stdin=SESSION)
    assert (0, "") == (done.status, done.err)
    replies = done.out.splitlines()
    assert "220 relay.example.org ESMTP" == replies[0]
    assert f"250 2.0.0 Ok: queued as {standin.message.id}" == replies[-2]
    assert replies[-1].startswith("221 ")
    assert standin.content.endswith("\r\n\r\nHi.\r\n.\r\n")


def test_bs_without_a_relay_serves_who_does_not_greet(standin: Standin) -> None:
    done = standin("-bs", stdin=SESSION.partition(b"\r\n")[2])
    assert (0, "") == (done.status, done.err)
    assert f"250 2.0.0 Ok: queued as {standin.message.id}" == done.out.splitlines()[-2]


def test_bs_without_a_relay_has_the_limits_of_the_relay(standin: Standin) -> None:
    standin.configure("[limits]\nmessage-size = 100\nrecipients = 1\n")
    twice = SESSION.replace(b"DATA\r\n", b"RCPT TO:<carol@example.net>\r\nDATA\r\n")
    done = standin("-bs", stdin=twice.replace(b"Hi.", b"x" * 100))
    assert "\n250-SIZE 100\n" in done.out
    assert "\n452 4.5.3 " in done.out
    assert done.out.splitlines()[-2].startswith("552 5.3.4 ")
    assert {} == standin.queue.messages


def test_bs_without_an_end_keeps_nothing(standin: Standin) -> None:
    done = standin("-bs", stdin=SESSION[:-12])
    assert 0 == done.status
    assert {} == standin.queue.messages


def test_bs_with_a_relay_is_the_relay_s_session(standin: Standin) -> None:
    with UnixServer(standin.socket) as relay:
        done = standin("-bs", stdin=SESSION)
    assert (0, "") == (done.status, done.err)
    assert done.out.endswith("\n354 go on\n250 2.0.0 Ok: queued as X1\n221 bye\n")
    assert SESSION.decode().splitlines() == relay.heard
    assert {} == standin.queue.messages


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"EHLO x\r\nQUIT", b"EHLO QUIT\r\n"])
def test_bs_ends_when_stdin_does(standin: Standin, said: bytes) -> None:
    with UnixServer(standin.socket):
        done = standin("-bs", stdin=said)
    assert (0, "") == (done.status, done.err)


def test_bs_understands_who_ends_his_lines_with_lf(standin: Standin) -> None:
    said = SESSION.replace(b"\r\n", b"\n")
    done = standin("-bs", stdin=said)
    assert (0, "") == (done.status, done.err)
    assert done.out.splitlines()[-1].startswith("221 ")
    assert standin.content.endswith("\r\n\r\nHi.\r\n.\r\n")
    with UnixServer(standin.socket) as relay:
        done = standin("-bs", stdin=said)
    assert (0, "") == (done.status, done.err)
    assert SESSION.decode().splitlines() == relay.heard


def test_bs_where_nothing_can_be_kept_says_451(standin: Standin) -> None:
    for file in (standin.folder / "queue").iterdir():
        file.unlink()
    (standin.folder / "queue").rmdir()
    done = standin("-bs", stdin=SESSION)
    assert (0, "") == (done.status, done.err)
    assert "\n451 4.3.0 " in done.out


def test_a_terminal_is_read_to_its_end(standin: Standin) -> None:
    """As ``mail`` in days of old: typed, and ended by a dot."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [standin.called(""), "bob@example.net"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=standin.env,
        )
        os.write(ours, b"Subject: typed\n\nHi.\n.\n")
        assert 0 == process.wait(60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert standin.content.endswith("\r\n\r\nHi.\r\n")
