"""`twisted-sendmail queue`, on queues of a real store."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from tests.cli.queues import CONTENT, REPLY, Queue
from tests.cli.shell import COMMAND, Done, Shell
from twisted_sendmail import Recipient
from twisted_sendmail.cli.main import main
from twisted_sendmail.cli.queue_format import RelayState, message_lines, show_json, table
from twisted_sendmail.queue import WAKEUP, RelayNode, id_text
from twisted_sendmail.queue.sqlite.files import DATABASE

NONE = id_text(7)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


class Run:
    """The subcommand in this process, on one queue."""

    def __init__(
        self, queue: Queue, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self._queue = queue
        self._capfd = capfd
        self._patch = patch

    def __call__(self, action: str, *words: str, stdin: bytes = b"") -> Done:
        reading, writing = os.pipe()
        os.write(writing, stdin)
        os.close(writing)
        with open(reading, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            self._patch.setattr("sys.stdin", file)
            status = main(["queue", action, "--queue", str(self._queue.directory), *words])
        out, err = self._capfd.readouterr()
        return Done(status, out, err).check()


@pytest.fixture
def run(queue: Queue, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(queue, capfd, monkeypatch)


def objects(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


# -- list -----------------------------------------------------------------------


def test_an_empty_queue_is_reported_as_empty(run: Run) -> None:
    assert _all(run("list")) == (0, "the queue is empty\n", "")
    assert _all(run("list", "--json")) == (0, "", "")


def _all(done: Done) -> tuple[int, str, str]:
    return done.status, done.out, done.err


def test_json_has_the_names_of_postqueue(queue: Queue, run: Run) -> None:
    name = queue.take(recipients=["bob@example.net", "carol@example.net"], arrived=1767268800.5)
    queue.defer(name)
    done = run("list", "--json")
    assert [
        {
            "queue_name": "deferred",
            "queue_id": name,
            "arrival_time": 1767268800,
            "message_size": len(CONTENT),
            "forced_expire": False,
            "sender": "alice@example.org",
            "recipients": [
                {
                    "address": "bob@example.net",
                    "delay_reason": "mx.example.net[192.0.2.9]:25: 450 4.2.2 Mailbox \\x1b[2Jfull",
                },
                {"address": "carol@example.net"},
            ],
        }
    ] == objects(done)


def test_json_lists_undelivered_recipients_and_the_null_sender_as_postqueue_does(
    queue: Queue, run: Run
) -> None:
    name = queue.take("", ["bob@example.net", "carol@example.net"])
    queue.deliver(name, 0)
    (found,) = objects(run("list", "--json"))
    assert (
        found["sender"],
        found["recipients"],
    ) == ("MAILER-DAEMON", [{"address": "carol@example.net"}])


def test_every_state_has_its_name(queue: Queue, run: Run) -> None:
    deferred = queue.defer(queue.take())
    failed, damaged = queue.set_aside(queue.take()), queue.damage(queue.take())
    # Who would deliver it, finds it damaged.
    assert queue.lease() == []
    active = queue.take()
    assert queue.lease() == [active]
    hold, incoming = queue.hold(queue.take()), queue.take()
    expected = {
        deferred: "deferred",
        failed: "undeliverable",
        active: "active",
        hold: "hold",
        damaged: "corrupt",
        incoming: "incoming",
    }
    found = {each["queue_id"]: each["queue_name"] for each in objects(run("list", "--json"))}
    assert found == expected
    for state in set(expected.values()):
        some = objects(run("list", "--json", "--state", state))
        assert {name for name in expected if expected[name] == state} == {
            each["queue_id"] for each in some
        }


def test_the_table_says_why_each_waits_and_when_it_is_tried(queue: Queue, run: Run) -> None:
    name = queue.take(recipients=[f"r{n}@example.net" for n in range(5)], arrived=time.time() - 60)
    queue.defer(name, numbers=range(5))
    held = queue.hold(queue.take("", ["dave@example.net"]))
    done = run("list")
    assert (done.status, done.err) == (0, "")
    first, second = done.out.split(held)
    line = next(line for line in first.splitlines() if line.startswith(name))
    assert re.search(r"deferred +\d+ B +1 min +in 5 min +from alice@example\.org$", line)
    for text in ("to r0@example.net", "to r2@example.net", "and 2 more recipients"):
        assert text in first
    assert "r3@example.net" not in first
    assert "mx.example.net[192.0.2.9]:25: 450 4.2.2 Mailbox \\x1b[2Jfull" in first
    assert "from <> (a report)" in second
    assert "It was put on hold." in second
    assert re.search(r"hold .* never ", second)
    assert done.out.splitlines()[-1].startswith("2 messages (1 deferred, 1 hold), ")


def test_the_table_fits_a_narrow_terminal(queue: Queue) -> None:
    name = queue.defer(queue.take(recipients=["x" * 60 + "@example.net"]))
    shown = table([queue.messages[name]], RelayState(time.time()), 80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "x" * 20 in shown


def test_relays_that_share_the_queue_are_named_with_what_they_deliver(queue: Queue) -> None:
    east, west = RelayNode("east", 0.0, 5), RelayNode("west", 0.0, 1, alive=False)
    relay = RelayState(time.time(), relays=(east, west))
    assert list(relay.lines()) == [
        "relay east runs, 5 messages under way",
        "relay west gives no sign of life, 1 message under way: another relay takes them over",
    ]
    name = queue.take()
    message = evolve(queue.messages[name], leased=True, owner="east")
    assert "Being delivered by east." in table([message], relay, 80)
    assert "Being delivered by east." in "\n".join(message_lines(message, [], relay))
    assert show_json(message, [], relay)["leased_by"] == "east"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sender", "alice@example.org"], ["a"]),
        (["--sender", "@EXAMPLE.org"], ["a", "b"]),
        (["--sender", ""], ["c"]),
        (["--recipient", "@example.net"], ["a", "c"]),
        (["--recipient", "example"], ["a", "b", "c"]),
        (["--route", "backup"], ["b"]),
        (["--route", "backup", "--recipient", "@example.net"], []),
        ([], ["a", "b", "c"]),
    ],
)
def test_options_select_messages(
    queue: Queue, run: Run, words: list[str], expected: list[str]
) -> None:
    names = {
        queue.take("alice@example.org", ["x@example.net"]): "a",
        queue.take("bob@example.org", ["y@example.com"], route="backup"): "b",
        queue.take("", ["z@example.net"]): "c",
    }
    found = [names[each["queue_id"]] for each in objects(run("list", "--json", *words))]
    assert found == expected
    if not expected:
        assert run("list", *words).out.startswith("no message matches\n")


@pytest.fixture
def relay(queue: Queue) -> Iterator[socket.socket]:
    """The socket of a relay that runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(queue.directory / WAKEUP))
        yield listening


@pytest.mark.usefixtures("relay")
def test_list_and_show_print_which_mail_waits_for_a_route(queue: Queue, run: Run) -> None:
    deferred = queue.defer(queue.take())
    name, other = queue.take(), queue.take(route="backup")
    queue.route_down("default", "Connection \\x1b[2Jrefused", time.time() + 58.9)
    done = run("list")
    first, _, rest = done.out.partition(name)
    second, _, third = rest.partition(other)
    # It is due later than the route is tried.
    assert re.search(rf"{deferred} +deferred +\d+ B +0 s +in [45] min ", first)
    assert "It waits for route" not in first
    assert re.search(r"^ +incoming +\d+ B +0 s +in 58 s ", second)
    assert "It waits for route default, next attempt in 58 s." in second
    assert "Not tried yet." not in second
    assert re.search(r"^ +incoming +\d+ B +0 s +now ", third)
    assert "Not tried yet." in third
    assert done.out.splitlines()[-2] == (
        "route default is down, next attempt in 58 s: Connection \\x1b[2Jrefused"
    )
    shown = run("show", name).out
    assert "              It waits for route default, next attempt in 58 s.\n" in shown
    assert "next try      in 58 s\n" in shown
    (found,) = objects(run("show", "--json", name))
    assert time.time() + 50 < found["next_try"] < time.time() + 60


def test_list_and_show_print_that_the_relay_is_not_running(queue: Queue, run: Run) -> None:
    name = queue.take()
    queue.route_down("default", "Connection refused", time.time() + 60)
    assert run("list").out.splitlines()[-2] == (
        "the relay is not running: no message is tried until it is started"
    )
    assert "route default" not in run("list").out
    expected = "relay         not running: no message is tried until it is started\n"
    assert expected in run("show", name).out


@pytest.mark.usefixtures("relay")
def test_nothing_is_added_for_a_relay_that_works(queue: Queue, run: Run) -> None:
    name = queue.take()
    assert [line for line in run("list").out.splitlines() if "relay" in line] == []
    assert "\nrelay " not in run("show", name).out


def test_the_totals_of_a_selection_are_those_of_the_selection(queue: Queue, run: Run) -> None:
    name = queue.hold(queue.take(arrived=time.time() - 60))
    _ = queue.take(arrived=time.time() - 3600), queue.take(), queue.take()
    expected = f"1 of 4 messages (1 hold), {len(CONTENT)} B, the oldest 1 min old"
    assert run("list", "--state", "hold").out.splitlines()[-1] == expected
    assert run("list", name).out.splitlines()[-1] == expected
    assert run("list", "--sender", "nobody").out == "no message matches\n0 of 4 messages\n"


def test_a_long_queue_is_listed_completely(queue: Queue, run: Run) -> None:
    queue.take()
    queue.multiply(1202)
    found = objects(run("list", "--json"))
    assert (len(found), len({each["queue_id"] for each in found})) == (1203, 1203)


# -- show -----------------------------------------------------------------------


def test_show_prints_all_details(queue: Queue, run: Run) -> None:
    recipients = [
        Recipient("bob@example.net", "NEVER", "rfc822;robert@example.net"),
        Recipient("carol@example.net"),
    ]
    name = queue.take(recipients=recipients, ret="HDRS", envid="QQ1")
    queue.defer(name)
    done = run("show", name.lower())
    assert (done.status, done.err) == (0, "")
    for text in (
        f"message       {name}\n",
        "state         deferred\n",
        "sender        alice@example.org\n",
        "came from     client[192.0.2.1] ESMTP\n",
        "route         default\n",
        "Message-ID    <1@example.org>\n",
        "RET           HDRS\nENVID         QQ1\n",
        "recipient     bob@example.net\n",
        "  original    rfc822;robert@example.net\n  NOTIFY      NEVER\n",
        "  last reply  mx.example.net[192.0.2.9]:25: 450 4.2.2 Mailbox \\x1b[2Jfull\n",
        "  due         in 5 min\n",
        "recipient     carol@example.net\n  state       pending\n  tries       0\n  due         now\n",
        "  From: alice@example.org\n",
        "  Subject: =?utf-8?q?hello?= \\x1b[2J\n",
    ):
        assert text in done.out, text
    assert "Hi." not in done.out


def test_show_prints_json(queue: Queue, run: Run) -> None:
    name = queue.defer(queue.take())
    (found,) = objects(run("show", "--json", name))
    assert (
        found["queue_id"],
        found["route"],
        found["aside"],
        found["attempts"],
    ) == (name, "default", None, 1)
    (recipient,) = found["recipients"]
    assert tuple(recipient[key] for key in ("state", "attempts", "reply", "status", "relay")) == (
        "pending",
        1,
        REPLY,
        "4.2.2",
        "mx.example.net[192.0.2.9]:25",
    )
    assert "From: alice@example.org" in found["header"]


@pytest.mark.parametrize("content", [CONTENT, b"X: y\r\n\r\n" + bytes(range(256)) * 4000])
def test_the_content_is_written_octet_for_octet(shell: Shell, queue: Queue, content: bytes) -> None:
    name = queue.take(content=content)
    words = ["queue", "show", "--queue", str(queue.directory), "--content", name]
    done = subprocess.run(
        [COMMAND, *words], capture_output=True, env=shell.env, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", content)


def test_show_needs_a_selection(queue: Queue, run: Run) -> None:
    queue.take()
    queue.take()
    assert _all(run("show"))[:2] == (64, "")
    done = run("show", "--content", "--sender", "alice")
    assert (
        done.status,
        done.err[18:].rstrip(),
    ) == (64, "--content is for one message, and 2 match")


def test_a_damaged_message_is_shown_as_far_as_possible(queue: Queue, run: Run) -> None:
    name = queue.damage(queue.take())
    done = run("show", name)
    assert (
        done.status,
        done.err,
    ) == (
        65,
        f"twisted-sendmail: message {name} is damaged: the stored data differ from the data written\n",
    )
    assert "state         corrupt\n" in done.out
    content = run("show", "--content", name)
    assert (content.status, content.out) == (65, "")
    assert "the output is incomplete" in content.err


# -- actions --------------------------------------------------------------------


def test_hold_release_and_flush(queue: Queue, run: Run) -> None:
    name, other = queue.defer(queue.take()), queue.take()
    assert _all(run("hold", name)) == (0, "1 message held\n", "")
    assert [m.queue_name for m in queue.messages.values()] == ["hold", "incoming"]
    assert _all(run("release", name, other)) == (
        0,
        f"{other} was not released: the message is not on hold\n1 message released\n",
        "",
    )
    assert queue.messages[name].due > time.time() + 60
    assert _all(run("flush", name)) == (0, "1 message flushed\n", "")
    assert queue.messages[name].due <= time.time()


def test_expire_requeue_and_delete(queue: Queue, run: Run) -> None:
    expired, aside, gone = queue.take(), queue.take(), queue.take()
    queue.lease()
    queue.release(expired, gone)
    queue_aside = queue.messages[aside]
    assert queue_aside.leased
    assert _all(run("expire", expired)) == (0, "1 message expired\n", "")
    assert queue.messages[expired].expired
    assert _all(run("delete", gone)) == (0, "1 message deleted\n", "")
    assert list(queue.messages) == [expired, aside]


def test_requeue_makes_a_message_that_was_set_aside_due(queue: Queue, run: Run) -> None:
    name = queue.set_aside(queue.take(""))
    done = run("flush", name)
    assert (
        done.out
        == f"{name} was not flushed: the message is set aside: requeue it\n0 messages flushed\n"
    )
    assert run("requeue", name).out == "1 message requeued\n"
    message = queue.messages[name]
    assert (message.queue_name, message.attempts, len(message.pending)) == ("incoming", 0, 1)


def test_delete_says_if_the_message_is_being_delivered(queue: Queue, run: Run) -> None:
    name = queue.take()
    assert queue.lease() == [name]
    done = run("delete", name)
    expected = f"{name} is on its way: the message may still go out, and is not tried again\n"
    assert (done.status, done.out) == (0, expected + "1 message deleted\n")
    assert queue.messages[name].doomed


def test_a_missing_id_is_named_and_the_others_are_processed(queue: Queue, run: Run) -> None:
    name = queue.take()
    done = run("hold", NONE, name, "nonsense\x1b[2J")
    assert (done.status, done.out) == (65, "1 message held\n")
    assert done.err.splitlines() == [
        "twisted-sendmail: message nonsense\\x1b[2J is not in the queue",
        f"twisted-sendmail: message {NONE} is not in the queue",
    ]
    assert queue.messages[name].queue_name == "hold"


def test_a_dash_reads_ids_from_stdin(queue: Queue, run: Run) -> None:
    """As others print them: the first word of each line, perhaps with a mark."""
    names = [queue.take() for _ in range(3)]
    stdin = f"{names[0]}* 123 Thu Jan 1\n\n{names[1].lower()}!\n".encode()
    assert run("delete", "-", stdin=stdin).out == "2 messages deleted\n"
    assert [names[2]] == list(queue.messages)


def test_no_ids_on_stdin_select_no_messages(queue: Queue, run: Run) -> None:
    queue.take()
    done = run("delete", "-", stdin=b"\n")
    assert (done.status, done.out, len(queue.messages)) == (0, "0 messages deleted\n", 1)
    done = run("delete", "-", stdin=b"nonsense\n")
    assert (done.status, done.out, len(queue.messages)) == (65, "0 messages deleted\n", 1)
    assert (run("list", "--json", "-").status, run("list", "--json", "-").out) == (0, "")


@pytest.mark.parametrize("action", ["flush", "hold", "release", "expire", "delete", "requeue"])
def test_an_action_on_all_messages_needs_all(queue: Queue, run: Run, action: str) -> None:
    names = [queue.hold(queue.take()), queue.hold(queue.take())]
    done = run(action)
    assert (done.status, done.out, f"or --all to {action}" in done.err) == (64, "", True)
    assert _all(run(action, "--all", names[0]))[:2] == (64, "")
    assert run(action, "--all").status == 0
    assert (0 if action == "delete" else 2) == len(queue.messages)


def test_an_action_works_on_a_selection(queue: Queue, run: Run) -> None:
    kept = queue.take("alice@example.org")
    queue.take("eve@example.com")
    assert run("delete", "--sender", "@example.com").out == "1 message deleted\n"
    assert list(queue.messages) == [kept]
    assert run("delete", "--sender", "@example.com").out == "no message matches\n"


def test_an_action_wakes_the_relay(queue: Queue, run: Run) -> None:
    name = queue.take()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as relay:
        relay.bind(str(queue.directory / WAKEUP))
        relay.settimeout(10)
        run("list")
        run("flush", name)
        assert relay.recv(16) == b"\n"
        relay.setblocking(False)
        run("hold", NONE)
        with pytest.raises(BlockingIOError):
            relay.recv(16)


# -- which queue, and what can be wrong with it ---------------------------------


def test_the_queue_is_that_of_the_configuration(
    queue: Queue, shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    name = queue.take()
    config = shell.write("relay.toml", b'queue = "queue"\n[[smarthost]]\nurl = "smtps://x"\n')
    assert main(["queue", "list", "--config", config, "--json"]) == 0
    monkeypatch.setenv("TWISTED_SENDMAIL_CONFIG", config)
    assert main(["queue", "list", "--json"]) == 0
    out = capfd.readouterr().out
    assert [json.loads(line)["queue_id"] for line in out.splitlines()] == [name, name]


@pytest.mark.parametrize(
    ("words", "status", "held"),
    [
        (
            ["--queue", "absent"],
            78,
            "the queue {}/absent cannot be used: the directory does not exist",
        ),
        (["--queue", "empty"], 78, "the directory holds no queue; start the relay"),
        (["--queue", "file"], 78, "the path is not a directory"),
        (["--queue", ""], 64, "--queue is empty"),
        (["--queue", "x", "--config", "y"], 64, "give one of them"),
        (["--config", "absent.toml"], 78, "absent.toml: the file cannot be read: No such file"),
        (["--config", "no.toml"], 78, "no.toml: invalid TOML"),
        (["--config", "keyless.toml"], 78, "keyless.toml: queue: missing"),
        (["--config", "number.toml"], 78, "number.toml: queue: the value is a number"),
        ([], 78, "relay.toml: the file cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_queue_that_cannot_be_found_is_one_line(
    shell: Shell,
    words: list[str],
    status: int,
    held: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (shell.folder / "empty").mkdir(mode=0o700)
    shell.write("file", b"")
    shell.write("no.toml", b"queue\n")
    shell.write("keyless.toml", b"")
    shell.write("number.toml", b"queue = 1\n")
    monkeypatch.chdir(shell.folder)
    monkeypatch.delenv("TWISTED_SENDMAIL_CONFIG", raising=False)
    monkeypatch.setattr(
        "twisted_sendmail.cli.queue.DEFAULT_CONFIG",
        str(shell.folder / "etc/relay.toml"),
    )
    said: list[str] = []
    monkeypatch.setattr("twisted_sendmail.cli.main.print_error", said.append)
    assert status == main(["queue", "list", *words])
    (line,) = said
    assert held.format(shell.folder) in line


@pytest.mark.parametrize(
    ("octets", "held"),
    [
        (
            b"not a database at all, but a text that is long enough to look at" * 20,
            "not a database",
        ),
        (b"", None),
    ],
)
def test_a_file_that_is_no_database_is_one_line(
    queue: Queue, run: Run, octets: bytes, held: str | None
) -> None:
    database = queue.directory / DATABASE
    for file in queue.directory.iterdir():
        file.unlink()
    database.write_bytes(octets)
    done = run("list")
    if held is None:
        assert (done.status, done.out) == (0, "the queue is empty\n")
    else:
        assert (done.status, done.out, len(done.err.splitlines())) == (78, "", 1)
        assert held in done.err


def test_a_badly_damaged_queue_is_one_line(queue: Queue, run: Run) -> None:
    for _ in range(50):
        queue.take()
    database = queue.directory / DATABASE
    octets = bytearray(database.read_bytes())
    octets[4096:] = b"\xaa" * (len(octets) - 4096)
    database.write_bytes(octets)
    for words in (["list"], ["list", "--json"], ["delete", "--all"], ["show", NONE]):
        done = run(*words)
        assert done.status in {65, 75, 78}, done
        assert "twisted-sendmail: " in done.err


def test_the_queue_of_another_user_is_one_line(
    queue: Queue, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    done = run("list")
    assert (done.status, done.out, len(done.err.splitlines())) == (78, "", 1)
    assert "and this is user 65534; run as user" in done.err


def test_a_closed_pipe_is_no_error(queue: Queue, shell: Shell) -> None:
    name = queue.take(content=b"X: y\r\n\r\n" + b"x" * 3_000_000)
    words = f"queue show --queue {queue.directory} --content {name}"
    done = shell.line(f"{COMMAND} {words} | head -c 10")
    assert (done.stdout, done.stderr) == (b"X: y\r\n\r\nxx", b"")


def test_the_installed_command_works(queue: Queue, shell: Shell) -> None:
    name = queue.take()
    done = shell.run_now("queue", "list", "--json", "--queue", str(queue.directory))
    assert (done.status, done.err, done.json["queue_id"]) == (0, "", name)


def test_a_closed_stdin_holds_no_ids(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["queue", "delete", "--queue", str(queue.directory), "-"]) == 66
    assert "stdin is closed" in capfd.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("x"))
