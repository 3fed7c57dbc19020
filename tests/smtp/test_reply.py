"""A reply has one meaning, and is written so that it cannot become two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import EnhancedStatus, Reply


@pytest.mark.parametrize(
    ("code", "positive", "intermediate", "transient", "permanent"),
    [
        (200, True, False, False, False),
        (250, True, False, False, False),
        (299, True, False, False, False),
        (334, False, True, False, False),
        (354, False, True, False, False),
        (421, False, False, True, False),
        (499, False, False, True, False),
        (550, False, False, False, True),
        (599, False, False, False, True),
    ],
)
def test_the_first_digit_decides(
    code: int, positive: bool, intermediate: bool, transient: bool, permanent: bool
) -> None:
    reply = Reply(code)
    assert (positive, intermediate, transient, permanent) == (
        reply.positive,
        reply.intermediate,
        reply.transient,
        reply.permanent,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1 User unknown", EnhancedStatus(5, 1, 1)),
        ("5.1.1", EnhancedStatus(5, 1, 1)),
        ("5.999.999 x", EnhancedStatus(5, 999, 999)),
        ("5.1.1User", None),
        ("5.1 x", None),
        ("5.1.1.1 x", None),
        ("5.1000.1 x", None),
        (" 5.1.1 x", None),
        ("4.1.1 x", None),
        ("2.1.1 x", None),
        ("3.1.1 x", None),
        ("٥.1.1 x", None),
        ("", None),
    ],
)
def test_the_enhanced_status_agrees_with_the_code(
    text: str, expected: EnhancedStatus | None
) -> None:
    assert Reply(550, (text,)).enhanced == expected


@given(st.sampled_from([2, 4, 5]), st.integers(0, 999), st.integers(0, 999))
def test_an_enhanced_status_is_read_back(class_: int, subject: int, detail: int) -> None:
    status = EnhancedStatus(class_, subject, detail)
    assert status == EnhancedStatus.parse(str(status)) == EnhancedStatus.parse(f"{status} text")


def test_a_reply_is_shown_in_one_line() -> None:
    assert str(Reply(550, ("5.1.1 User unknown",))) == "550 5.1.1 User unknown"
    assert str(Reply(250, ("a", "", "b"))) == "250 a / b"
    assert str(Reply(250)) == "250"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_what_is_shown_cannot_act_on_a_terminal(lines: list[str]) -> None:
    shown = str(Reply(550, tuple(lines)))
    assert not set(shown) & set("\r\n\0\x1b\x7f\x85\x9b\u2028\u2029\u202e")


def test_the_text_is_kept_as_it_came() -> None:
    assert Reply(250, ("a\x1b", "b")).text == "a\x1b\nb"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(250), b"250 \r\n"),
        (Reply(250, ("ok",)), b"250 ok\r\n"),
        (Reply(250, ("a", "b", "")), b"250-a\r\n250-b\r\n250 \r\n"),
        (Reply(250, ("ü",)), b"250 \xc3\xbc\r\n"),
        (Reply(250, ()), b"250 \r\n"),
    ],
)
def test_a_reply_on_the_wire(reply: Reply, expected: bytes) -> None:
    assert reply.to_bytes() == expected


@pytest.mark.parametrize("line", ["a\r\n250 b", "a\n", "\r", "a\0b"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_with_a_line_end_is_not_written(line: str, place: int) -> None:
    lines = ["x", "y", "z"]
    lines[place] = line
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Reply(250, tuple(lines)).to_bytes()


@pytest.mark.parametrize("code", [0, 99, 199, 600, 1000, -250])
def test_a_code_out_of_range_is_not_written(code: int) -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        Reply(code, ("x",)).to_bytes()
