"""What the route of a message tells: dates, hosts of one domain, and where the header ends."""

from __future__ import annotations

from twisted_sendmail.received import HopLink, Trace
from twisted_sendmail.smtp import MAX_HEADER


def trace_of(*fields: str) -> Trace:
    """Return the route of a header, whose first field is the newest."""
    return Trace.parse("".join(f"{field}\r\n" for field in fields))


def test_the_first_date_field_is_when_the_message_was_written() -> None:
    trace = trace_of("Date: 1 Jul 2026 12:00:00 +0000", "Date: 2 Jul 2026 12:00:00 +0000")
    assert trace.written is not None
    assert trace.written.day == 1


def test_the_duration_ends_at_the_last_hop_whatever_its_clock() -> None:
    trace = trace_of(
        "Received: from b.example by c.example; 1 Jul 2026 12:00:07 +0000",
        "Received: from a.example by b.example; 1 Jul 2026 12:00:30 +0000",
        "Date: 1 Jul 2026 12:00:00 +0000",
    )
    assert trace.duration == 7


def test_two_companies_of_one_country_have_no_domain_in_common() -> None:
    trace = trace_of(
        "Received: from mx.one.co.uk by mx.three.example",
        "Received: from a.two.co.uk by mx.two.co.uk",
    )
    assert trace.hops[1].link is HopLink.MISSING


def test_two_hosts_of_one_company_have_its_domain_in_common() -> None:
    trace = trace_of(
        "Received: from out.two.co.uk by mx.three.example",
        "Received: from a.two.co.uk by mx.two.co.uk",
    )
    assert trace.hops[1].link is HopLink.SAME_DOMAIN


def test_a_hop_after_the_limit_of_a_header_is_not_read() -> None:
    filler = f"X-Filler: {'x' * MAX_HEADER}"
    trace = trace_of("Received: by a.example", filler, "Received: by b.example")
    assert [str(hop.host) for hop in trace.hops] == ["a.example"]
