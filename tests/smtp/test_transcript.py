"""A transcript shows the beginning and the end of a dialogue, and is bounded in memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import Reply
from twisted_sendmail.smtp import Transcript
from twisted_sendmail.smtp.transcript import HEAD_LINES, LINE_WIDTH, TAIL_LINES


def test_lines_are_shown_with_their_side_and_escaped() -> None:
    transcript = Transcript()
    transcript.add("--", "connected")
    transcript.add_reply(Reply(250, ("a", "b\x1b[2J")))
    transcript.add_group(b"MAIL FROM:<a@x>\r\nBDAT 5 LAST\r\n", 5)
    transcript.add_content(7)
    assert list(transcript) == [
        "-- connected",
        "S: 250-a",
        "S: 250 b\\x1b[2J",
        "C: MAIL FROM:<a@x>",
        "C: BDAT 5 LAST",
        "-- 5 octets of content",
        "-- 7 octets of content",
        "C: .",
    ]
    assert len(transcript) == 8
    assert repr(transcript) == "<Transcript of 8 lines>"


def test_the_middle_of_a_long_dialogue_is_left_out() -> None:
    transcript = Transcript()
    for number in range(1000):
        transcript.add("C", f"NOOP {number}")
    lines = list(transcript)
    left_out = 1000 - HEAD_LINES - TAIL_LINES
    assert [f"C: NOOP {number}" for number in range(HEAD_LINES)] == lines[:HEAD_LINES]
    assert lines[HEAD_LINES] == f"-- {left_out} lines left out"
    assert [f"C: NOOP {number}" for number in range(1000 - TAIL_LINES, 1000)] == lines[-TAIL_LINES:]
    assert len(transcript) == HEAD_LINES + TAIL_LINES


ADDED = st.lists(
    st.one_of(
        st.builds(lambda n: Reply(250, ("x",) * n), st.integers(1, 30)),
        st.integers(1, 20).map(lambda n: (b"RCPT TO:<a@x>\r\n" * n, n % 2)),
        st.text(max_size=300),
    ),
    max_size=60,
)


@given(ADDED)
def test_who_watches_sees_every_line_and_who_looks_the_first_and_the_last(
    added: list[Reply | tuple[bytes, int] | str],
) -> None:
    seen: list[str] = []
    transcript = Transcript(seen.append)
    for each in added:
        if isinstance(each, Reply):
            transcript.add_reply(each)
        elif isinstance(each, tuple):
            wire, octets = each
            transcript.add_group(wire, octets)
        else:
            transcript.add("S", each)
    lines = list(transcript)
    assert repr(transcript) == f"<Transcript of {len(seen)} lines>"
    assert seen[:HEAD_LINES] == lines[:HEAD_LINES]
    assert seen[-TAIL_LINES:] == lines[-TAIL_LINES:]
    assert len(lines) - len(transcript) in {0, 1}
    left_out = [line for line in lines if line.endswith("lines left out")]
    assert len(seen) - len(transcript) == sum(int(line.split()[1]) for line in left_out)


def test_long_lines_and_long_replies_cost_little_memory() -> None:
    tracemalloc.start()
    transcript = Transcript()
    for number in range(1000):
        transcript.add_reply(Reply(250, (f"{number}" + "x" * 7000,) * 16))
        transcript.add_group(b"X" * 100_000 + b"\r\n", 0)
        transcript.add("S", "y" * 100_000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000
    assert all(len(line) <= LINE_WIDTH + 40 for line in transcript)
