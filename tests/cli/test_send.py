"""`twisted-sendmail send`, against a real server over real TLS."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.cli.scripted import END, SILENCE, ScriptedServer
from tests.cli.shell import COMMAND, MESSAGE, PASSWORD, Shell, read_terminal
from tests.names import ReceiverReply, Verdict, refuse, without
from twisted_sendmail import Receiver, Recipient, Reply, ServerSettings
from twisted_sendmail.testing import LoopbackServer

USERS = {"alice": PASSWORD}


def options(shell: Shell, server: LoopbackServer) -> list[str]:
    """The options for the server, its authority and the password."""
    url = server.url.replace("://", "://alice@")
    return ["--server", url, "--ca-file", server.ca_file, "--password-file", shell.password]


class Choosy(Receiver):
    """Refuses some recipients."""

    def recipient(self, recipient: Recipient) -> ReceiverReply:
        replies = {
            "nobody@example.net": Reply(550, ("5.1.1 No such user",)),
            "full@example.net": Reply(452, ("4.2.2 Mailbox full",)),
            "closed@example.net": Reply(551, ("5.7.1 Not for you",)),
        }
        return replies.get(str(recipient))


class Fussy(Receiver):
    """Refuses every content."""

    def commit(self) -> Verdict:
        return Reply(554, ("5.7.1 Looks like spam",))


@ensureDeferred
async def test_a_file_is_sent_to_the_recipients_of_its_header(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), shell.message)
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    host = f"[127.0.0.1]:{server.port}"
    assert done.out == f"accepted by {host} as {received.id} for 1 recipient\n"
    assert received.content == MESSAGE
    assert (
        str(received.sender),
        [str(r) for r in received.recipients],
        received.user,
    ) == ("alice@example.org", ["bob@example.net"], "alice")


@ensureDeferred
async def test_a_url_can_request_implicit_tls(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor) as server:
        done = await shell.run(
            "send", "--server", server.tls_url, "--ca-file", server.ca_file, shell.message
        )
    assert (done.status, done.err) == (0, "")


@ensureDeferred
async def test_a_host_and_port_is_a_server_too(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor) as server:
        done = await shell.run(
            "send",
            "--server",
            f"127.0.0.1:{server.tls_port}",
            "--tls=implicit",
            "--ca-file",
            server.ca_file,
            shell.message,
        )
    assert (done.status, done.err) == (0, "")


@ensureDeferred
@pytest.mark.parametrize("words", [[], ["-"]])
async def test_a_message_may_be_piped_in(reactor: Any, shell: Shell, words: list[str]) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), *words, stdin=MESSAGE)
        (received,) = server.messages
    assert (done.status, done.err, received.content) == (0, "", MESSAGE)


@ensureDeferred
async def test_a_long_message_on_stdin_is_streamed(reactor: Any, shell: Shell) -> None:
    message = MESSAGE + b"x" * 70 + b"\r\n"
    message += (b"y" * 70 + b"\r\n") * 50_000
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), stdin=message)
        (received,) = server.messages
    assert (done.status, done.err, message == received.content) == (0, "", True)


@ensureDeferred
@pytest.mark.parametrize("lines", [1, 50_000])
@pytest.mark.parametrize("given", ["a pipe", "a regular file on stdin", "a file"])
async def test_cr_cr_lf_is_one_line_end(reactor: Any, shell: Shell, lines: int, given: str) -> None:
    """As for the ``sendmail`` command."""
    head = [b"From: a@example.org", b"To: b@example.net", b"Date: x", b"Message-ID: <1@x.example>"]
    message = b"\r\r\n".join([*head, b"", *[b"one" * 10] * lines, b"", b"two", b""])
    file = Path(shell.write("text-mode.eml", message))
    async with LoopbackServer(reactor, users=USERS) as server:
        words = [*options(shell, server), str(file)]
        if given == "a file":
            await shell.run("send", *words)
        elif given == "a pipe":
            await shell.run("send", *words[:-1], stdin=message)
        else:
            command = [COMMAND, "send", *words[:-1]]
            with file.open("rb") as stdin:
                await deferToThread(
                    lambda: subprocess.run(command, stdin=stdin, env=shell.env, check=True)
                )
        (received,) = server.messages
    assert received.content == message.replace(b"\r\r\n", b"\r\n")


@ensureDeferred
async def test_a_bare_cr_is_refused_also_beside_cr_cr_lf(reactor: Any, shell: Shell) -> None:
    stdin = b"From: a@example.org\r\r\nTo: b@example.net\r\r\n\r\r\na\rb\r\r\n"
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), stdin=stdin)
        assert server.messages == []
    assert done.status == 65
    assert "there is a bare CR in line 4" in done.err


@ensureDeferred
async def test_options_give_the_envelope(reactor: Any, shell: Shell) -> None:
    """`--to` may be repeated, and may hold several; a comma in quotes parts nothing."""
    to = ["--to", 'a@example.net, "b,c"@example.net', "--to", "d@example.net"]
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), "--from=", *to, shell.message)
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    assert [str(r) for r in received.recipients] == [
        "a@example.net",
        '"b,c"@example.net',
        "d@example.net",
    ]
    assert str(received.sender) == "<>"


@ensureDeferred
async def test_what_is_missing_is_added_and_bcc_removed(reactor: Any, shell: Shell) -> None:
    message = b"From: a@example.org\nTo: b@example.net\nBcc: c@example.net\n\nhi\n"
    async with LoopbackServer(reactor, users=USERS) as server:
        await shell.run("send", *options(shell, server), stdin=message)
        verbatim = ["--verbatim", "--from=a@example.org", "--to=b@example.net"]
        await shell.run("send", *options(shell, server), *verbatim, stdin=message)
        first, second = server.messages
    assert [str(r) for r in first.recipients] == ["b@example.net", "c@example.net"]
    assert set(first.email.keys()) == {"From", "To", "Date", "Message-ID"}
    assert message.replace(b"\n", b"\r\n") == second.content


@ensureDeferred
async def test_delivery_reports_may_be_asked_for(reactor: Any, shell: Shell) -> None:
    words = ["--from=a@example.org", "--to=b@example.net", "--notify=success,failure"]
    words += ["--ret=hdrs", "--envid=one two"]
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), *words, shell.message)
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    assert received.recipients[0].notify == frozenset({"SUCCESS", "FAILURE"})
    assert (received.parameters.ret, received.parameters.envid) == ("HDRS", "one two")


@ensureDeferred
async def test_requiretls_may_be_asked_for(reactor: Any, shell: Shell) -> None:
    words = ["--from=a@example.org", "--to=b@example.net", "--require-tls", shell.message]
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), *words)
        assert (done.status, done.err) == (0, "")
        server.set_faults(without("REQUIRETLS"))
        refused = await shell.run("send", *options(shell, server), *words)
    (received,) = server.messages
    assert received.parameters.require_tls
    assert refused.status == 69
    assert "REQUIRETLS is needed and not offered" in refused.err


@ensureDeferred
async def test_a_password_comes_from_a_file_a_command_or_the_environment(
    reactor: Any, shell: Shell
) -> None:
    """A file, a command, the environment; a file that others may read is refused."""
    open_file = shell.write("open", PASSWORD.encode(), 0o644)
    async with LoopbackServer(reactor, users=USERS) as server:
        common = [*options(shell, server)[:-2], shell.message, "--quiet"]
        by_file = await shell.run("send", *common, "--password-file", shell.password)
        by_open_file = await shell.run("send", *common, "--password-file", open_file)
        command = f"cat {shell.password}"
        by_command = await shell.run("send", *common, "--password-command", command)
        by_variable = await shell.run("send", *common, TWISTED_SENDMAIL_PASSWORD=PASSWORD)
        by_nothing = await shell.run("send", *common)
        failing = await shell.run("send", *common, "--password-command", "exit 3")
    assert [(d.status, d.out, d.err) for d in (by_file, by_command, by_variable)] == [
        (0, "", "")
    ] * 3
    refused = f"password file {open_file} may be read by everybody; chmod 640 {open_file}\n"
    assert (by_open_file.status, by_open_file.err) == (78, f"twisted-sendmail: {refused}")
    assert (by_nothing.status, "no password for alice" in by_nothing.err) == (64, True)
    assert (failing.status, "failed with status 3" in failing.err) == (66, True)
    assert len(server.messages) == 3


@ensureDeferred
async def test_a_password_typed_at_the_prompt_is_not_echoed(reactor: Any, shell: Shell) -> None:
    ours, theirs = pty.openpty()
    async with LoopbackServer(reactor, users=USERS) as server:
        words = [*options(shell, server)[:-2], "--quiet", shell.message]
        process = shell.start("send", *words, stdin=theirs, stderr=theirs)
        os.close(theirs)
        seen = await deferToThread(
            read_terminal,
            ours,
            prompt=b"Password for alice: ",
            answer=PASSWORD.encode() + b"\n",
        )
        out, _ = await deferToThread(process.communicate)
    os.close(ours)
    assert (process.returncode, out, len(server.messages)) == (0, b"", 1)
    assert seen.strip() == b"Password for alice:"


@ensureDeferred
async def test_the_progress_line_tells_of_a_silent_server(reactor: Any, shell: Shell) -> None:
    """A server with implicit TLS waits for the client, and the client for the greeting."""
    ours, theirs = pty.openpty()
    async with LoopbackServer(reactor) as server:
        url = server.tls_url.replace("smtps://", "smtp+starttls://")
        words = ["--server", url, "--ca-file", server.ca_file, "--timeout", "8", shell.message]
        process = shell.start("send", *words, stderr=theirs)
        os.close(theirs)
        seen = await deferToThread(read_terminal, ours)
        _ = await deferToThread(process.communicate)
    os.close(ours)
    shown = " ".join(seen.decode().split())
    assert "the server has sent nothing for 5 s: is this an implicit-TLS port (smtps://)?" in shown
    assert "; the server sent nothing: is this an implicit-TLS port (smtps://)?" in shown
    assert process.returncode == 75


@ensureDeferred
async def test_the_json_is_that_of_the_reference_page(reactor: Any, shell: Shell) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text("utf-8")
    section = page.partition("### The JSON of send\n")[2].partition("\n## ")[0]
    named = [
        re.findall(r"`(\w+)`", row.split("|")[1]) for row in section.splitlines() if "| `" in row
    ]
    to = ["--to", "bob@example.net,nobody@example.net"]
    async with LoopbackServer(reactor, users=USERS, receiver=Choosy) as server:
        done = await shell.run("send", "--json", *options(shell, server), *to, shell.message)
    assert done.status == 67
    result = done.json
    assert {name for names in named for name in names} == set(result)
    assert (
        result["status"],
        result["exit_status"],
        result["error"],
    ) == ("partly accepted", 67, None)
    bob, nobody = result["recipients"]
    assert (bob["address"], bob["status"], bob["code"]) == ("bob@example.net", "accepted", 250)
    assert nobody == {
        "address": "nobody@example.net",
        "status": "refused",
        "transient": False,
        "code": 550,
        "enhanced": "5.1.1",
        "text": "5.1.1 No such user",
    }
    assert result["tls"]["version"] == "TLSv1.3"
    for name in result["tls"]:
        assert f"`{name}`" in section
    assert result["queue_id"] in result["reply"]["text"]
    assert (result["sender"], result["message_id"]) == ("alice@example.org", "<1@example.org>")


@ensureDeferred
async def test_a_wrong_password_is_not_shown(reactor: Any, shell: Shell) -> None:
    """The right password is not shown either, by any mechanism, even with --verbose."""
    async with LoopbackServer(reactor, users={"alice": "another"}) as server:
        for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256"):
            words = ["--mechanism", mechanism, "--verbose", shell.message]
            done = await shell.run("send", *options(shell, server), *words)
            assert (done.status, done.out) == (77, "")
            assert "check user name and password" in done.err.splitlines()[-1]
            assert f"C: AUTH {mechanism}" in done.err
            for secret in (b"\0alice\0" + PASSWORD.encode(), PASSWORD.encode()):
                assert b64encode(secret).decode() not in done.err


@ensureDeferred
async def test_an_unknown_authority_is_not_trusted(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor) as server:
        done = await shell.run("send", "--server", server.url, shell.message)
    assert (done.status, done.out) == (77, "")
    assert "its issuer is not known; give its CA file" in done.err
    assert server.messages == []


@ensureDeferred
async def test_a_certificate_for_another_name_is_not_trusted(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        words = ["--server-name", "mail.example.net", shell.message]
        done = await shell.run("send", *options(shell, server), *words)
    assert done.status == 77
    assert "is for localhost, 127.0.0.1, ::1, not for mail.example.net" in done.err


@ensureDeferred
async def test_a_pinned_certificate_is_trusted_and_no_other(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor) as server:
        checked = await shell.run("check", "--json", server.url)
        pin = checked.json["presented"]["fingerprint"]
        words = ["send", "--server", server.url, shell.message, "--fingerprint"]
        right = await shell.run(*words, pin)
        wrong = await shell.run(*words, "00" * 32)
    assert (right.status, wrong.status) == (0, 77)
    assert f"its SHA-256 is {pin}, not the one pinned" in wrong.err


@ensureDeferred
async def test_a_partial_refusal_names_the_refused_recipients(reactor: Any, shell: Shell) -> None:
    """The others are accepted; the status is that of the worst refusal."""
    to = ["--to", "bob@example.net", "--to"]
    async with LoopbackServer(reactor, users=USERS, receiver=Choosy) as server:
        common = ["send", *options(shell, server), shell.message, *to]
        nobody = await shell.run(*common, "nobody@example.net")
        full = await shell.run(*common, "full@example.net,full@example.net")
        both = await shell.run(*common, "full@example.net,closed@example.net")
    assert [done.status for done in (nobody, full, both)] == [67, 69, 69]
    assert (
        "twisted-sendmail: 1 of 2 recipients refused; the others have the message: "
        "send it again to those refused only\n"
        "twisted-sendmail: nobody@example.net refused: 550 5.1.1 No such user\n"
    ) == nobody.err
    assert nobody.out.endswith(" for 1 of 2 recipients\n")
    assert len(both.err.splitlines()) == 3


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("452 too many", 75),
        ("552 5.5.3 too many", 75),
        ("552 too much", 69),
        ("550 5.5.3 no", 67),
        ("552 5.2.2 full", 69),
        ("552 5.3.4 too big", 69),
    ],
)
@ensureDeferred
async def test_the_status_of_a_552_tells_whether_it_means_too_many_recipients(
    reactor: Any, shell: Shell, reply: str, status: int
) -> None:
    faults = [refuse("RCPT", reply)]
    async with LoopbackServer(reactor, users=USERS, faults=faults) as server:
        done = await shell.run("send", *options(shell, server), shell.message)
    assert (done.status, done.out) == (status, "")


@pytest.mark.parametrize("moment", ["BDAT", "MAIL"])
@ensureDeferred
async def test_what_the_server_offers_and_does_not_know_is_left_out(
    reactor: Any, shell: Shell, moment: str
) -> None:
    faults = [refuse(moment, "502 5.5.1 what?" if moment == "BDAT" else "555 5.5.4 what?", nth=1)]
    async with LoopbackServer(reactor, users=USERS, faults=faults) as server:
        done = await shell.run("send", *options(shell, server), shell.message)
        (received,) = server.messages
    assert (done.status, received.content) == (0, MESSAGE)


@ensureDeferred
async def test_a_bad_address_of_a_header_is_refused_and_the_others_get_the_message(
    reactor: Any, shell: Shell
) -> None:
    message = shell.write("bad.eml", MESSAGE.replace(b"bob@example.net", b"b..b@x.org, bob@x.org."))
    async with LoopbackServer(reactor, users=USERS) as server:
        common = ["send", *options(shell, server)]
        partly = await shell.run(*common, message, "--json")
        none = await shell.run(*common, message, "--all-or-nothing")
        given = await shell.run(*common, message, "--to", "bob@x.org,b..b@x.org")
        composed = await shell.run(
            *common, "--from", "a@x.org", "--to", "bob@x.org, b..b@x.org", "--text", "hi"
        )
        (received,) = server.messages
    assert [str(each) for each in received.recipients] == ["bob@x.org"]
    assert [done.status for done in (partly, none, given, composed)] == [69, 65, 65, 65]
    found = json.loads(partly.out)
    assert (found["status"], [(r["address"], r["enhanced"]) for r in found["recipients"]]) == (
        "partly accepted",
        [("bob@x.org", "2.0.0"), ("b..b@x.org", "5.1.3")],
    )
    assert 'put it in quotes: "b..b"@x.org' in partly.err


@ensureDeferred
async def test_refusal_of_all_recipients_is_an_error(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS, receiver=Choosy) as server:
        common = ["send", *options(shell, server), shell.message, "--to"]
        nobody = await shell.run(*common, "nobody@example.net")
        full = await shell.run(*common, "full@example.net")
        several = await shell.run(*common, "nobody@example.net,closed@example.net")
    assert [(d.status, d.out) for d in (nobody, full, several)] == [(67, ""), (75, ""), (69, "")]
    assert len(nobody.err.splitlines()) == 1
    assert "RCPT TO:<nobody@example.net> refused" in nobody.err
    assert "550 5.1.1 No such user" in nobody.err
    assert [
        re.sub(r" by .*|: 55.*", "", line.removeprefix("twisted-sendmail: "))
        for line in several.err.splitlines()
    ] == [
        "all 2 recipients refused",
        "nobody@example.net refused",
        "closed@example.net refused",
    ]


@ensureDeferred
async def test_all_or_nothing_delivers_to_nobody_after_a_refusal(
    reactor: Any, shell: Shell
) -> None:
    async with LoopbackServer(reactor, users=USERS, receiver=Choosy) as server:
        to = ["--to=bob@example.net", "--to=nobody@example.net", "--all-or-nothing"]
        done = await shell.run("send", *options(shell, server), *to, shell.message)
    assert (done.status, done.out) == (69, "")
    assert "the message was not delivered" in done.err


@ensureDeferred
async def test_a_refused_content_is_an_error(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS, receiver=Fussy) as server:
        done = await shell.run("send", *options(shell, server), shell.message)
    assert (done.status, done.out) == (69, "")
    assert "554 5.7.1 Looks like spam" in done.err


@ensureDeferred
async def test_verbose_shows_the_dialogue_and_quiet_nothing(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        common = ["send", *options(shell, server), "--mechanism=PLAIN", shell.message]
        verbose = await shell.run(*common, "--verbose")
        quiet = await shell.run(*common, "--quiet")
    lines = verbose.err.splitlines()
    assert {line[:2] for line in lines} == {"C:", "S:", "--"}
    assert "C: AUTH PLAIN ****" in lines
    assert (quiet.status, quiet.out, quiet.err) == (0, "", "")


@ensureDeferred
async def test_a_message_in_doubt_is_reported(scripted: ScriptedServer, shell: Shell) -> None:
    scripted.replies["."] = END
    done = await shell.run("send", "--json", "--server", scripted.url, shell.message)
    assert done.status == 76
    assert (
        done.json["status"],
        done.json["error"]["class"],
        done.json["error"]["in_doubt"],
        done.json["recipients"][0]["status"],
    ) == ("in doubt", "DeliveryInDoubt", True, "in doubt")
    assert (
        done.json["error"]["transient"],
        done.json["recipients"][0]["transient"],
    ) == (False, False)
    assert "sending it again may make a second copy" in done.err


@ensureDeferred
@pytest.mark.parametrize(
    ("reply", "status", "error", "in_doubt"),
    [
        (END, 76, "DeliveryInDoubt", True),
        (b"221 bye", 76, "DeliveryInDoubt", True),
        # Half a reply, and none: the overall time ends it.
        (b"250-queued", 76, "SendTimeout", True),
        (SILENCE, 76, "SendTimeout", True),
        (b"250 ok", 0, None, False),
    ],
)
async def test_a_script_that_runs_again_after_75_sends_one_copy(
    scripted: ScriptedServer,
    shell: Shell,
    reply: bytes,
    status: int,
    error: str | None,
    *,
    in_doubt: bool,
) -> None:
    scripted.replies["."] = reply
    send = f"{COMMAND} send --json --timeout=5 --server {scripted.url} {shell.message}"
    line = f"for n in 1 2 3; do {send}; code=$?; [ $code = 75 ] || break; done; exit $code"
    done = await deferToThread(shell.line, line)
    assert (done.returncode, scripted.received.count(".")) == (status, 1), done.stderr
    (said,) = map(json.loads, done.stdout.splitlines())
    told = said["error"] or {"class": None, "in_doubt": False}
    assert (told["class"], told["in_doubt"]) == (error, in_doubt)
    assert ("in doubt" if in_doubt else "accepted") == said["status"]


@ensureDeferred
async def test_a_421_to_the_content_is_a_temporary_refusal(
    scripted: ScriptedServer, shell: Shell
) -> None:
    scripted.replies["."] = b"421 4.3.2 going down"
    done = await shell.run("send", "--json", "--server", scripted.url, shell.message)
    assert (
        done.status,
        done.json["status"],
        done.json["error"]["in_doubt"],
    ) == (75, "refused", False)
    assert "may have been delivered" not in done.err


@ensureDeferred
async def test_a_server_does_not_control_the_terminal(
    scripted: ScriptedServer, shell: Shell
) -> None:
    """`Shell` looks at every run for control characters; here the server sends some."""
    scripted.replies["RCPT"] = b"550 5.1.1 \x1b[2J\x1b]0;owned\x07 \xe2\x80\xae\xc2\x9b31m no"
    text = await shell.run("send", "--verbose", "--server", scripted.url, shell.message)
    json = await shell.run("send", "--json", "--server", scripted.url, shell.message)
    assert 67 == text.status == json.status
    assert "550 5.1.1 \\x1b[2J" in text.err
    assert "\x1b[2J" in json.json["recipients"][0]["text"]
    assert "\u202e" not in text.err + json.err + json.out


@ensureDeferred
async def test_the_timeout_limits_the_whole_delivery(
    scripted: ScriptedServer, shell: Shell
) -> None:
    scripted.replies["greeting"] = b""
    done = await shell.run("send", "--timeout=0.5", "--server", scripted.url, shell.message)
    assert (done.status, "took more than 0.5 s" in done.err) == (75, True)


@ensureDeferred
async def test_a_message_is_built_from_its_parts(reactor: Any, shell: Shell) -> None:
    attachments = {
        "Bild ä.png": bytes(range(256)),
        "notes.txt": b"a\r\nb\n",
        "x.tar.gz": b"\x1f\x8b",
        "a:b": b";",
    }
    words = ["--from", "Alice Ä <alice@example.org>", "--to", "bob@example.net", "--cc"]
    words += ["Doe, Jane <jane@example.net>".replace("Doe, Jane", '"Doe, Jane"')]
    words += ["--bcc", "secret@example.net", "--subject", "Grüße ✉"]
    for name, content in attachments.items():
        path = shell.write(name, content)
        words += ["--attach", f"text/csv; charset=utf-8:{path}" if name == "a:b" else path]
    words += ["--html", shell.write("page.html", b'<img src="cid:logo.png">'), "--text-file", "-"]
    words += ["--inline", shell.write("logo.png", b"png"), "--reply-to", "office@example.org"]
    words += ["--header", "X-Campaign: spring: 1", "--date", "2026-07-01 12:00 Europe/Berlin"]
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run(
            "send", *options(shell, server), *words, stdin="Hallo Ä\n.\n".encode()
        )
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    assert {str(r) for r in received.recipients} == {
        "bob@example.net",
        "jane@example.net",
        "secret@example.net",
    }
    assert received.content.isascii()
    assert b"secret" not in received.content
    email = received.email
    assert (email["From"], email["Subject"]) == ("Alice Ä <alice@example.org>", "Grüße ✉")
    assert (email["Reply-To"], email["X-Campaign"]) == ("office@example.org", "spring: 1")
    assert email["Date"] == "Wed, 01 Jul 2026 12:00:00 +0200"
    body = email.get_body(["plain"])
    assert body is not None
    assert body.get_content().replace("\r", "") == "Hallo Ä\n.\n"
    parts = list(email.iter_attachments())
    assert attachments == {p.get_filename(): p.get_payload(decode=True) for p in parts}
    assert [p.get_content_type() for p in parts] == [
        "image/png",
        "text/plain",
        "application/octet-stream",
        "text/csv",
    ]
    images = [p.get_filename() for p in email.walk() if p["Content-ID"] == "<logo.png>"]
    assert images == ["logo.png"]


@ensureDeferred
async def test_reports_may_be_asked_for_a_message_from_its_parts(
    reactor: Any, shell: Shell
) -> None:
    words = [
        "--from=Al <a@example.org>",
        "--to=B <b@example.net>",
        "--bcc=c@example.net",
        "--text=x",
    ]
    words += ["--notify=failure,delay", "--ret=hdrs", "--envid=id1"]
    async with LoopbackServer(reactor, users=USERS) as server:
        done = await shell.run("send", *options(shell, server), *words)
        (received,) = server.messages
    assert (done.status, done.err) == (0, "")
    assert (str(received.sender), received.parameters.ret) == ("a@example.org", "HDRS")
    assert received.parameters.envid == "id1"
    assert [(str(each), sorted(each.notify)) for each in received.recipients] == [
        ("b@example.net", ["DELAY", "FAILURE"]),
        ("c@example.net", ["DELAY", "FAILURE"]),
    ]


def test_print_writes_the_message_as_it_would_go_out_and_needs_no_server(shell: Shell) -> None:
    words = ["--from=a@example.org", "--to=b@example.net", "--bcc=c@example.net", "--subject=Hi"]
    done = shell.line(
        f"printf Hi. | {COMMAND} send --print --date=2026-07-01T12:00Z {' '.join(words)}"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.split(b"\r\n")
    assert [line.partition(b":")[0].decode() for line in lines] == [
        "From",
        "To",
        "Subject",
        "Date",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
        "Message-ID",
        "",
        "Hi.",
        "",
    ]
    assert b"Date: Wed, 01 Jul 2026 12:00:00 +0000" in lines
    assert shell.line(f"{COMMAND} send --print {shell.message}").stdout == MESSAGE


@pytest.mark.parametrize("option", ["--to=", "--to= ", "--cc=", "--bcc=", "--reply-to="])
def test_an_empty_address_is_refused(shell: Shell, option: str) -> None:
    """Such as an empty variable: the recipients of the header would take its place."""
    words = ["send", "--print", "--from=a@example.org", "--to=b@example.net", option]
    done = shell.run_now(*words) if "--to" in option else shell.run_now(*words, "--text=x")
    name = option.partition("=")[0]
    problem = f"twisted-sendmail: {name} is empty; give an address, or leave it out\n"
    assert (done.status, done.err) == (64, problem)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--from=a@x.org,b@x.org", "--from 'a@x.org,b@x.org' cannot be used: it holds 2 addresses"),
        ("--reply-to=a@x.org\n", "--reply-to 'a@x.org\\x0a' cannot be used: it holds a line break"),
        ("--subject=a\nb", "--subject 'a\\x0ab' cannot be used: it holds a line break"),
        ("--header=Content-Type:y", "Content-Type in --header cannot be used"),
        ("--header=From:a@x.org", "From is given twice; give it once"),
    ],
)
def test_an_error_about_a_part_names_its_option(shell: Shell, option: str, problem: str) -> None:
    words = ["--from=a@example.org", "--to=b@example.net", "--text=x"]
    done = shell.run_now("send", "--print", *words, option)
    assert problem in done.err


def test_print_on_a_terminal_escapes_control_characters(shell: Shell) -> None:
    message = shell.write("escape.eml", MESSAGE + b"\x1b[31mred\r\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "send", "--print", message], stdout=theirs, stdin=theirs, env=shell.env
    )
    os.close(theirs)
    shown = read_terminal(ours)
    os.close(ours)
    assert process.wait(60) == 0
    assert shown.endswith(b"..dots\r\n\\x1b[31mred\r\n")


@ensureDeferred
async def test_a_large_attachment_takes_little_memory(reactor: Any, shell: Shell) -> None:
    """200 MB cost less than 20 MB over the base; here 32 MB do not show beside what a run varies."""
    path = shell.folder / "large.bin"

    async def peak(size: int) -> int:
        with path.open("wb") as file:
            file.truncate(size)
        words = f"--from=a@example.org --to=b@example.net --text=x --attach={path} --print".split()
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True,"
            " stdout=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-c", code, COMMAND, "send", *words],
            capture_output=True,
            env=shell.env,
            timeout=100,
        )
        return int(done.stdout)

    assert await peak(32 * 1024 * 1024) - await peak(0) < 16 * 1024


@ensureDeferred
async def test_a_closed_pipe_does_not_change_the_result(reactor: Any, shell: Shell) -> None:
    async with LoopbackServer(reactor, users=USERS) as server:
        reading, writing = os.pipe()
        os.close(reading)
        done = await deferToThread(
            subprocess.run,
            [COMMAND, "send", *options(shell, server), shell.message],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=shell.env,
            timeout=60,
        )
        os.close(writing)
    assert (done.returncode, done.stderr, len(server.messages)) == (0, b"", 1)


WITHOUT_SMTPUTF8 = ServerSettings(
    extensions=tuple(word for word in ServerSettings().extensions if word != "SMTPUTF8")
)


@ensureDeferred
@pytest.mark.parametrize(
    ("fields", "body", "note"),
    [
        ("Subject: Gr\u00fc\u00dfe", "x", ""),
        (
            "Subject: Gr\u00fc\u00dfe\nDKIM-Signature: x",
            "x",
            "signature broken: the message was encoded for a server without 8BITMIME or SMTPUTF8\n",
        ),
        (
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
            "y" * 1200,
            "line 5 of the message is longer than the 998 octets of SMTP: a server may change it\n",
        ),
    ],
)
async def test_what_the_server_cannot_take_as_it_is_is_noted(
    reactor: Any, shell: Shell, fields: str, body: str, note: str
) -> None:
    header = f"From: alice@example.org\nTo: bob@example.net\n{fields}\n"
    async with LoopbackServer(reactor, users=USERS, settings=WITHOUT_SMTPUTF8) as server:
        stdin = f"{header}\n{body}\n".encode()
        done = await shell.run("send", *options(shell, server), stdin=stdin)
        (received,) = server.messages
    assert done.status == 0
    assert done.err == (f"twisted-sendmail: {note}" if note else "")
    assert b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" in received.content
    assert received.content.endswith(f"\r\n\r\n{body}\r\n".encode())


@ensureDeferred
async def test_one_recipient_that_needs_smtputf8_is_refused_and_the_others_get_the_message(
    reactor: Any, shell: Shell
) -> None:
    stdin = "From: Gr\u00fc\u00dfe <alice@example.org>\nTo: all:;\n\nx\n".encode()
    to = "--to=bob@example.net,j\u00fcrgen@example.net"
    async with LoopbackServer(reactor, users=USERS, settings=WITHOUT_SMTPUTF8) as server:
        sender = "--from=alice@example.org"
        done = await shell.run("send", *options(shell, server), sender, to, stdin=stdin)
        (received,) = server.messages
    assert [str(each) for each in received.recipients] == ["bob@example.net"]
    assert done.status == 69
    assert "1 of 2 recipients refused" in done.err
    assert (
        "j\u00fcrgen@example.net refused: 553 5.6.7 j\u00fcrgen@example.net is not ASCII"
        in done.err
    )


@pytest.mark.parametrize("header", ["From: a@example.org", "To: b@example.net"])
def test_a_header_without_sender_or_recipient_has_one_status(shell: Shell, header: str) -> None:
    path = shell.folder / "message"
    path.write_text(f"{header}\nSubject: hi\n\nHi.\n")
    done = shell.run_now("send", "--server", "smtp://127.0.0.1:1", str(path))
    assert done.status == 65
    assert "the message has no " in done.err


@pytest.mark.parametrize(
    ("header", "warned"),
    [("To: b@example.net\nFrom: a@example.org\n", True), ("Dear all,\nfrom: now on\n", False)],
)
def test_a_message_that_is_sent_as_text_is_a_warning(
    shell: Shell, header: str, warned: bool
) -> None:
    path = shell.folder / "message"
    path.write_text(f"{header}\nHi.\n")
    words = ["--from=a@example.org", "--to=b@example.net", "--subject=hi", f"--text-file={path}"]
    done = shell.run_now("send", "--server", "smtp://127.0.0.1:1", *words)
    assert done.status == 75
    assert ("warning: the text" in done.err) is warned
