"""Headers in the forms of real servers, each with the hops that a person read in it.

A file of ``headers/`` is a header section, an empty line, and the expected hops, the oldest first:
from, by, with, TLS, id, for, date, delay in seconds, link; then the findings: problem, hops, text.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_sendmail.received import Hop, Trace, TraceFinding

HEADERS = sorted((Path(__file__).parent / "headers").glob("*.txt"))


def hop_line(hop: Hop) -> str:
    field = hop.field
    tls = None if field.tls is None else str(field.tls) or "TLS"
    date = None if field.date is None else field.date.isoformat()
    delay = None if hop.delay is None else f"{hop.delay:.0f}"
    columns = (field.from_, field.by, field.with_, tls, field.id, field.for_, date, delay)
    return " | ".join("-" if each is None else str(each) for each in (*columns, hop.link.value))


def finding_line(finding: TraceFinding) -> str:
    return f"{finding.problem.value} | {' '.join(map(str, finding.hops))} | {finding.text}"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.stem)
def test_the_hops_of_a_header_are_read(path: Path, line_end: str) -> None:
    header, _, expected = path.read_text("utf-8").partition("\n\n")
    trace = Trace.parse(header.replace("\n", line_end) + 2 * line_end + "Received: in the body")
    actual = [*map(hop_line, trace.hops), *map(finding_line, trace.findings)]
    assert actual == expected.splitlines()


def test_a_header_needs_no_body() -> None:
    for end in ("", "\n", "\n\n", "\r\n\r\n"):
        trace = Trace.parse(f"\n\nSubject: a\nReceived: by mx.example.org{end}")
        assert [str(hop.host) for hop in trace.hops] == ["mx.example.org"]


def test_any_text_is_a_header() -> None:
    for odd in ("\udc80", "\ud800"):
        (hop,) = Trace.parse(f"Received: from {odd} by mx.example.org").hops
        assert str(hop.host) == "mx.example.org"


def test_there_are_twenty_headers() -> None:
    assert len(HEADERS) >= 20
