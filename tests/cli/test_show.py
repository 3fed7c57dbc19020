"""`twisted-sendmail show` tells what a message is made of, safely on a terminal."""

from __future__ import annotations

from tests.cli.shell import Shell
from twisted_sendmail import Attachment, compose

MESSAGE = compose(
    sender="Jürgen <a@example.org>",
    to="b@example.net",
    subject="Grüße",
    text="Hello.\n",
    html='<img src="cid:logo">',
    inline={"logo": Attachment(b"png", "logo.png")},
    attachments=[Attachment(b"x" * 1234, "Übersicht.pdf")],
).as_bytes()


def test_a_message_is_shown_as_header_tree_and_attachments(shell: Shell) -> None:
    done = shell.run_now("show", shell.write("letter.eml", MESSAGE))
    assert (done.status, done.err) == (0, "")
    header, tree, attachments = done.out.split("\n\n")
    assert header.splitlines()[:3] == [
        "From: Jürgen <a@example.org>",
        "To: b@example.net",
        "Subject: Grüße",
    ]
    assert tree.splitlines() == [
        "multipart/mixed, 1,267 octets",
        "├─ multipart/alternative, 33 octets",
        "│  ├─ text/plain (utf-8), 8 octets",
        "│  └─ multipart/related, 25 octets",
        "│     ├─ text/html (utf-8), 22 octets",
        "│     └─ image/png, 'logo.png', 3 octets, inline, cid:logo",
        "└─ application/pdf, 'Übersicht.pdf', 1,234 octets, attachment",
    ]
    assert attachments.splitlines() == [
        "2 attachments, 1,237 octets:",
        "  'logo.png', image/png, 3 octets",
        "  'Übersicht.pdf', application/pdf, 1,234 octets",
    ]


def test_the_json_has_the_same_for_programs(shell: Shell) -> None:
    found = shell.run_now("show", "--json", "-", stdin=MESSAGE).json
    assert found["header"][2] == ["Subject", "Grüße"]
    assert found["parts"][1]["disposition"] == "attachment"
    assert found["attachments"][1] == {
        "name": "Übersicht.pdf",
        "media_type": "application/pdf",
        "size": 1234,
    }


def test_a_hostile_message_does_not_control_the_terminal(shell: Shell) -> None:
    hostile = (
        b"Subject: =?utf-8?q?=1B]0;owned=07_=E2=80=AE?=\nX: \x1b[2J\x9b\n"
        b'Content-Type: a/\x1b[31m; charset="\x07"\n'
        b"Content-Disposition: attachment; filename*=utf-8''..%2F..%2F%0Aetc%1B%5B2J\n\nx"
    )
    done = shell.run_now("show", stdin=hostile)
    assert (done.status, done.err) == (0, "")
    assert "Subject: \\x1b]0;owned\\x07 \\u202e" in done.out
    assert "'../../\\x0aetc\\x1b[2J'" in done.out


def test_a_file_that_is_absent_or_empty_is_one_line(shell: Shell) -> None:
    absent, empty = shell.run_now("show", "absent.eml"), shell.run_now("show")
    assert (absent.status, empty.status) == (66, 65)
    assert absent.err == (
        "twisted-sendmail: the message absent.eml cannot be read: No such file or directory\n"
    )
    assert empty.err == "twisted-sendmail: the message is empty\n"
