"""A message composed from its parts is well-formed and ASCII, and large files in it stay on the disk."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import content, from_header
from twisted_sendmail import Attachment, InvalidInput, InvalidMessage, Mailbox, compose
from twisted_sendmail.message import prepare

LARGE = bytes(range(256)) * 4096  # 1 MiB


def read_back(message: EmailMessage) -> EmailMessage:
    octets = message.as_bytes()
    assert octets.isascii()
    return message_from_bytes(octets, policy=policy.default)


def test_a_text_alone_is_no_multipart() -> None:
    message = compose(sender="a@example.org", to=["b@example.net"], subject="hi", text="Hi.\n")
    back = read_back(message)
    assert (
        back["From"],
        back["To"],
        back["Subject"],
        back.get_content_type(),
    ) == ("a@example.org", "b@example.net", "hi", "text/plain")


def test_what_is_not_given_has_no_field() -> None:
    message = compose(sender="a@example.org", to=["b@example.net"])
    assert set(message.keys()) == {
        "From",
        "To",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    }


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
)
def test_subject_and_text_come_back(subject: str, text: str) -> None:
    message = compose(sender="a@example.org", to=["b@example.net"], subject=subject, text=text)
    back = read_back(message)
    expected = text if text.endswith("\n") else text + "\n"
    assert back.get_content().replace("\r\n", "\n") == expected
    assert " ".join(subject.split()) == " ".join(str(back["Subject"] or "").split())


@given(st.binary(max_size=2000))
def test_an_attachment_comes_back_octet_by_octet(content: bytes) -> None:
    message = compose(
        sender="a@example.org",
        to=["b@example.net"],
        text="see there",
        attachments=[Attachment(content, "ä b.bin"), Attachment(content, "t.txt")],
    )
    first, second = read_back(message).iter_attachments()
    assert ("ä b.bin", "application/octet-stream", content) == (
        first.get_filename(),
        first.get_content_type(),
        first.get_payload(decode=True),
    )
    assert ("t.txt", content) == (second.get_filename(), second.get_payload(decode=True))


@pytest.mark.parametrize("kind", ["message/rfc822", "multipart/mixed"])
def test_a_message_goes_as_octets(kind: str) -> None:
    """What may not be encoded (RFC 2046 section 5) would not arrive as it is."""
    content = b"Subject: x\n\n\xff\n"
    message = compose(sender="a@b", to=["c@d"], attachments=[Attachment(content, "x.eml", kind)])
    (part,) = read_back(message).iter_attachments()
    assert ("application/octet-stream", content) == (
        part.get_content_type(),
        part.get_payload(decode=True),
    )


@pytest.mark.parametrize("field", ["sender", "subject", "to", "cc", "bcc"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0"])
def test_nothing_gets_out_of_its_field(field: str, end: str) -> None:
    text = f"x@example.org{end}Bcc: y@example.org"
    fields = {"sender": "a@example.org", "to": ["b@example.net"]}
    fields[field] = [text] if field in {"to", "cc", "bcc"} else text
    with pytest.raises(
        InvalidInput, match="it holds a line break or control character; give it in one"
    ):
        compose(**fields)  # type: ignore[arg-type]  # built by name


@pytest.mark.parametrize(
    ("name", "kind"), [("", "text/plain"), ("a\nb", "text/plain"), ("a", "text"), ("a", "a/b\r\n")]
)
def test_an_attachment_that_cannot_be_named(name: str, kind: str) -> None:
    with pytest.raises(InvalidMessage, match="cannot be used"):
        Attachment(b"", name, kind)


def a_message(**arguments: Any) -> EmailMessage:
    return compose(**{"sender": "a@example.org", "to": "b@example.net", **arguments})


def tree(part: Any) -> Any:
    """The media types of a message, each multipart with those of its parts."""
    kind = part.get_content_type()
    return (kind, *map(tree, part.iter_parts())) if part.is_multipart() else kind


# -- the body -----------------------------------------------------------------


def test_text_html_images_and_attachments_have_the_structure_that_readers_expect() -> None:
    message = a_message(
        text="Hello.",
        html='<p>Hello.</p><img src="cid:logo">',
        inline={"logo": Attachment(b"png", "logo.png")},
        attachments=[Attachment(b"%PDF", "invoice.pdf")],
    )
    back = read_back(message)
    html = ("multipart/related", "text/html", "image/png")
    assert tree(back) == (
        "multipart/mixed",
        ("multipart/alternative", "text/plain", html),
        "application/pdf",
    )
    related, image = [part for part in back.walk() if part["Content-ID"] or part.get_param("type")]
    assert related.get_param("type") == "text/html"
    assert (image["Content-ID"], image.get_content_disposition()) == ("<logo>", "inline")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "text/plain"),
        ({"html": "<p>"}, "text/html"),
        ({"text": "", "html": "<p>"}, ("multipart/alternative", "text/plain", "text/html")),
        (
            {"html": "<img src=cid:x>", "inline": {"x": Attachment(b"", "x.gif")}},
            ("multipart/related", "text/html", "image/gif"),
        ),
    ],
)
def test_a_body_has_no_more_parts_than_it_needs(arguments: Any, expected: Any) -> None:
    assert tree(read_back(a_message(**arguments))) == expected


def test_nul_in_a_text_is_encoded() -> None:
    assert read_back(a_message(text="a\0b")).get_content() == "a\0b\r\n"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("a.png", None, "image/png"),
        ("a.txt.gz", None, "application/octet-stream"),
        ("a", None, "application/octet-stream"),
        ("a", "text/csv; charset=utf-8", 'text/csv; charset="utf-8"'),
        ("a", 'text/calendar;method="REQUEST"', 'text/calendar; method="REQUEST"'),
    ],
)
def test_the_type_of_an_attachment_is_given_or_guessed(
    name: str, given: str | None, expected: str
) -> None:
    (part,) = read_back(a_message(attachments=[Attachment(b"x", name, given)])).iter_attachments()
    assert part["Content-Type"] == expected


NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1)


@given(NAMES.filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255))
def test_the_name_of_an_attachment_comes_back(name: str) -> None:
    (part,) = read_back(a_message(attachments=[Attachment(b"x", name)])).iter_attachments()
    assert part.get_filename() == name


# -- the header ---------------------------------------------------------------


ARGUMENTS = {
    "sender": "From",
    "to": "To",
    "reply_to": "Reply-To",
    "subject": "Subject",
    "in_reply_to": "In-Reply-To",
    "list_unsubscribe": "List-Unsubscribe",
    "X-Note": "X-Note",
    "List-Id": "List-Id",
    "Keywords": "Keywords",
    "Sender": "Sender",
    "Date": "Date",
}
AWKWARD = st.one_of(
    st.text(),
    st.text('ab @<>,;:"\\()=?\r\n\0', max_size=40),
    st.builds("{}{}".format, st.text(max_size=5), st.sampled_from(["x" * 2000, "ü" * 2000])),
    st.builds("{} <c@example.org>".format, st.text(max_size=9)),
)


@given(st.sampled_from(sorted(ARGUMENTS)), AWKWARD)
def test_any_argument_makes_one_field_or_is_refused_in_one_line(argument: str, value: str) -> None:
    usual: dict[str, Any] = {"sender": "a@example.org", "to": "b@example.net"}
    by_name = argument in {"X-Note", "List-Id", "Keywords", "Sender", "Date"}
    given = {"headers": {argument: value}} if by_name else {argument: value}
    try:
        message = compose(**{**usual, **given})
    except InvalidInput as e:
        refused = str(e)
    else:
        check_message(content(from_header(message)), argument)
        return
    assert refused.splitlines() == [refused]


def check_message(octets: bytes, argument: str) -> None:
    """Assert that *octets* have only the field of *argument* and those that every message has."""
    header = octets.partition(b"\r\n\r\n")[0]
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    names = {line.partition(b":")[0] for line in header.split(b"\r\n") if line[:1] not in b" \t"}
    always = "From Date Message-ID MIME-Version Content-Type Content-Transfer-Encoding To"
    extra = {"References"} if argument == "in_reply_to" else set()
    assert {name.decode() for name in names} <= {*always.split(), ARGUMENTS[argument], *extra}


@pytest.mark.parametrize(
    "subject", ["=?utf-8?q?spoofed?=", "=? a ?= b", "w" * 2000, "ü" * 2000, "a " * 500 + "b"]
)
def test_a_subject_is_what_the_reader_sees(subject: str) -> None:
    message = a_message(subject=subject)
    assert max(map(len, message.as_bytes().split(b"\r\n"))) <= 78
    assert str(read_back(message)["Subject"]) == subject


@pytest.mark.parametrize("token", ['{"unique_args":{"campaign":"' + "x" * 300 + '"}}', "t" * 900])
def test_a_token_that_programs_read_stays_as_it_is(token: str) -> None:
    sent = content(from_header(a_message(headers={"X-Token": token})))
    assert f"\r\nX-Token: {token}\r\n".encode() in sent


def test_addresses_may_be_texts_or_objects_alone_or_in_a_list() -> None:
    address = Address("Müller, Jürgen", "j", "example.net")
    message = a_message(
        sender=address, to=Mailbox.parse("m@example.net"), cc=["C <c@d.org>", "e@f"]
    )
    back = read_back(message)
    assert (str(back["From"]), str(back["To"]), str(back["Cc"])) == (
        '"Müller, Jürgen" <j@example.net>',
        "m@example.net",
        "C <c@d.org>, e@f",
    )


@pytest.mark.parametrize("name", ["=?utf-8?q?admin=40example=2Ecom?=", "a =?utf-8?q?x?= b", "=?"])
def test_a_name_that_looks_encoded_is_what_the_reader_sees(name: str) -> None:
    message = a_message(sender=Address(name, "jane", "example.org"))
    back = message_from_bytes(content(from_header(message)), policy=policy.default)
    (address,) = back["From"].addresses
    assert (address.display_name, address.addr_spec) == (name, "jane@example.org")


def test_bcc_names_recipients_and_is_not_sent() -> None:
    message = a_message(bcc="secret@example.net")
    prepared = from_header(message)
    assert [str(each) for each in prepared.envelope.recipients] == [
        "b@example.net",
        "secret@example.net",
    ]
    assert b"secret" not in content(prepared)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (
            datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")),
            "Wed, 01 Jul 2026 12:00:00 +0200",
        ),
        (datetime(2026, 7, 1, 12, tzinfo=timezone.utc), "Wed, 01 Jul 2026 12:00:00 +0000"),
        (
            datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(minutes=53, seconds=28))),
            "Wed, 01 Jul 2026 11:59:32 +0053",
        ),
    ],
)
def test_a_date_shows_its_zone(date: datetime, expected: str) -> None:
    assert f"\r\nDate: {expected}\r\n".encode() in a_message(date=date).as_bytes()


def test_an_answer_refers_to_the_message_that_it_answers() -> None:
    alone = a_message(in_reply_to="<1@example.org>")
    assert (alone["In-Reply-To"], alone["References"]) == ("<1@example.org>", "<1@example.org>")
    thread = a_message(in_reply_to="<2@example.org>", references=["<1@e.org>", "<2@example.org>"])
    assert thread["References"] == "<1@e.org> <2@example.org>"


def test_one_click_has_both_fields_of_rfc_8058() -> None:
    uris = ["https://example.org/leave?a=1,b", "mailto:leave@example.org"]
    octets = a_message(list_unsubscribe=uris, one_click=True).as_bytes()
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in octets
    value = b"<https://example.org/leave?a=1,b>, <mailto:leave@example.org>"
    assert b"\r\nList-Unsubscribe: " + value in octets.replace(b"\r\n <", b" <")


LOGO = {"logo": Attachment(b"", "logo.png")}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "two senders": ({"sender": "a@b, c@d"}, "it holds 2 addresses; give one"),
    "no sender": ({"sender": ()}, "it holds 0 addresses; give one"),
    "a name with a comma": ({"to": "Doe, Jane <j@example.org>"}, "address 'Doe' in To"),
    "no address": ({"reply_to": "nobody"}, "write it as user@example.org"),
    "date without zone": ({"date": datetime(2026, 1, 1)}, r"give date.astimezone\(\)"),  # noqa: DTZ001 - that is it
    "date as text": ({"date": "today"}, "give a datetime"),
    "old date": ({"date": datetime(1850, 1, 1, tzinfo=timezone.utc)}, "give a later one"),
    "date before 1900 in its zone": (
        {"date": datetime(1900, 1, 1, tzinfo=timezone(timedelta(seconds=29)))},
        "give a later one",
    ),
    "last date": (
        {"date": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))},
        "give it with another time zone",
    ),
    "zone of a day": (
        {"date": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=24, microseconds=-1)))},
        "give it with another time zone",
    ),
    "message id": ({"in_reply_to": "1@example.org"}, "write it as <id@example.org>"),
    "references": ({"references": ["<a b@c>"]}, "write it as <id@example.org>"),
    "one click without URI": ({"one_click": True}, "exactly one https URI"),
    "one click by http": (
        {"one_click": True, "list_unsubscribe": ["http://e.org/", "https://e.org/"]},
        "exactly one https URI",
    ),
    "javascript": ({"list_unsubscribe": "javascript:alert(1)"}, "write https://"),
    "no host": ({"list_unsubscribe": "https:///x"}, "write https://"),
    "unencoded URI": ({"list_unsubscribe": "https://e.org/ü"}, "percent-encoded"),
    "twice": ({"headers": {"to": "x@example.org"}}, "to is given twice; leave it out of headers"),
    "Content-Type": ({"headers": {"Content-Type": "text/x"}}, "leave it out"),
    "no field name": ({"headers": {"X Y": "z"}}, "write it as X-Campaign"),
    "field name with a line": ({"headers": {"X\r\nBcc": "z"}}, "write it as X-Campaign"),
    "a date in headers": ({"headers": {"Date": "now"}}, "write it as Thu, 1 Jan"),
    "long word": ({"headers": {"List-Id": "x" * 1200}}, "too long for a line; shorten it"),
    "headers as a list": ({"headers": ["X: y"]}, "give a dict"),
    "no such image": (
        {"html": '<img src="cid:logo">'},
        "shows cid:logo, which is not there; give the image",
    ),
    "image not shown": ({"html": "<p>", "inline": LOGO}, 'write <img src="cid:logo">'),
    "image without html": ({"inline": LOGO}, 'write <img src="cid:logo">'),
    "cid": ({"html": "cid:a b", "inline": {"a b": LOGO["logo"]}}, "as in cid:logo"),
    "inline as a list": ({"inline": [LOGO["logo"]]}, "give a dict"),
    "text as bytes": ({"text": b"x"}, "text cannot be bytes; give text"),
    "html surrogate": ({"html": "\udcff"}, "decode it with the right encoding"),
    "path as text": ({"attachments": ["a.pdf"]}, "give a Path, or Attachment"),
    "one attachment": ({"attachments": LOGO["logo"]}, "give a list of paths"),
    "no file": ({"attachments": [Path("absent.pdf")]}, "attachment absent.pdf cannot be read"),
    "folder": (
        {"attachments": [Path("tests")]},
        "^attachment tests cannot be used: it is no regular file; name a file$",
    ),
    "no device": ({"attachments": [Path("/dev/zero")]}, "zero cannot be used: it is no regular"),
}


@pytest.mark.parametrize(("arguments", "problem"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_remedy(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        _ = a_message(**arguments)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("../../etc/passwd", "give the name of the file alone"),
        ("C:\\autoexec.bat", "give the name of the file alone"),
        ("..", "give the name of the file alone"),
        ("photo\u202egpj.exe", "rename it, or give another name"),
        ("x" * 256, "rename it, or give another name"),
        ("", "give a name"),
    ],
)
def test_a_name_that_leaves_its_folder_or_deceives_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(InvalidMessage, match=remedy):
        _ = Attachment(b"", name)


@pytest.mark.parametrize("octets", [bytearray(b"%PDF"), memoryview(b"%-P-D-F")[::2]])
def test_octets_of_a_database_are_attached_as_they_are_now(octets: Any) -> None:
    attachment = Attachment(octets, "a.pdf")
    if isinstance(octets, bytearray):
        octets.clear()
    (part,) = a_message(attachments=[attachment]).iter_attachments()
    assert part.get_content() == b"%PDF"


def test_an_attachment_that_was_written_and_not_rewound_is_not_an_empty_one(tmp_path: Path) -> None:
    in_memory = io.BytesIO()
    with (tmp_path / "report").open("w+b") as on_disk:
        for file in (in_memory, on_disk):
            file.write(b"name;amount\n")
            with pytest.raises(InvalidMessage, match=r"is at its end; rewind it with seek\(0\)$"):
                a_message(attachments=[Attachment(file, "report.csv")])
            file.seek(0)
            (part,) = a_message(attachments=[Attachment(file, "a.bin")]).iter_attachments()
            assert part.get_content() == b"name;amount\n"


# -- invitations --------------------------------------------------------------

INVITATION = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example.org//meetings//EN
METHOD:REQUEST
BEGIN:VEVENT
SUMMARY:Besprechung im Café
END:VEVENT
END:VCALENDAR
"""


def structure(part: Any) -> Any:
    kind = part.get_content_type()
    return (kind, *map(structure, part.iter_parts())) if part.is_multipart() else kind


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "text/calendar"),
        ({"text": "Hi."}, ("multipart/alternative", "text/plain", "text/calendar")),
        ({"html": "<p>"}, ("multipart/alternative", "text/html", "text/calendar")),
        (
            {
                "text": "Hi.",
                "html": '<img src="CID:logo">',
                "inline": {"logo": Attachment(b"x", "logo.png")},
                "attachments": [Attachment(b"x", "plan.pdf")],
            },
            (
                "multipart/mixed",
                (
                    "multipart/alternative",
                    "text/plain",
                    ("multipart/related", "text/html", "image/png"),
                    "text/calendar",
                ),
                "application/pdf",
            ),
        ),
    ],
)
def test_an_invitation_is_the_last_alternative(arguments: Any, expected: Any) -> None:
    message = compose(sender="a@example.org", calendar=INVITATION, **arguments)
    back = read_back(message)
    assert structure(back) == expected
    (part,) = [each for each in back.walk() if each.get_content_subtype() == "calendar"]
    assert part["Content-Type"].params == {"charset": "utf-8", "method": "REQUEST"}
    assert part.get_content().splitlines() == INVITATION.splitlines()


@pytest.mark.parametrize(
    "calendar",
    [
        "",
        "Lunch at noon",
        INVITATION.replace("METHOD", "X-NONE"),
        # Letters beyond ASCII that are one of it in the other case.
        INVITATION.replace("METHOD:REQUEST", "METHOD:REQUE\u017fT"),
        INVITATION.replace("METHOD:REQUEST", "METHOD:\u212a"),
    ],
)
def test_an_invitation_needs_a_method(calendar: str) -> None:
    with pytest.raises(InvalidInput, match="add METHOD:REQUEST for an invitation"):
        compose(sender="a@example.org", calendar=calendar)


# -- large files --------------------------------------------------------------


def large_file(folder: Path) -> Path:
    path = folder / "large.bin"
    path.write_bytes(LARGE)
    return path


def opened_at_3(path: Path) -> io.BufferedReader:
    file = path.open("rb")
    file.seek(3)
    return file


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "open file": opened_at_3,
    "octets in memory": lambda path: io.BytesIO(path.read_bytes()),
    "compressed": lambda path: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(path.read_bytes()))),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_large_file_arrives_octet_by_octet_each_time(tmp_path: Path, source: Any) -> None:
    given = source(large_file(tmp_path))
    expected = LARGE[3:] if isinstance(given, io.BufferedReader) else LARGE
    message = a_message(attachments=[Attachment(given, "ä.bin"), Attachment(b"x", "small")])
    if hasattr(given, "close"):
        given.close()
    for _ in range(2):
        prepared = from_header(message)
        octets = content(prepared)
        back = message_from_bytes(octets, policy=policy.default)
        large, small = back.iter_attachments()
        assert (large.get_filename(), large.get_content(), small.get_content()) == (
            "ä.bin",
            expected,
            b"x",
        )
        assert max(map(len, octets.split(b"\r\n"))) <= 78


def test_the_methods_of_the_library_read_a_large_file(tmp_path: Path) -> None:
    message = a_message(attachments=[large_file(tmp_path)])
    (part,) = message.iter_attachments()
    assert part.get_content() == LARGE
    (back,) = read_back(message).iter_attachments()
    assert back.get_content() == LARGE
    part.set_payload("bmV3")
    (back,) = message_from_bytes(
        content(from_header(message)), policy=policy.default
    ).iter_attachments()
    assert back.get_content() == b"new"


def test_a_large_attachment_takes_little_memory(tmp_path: Path) -> None:
    size = 32 * 1024 * 1024
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(size)

    async def read() -> int:
        message = await prepare(a_message(attachments=[path]), now=0)
        total = 0
        while piece := await message.read():
            total += len(piece)
        return total

    tracemalloc.start()
    try:
        coroutine = read()
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.value.value > size * 4 // 3
    assert peak < 6 * 1024 * 1024


def test_a_file_that_grew_is_sent_as_it_was(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    message = a_message(attachments=[path])
    with path.open("ab") as file:
        file.write(b"a later line")
    back = message_from_bytes(content(from_header(message)), policy=policy.default)
    assert next(back.iter_attachments()).get_content() == LARGE


@pytest.mark.parametrize("change", ["removed", "replaced", "truncated"])
def test_a_file_that_is_not_what_it_was_is_an_error(tmp_path: Path, change: str) -> None:
    path = large_file(tmp_path)
    message = a_message(attachments=[path])
    if change == "truncated":
        os.truncate(path, 100_000)
    else:
        path.rename(tmp_path / "moved")
    if change == "replaced":
        path.write_bytes(LARGE)
    with pytest.raises(InvalidMessage, match=r"attachment large\.bin (cannot be read|changed)"):
        content(from_header(message))
