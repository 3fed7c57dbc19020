"""A Received field is parsed and written: nothing raises, nothing is lost, dates are aware."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_sendmail import InvalidInput
from twisted_sendmail.received import ReceivedField, Trace, TraceHost, TraceTLS

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
BY = TraceHost("mx.example.org")

PIECES = st.sampled_from(
    [
        *("from ", "by ", "via ", "with ", "id ", "for ", "tls ", "FROM\t", "from", "\r\n\t", " "),
        *("(", ")", '"', "\\", "[", "]", "<", ">", ";", "; ", ",", "=", ":", "@", "%", "\0", "\r"),
        *(
            "192.0.2.1",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "[256.1.1.1]",
            "HELO ",
            "helo=",
            "EHLO ",
        ),
        *("TLSv1.3", "TLS1_2:", "cipher=", " encrypted ", "bits=", "(256/256 bits)", "AES-256"),
        *("Mon, 1 Jan 2026 00:00:00", "+0100", "-0000", "+9999", "EST", "2026-01-01T00:00:00Z"),
        *("9" * 500, "31 Feb 9999 24:61:61", "1 Jan 0001 00:00:00 +2359", "1.2.3", "é", "\udcff"),
        *("mx.example.org", "a", "unknown", "Received:"),
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=12).map("".join))


@given(TEXTS)
def test_any_text_is_parsed_and_kept(text: str) -> None:
    field = ReceivedField.parse(text)
    assert field.raw == text
    assert field.date is None or field.date.utcoffset() is not None


@given(st.binary(max_size=300))
def test_any_octets_are_parsed_and_kept(octets: bytes) -> None:
    field = ReceivedField.parse(octets)
    assert field.raw.encode("utf-8", "surrogateescape") == octets


@given(st.lists(st.one_of(TEXTS, st.just("\r\nReceived: "), st.just("\r\nDate: ")), max_size=12))
def test_any_header_has_a_trace(texts: list[str]) -> None:
    trace = Trace.parse("".join(texts).encode("utf-8", "surrogatepass"))
    assert [hop.number for hop in trace.hops] == list(range(1, len(trace.hops) + 1))


HOSTILE = [
    "(",
    ")",
    '"',
    "\\",
    "[",
    "<",
    ";",
    "a",
    "()",
    "(;",
    '"(',
    '\\"',
    "(a",
    "[[",
    "HELO=",
    "A-",
    "a@",
    "TLSv1.",
    "bits=1",
    "cipher=A-",
]
HOSTILE += ["from (", "from by ", "[a ", '"a" ', "A-B encrypted ", "1 Jan 26 1:1; "]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("frame", ["from x ({}) by y", "by x; {}"])
def test_a_long_field_takes_no_more_than_linear_time(piece: str, frame: str) -> None:
    """A search that is quadratic would not end within the time limit of the whole run."""
    text = frame.format(piece * (100_000 // len(piece)))
    assert ReceivedField.parse(text).raw == text


NAMES = st.sampled_from(["h.example", "1.example.org", "by", "x-y_z", "é.example"])
ADDRESSES = st.sampled_from(["192.0.2.1", "2001:db8::1", "::1"])
COMMENTS = st.lists(
    st.sampled_from(["Postfix", "invoked by uid 1000", "may be forged"]), max_size=2
)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FIELDS = st.builds(
    ReceivedField,
    from_=st.none()
    | st.builds(
        TraceHost,
        NAMES,
        st.none(),
        st.none() | ADDRESSES,
        COMMENTS.map(tuple),
    )
    | st.builds(TraceHost, NAMES, NAMES, ADDRESSES),
    by=st.builds(TraceHost, NAMES, comments=COMMENTS.map(tuple)),
    via=st.none() | st.just("TCP"),
    with_=st.sampled_from(["ESMTP", "ESMTPSA", "LMTP", "UTF8SMTPS"]),
    id=st.none() | NAMES,
    for_=st.none() | st.just("bob@example.org"),
    date=st.builds(datetime.fromtimestamp, st.integers(0, 4_000_000_000), ZONES),
    tls=st.none()
    | st.builds(
        TraceTLS,
        st.sampled_from(["TLSv1", "TLSv1.2", "TLSv1.3"]),
        st.sampled_from([None, "TLS_AES_256_GCM_SHA384"]),
        st.none(),
    )
    | st.just(TraceTLS("TLSv1.2", "ECDHE-RSA-AES256-SHA", 256)),
)


@settings(max_examples=40)
@given(FIELDS)
def test_a_field_that_is_written_is_parsed_again(field: ReceivedField) -> None:
    written = field.encode()
    assert written.endswith(b"\r\n")
    assert b"\n" not in written.replace(b"\r\n\t", b"").rstrip(b"\r\n")
    assert ReceivedField.parse(written) == field
    assert field.date == ReceivedField.parse(written).date


def test_a_whole_field_is_written() -> None:
    field = ReceivedField(
        from_=TraceHost("client.example.net", "gw.example.net", "2001:db8::1"),
        by=TraceHost("mx.example.org", comments=("relay",)),
        via="TCP",
        with_="ESMTPSA",
        id="ABC123",
        for_="bob@example.org",
        tls=TraceTLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256),
        date=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5))),
    )
    assert field.encode() == (
        b"Received: from client.example.net (gw.example.net [IPv6:2001:db8::1])\r\n"
        b"\tby mx.example.org (relay) via TCP\r\n"
        b"\twith ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384 bits=256) id ABC123\r\n"
        b"\tfor <bob@example.org>; Fri, 02 Jan 2026 03:04:05 -0500\r\n"
    )


@pytest.mark.parametrize(
    "field",
    [
        ReceivedField(by=BY),
        ReceivedField(date=DATE),
        ReceivedField(by=BY, date=DATE.replace(tzinfo=None)),
        ReceivedField(by=TraceHost("a b"), date=DATE),
        ReceivedField(by=TraceHost("a", "x\r\ny"), date=DATE),
        ReceivedField(by=TraceHost("a", address="1)("), date=DATE),
        ReceivedField(by=TraceHost("a", comments=("(",)), date=DATE),
        ReceivedField(by=BY, with_="Microsoft SMTP Server", date=DATE),
        ReceivedField(by=BY, with_="ESMTPS", tls=TraceTLS("1)"), date=DATE),
        ReceivedField(by=BY, comments=("a",), date=DATE),
        ReceivedField(by=BY, id="a;b", date=DATE),
        ReceivedField(by=BY, for_="a\nb", date=DATE),
    ],
    ids=repr,
)
def test_a_value_that_would_break_the_field_is_refused(field: ReceivedField) -> None:
    with pytest.raises(InvalidInput):
        field.encode()


@pytest.mark.parametrize(
    ("text", "expected", "assumed"),
    [
        ("Fri, 2 Jan 2026 03:04:05 -0000", "2026-01-02T03:04:05+00:00", False),
        ("Fri, 2 Jan 2026 03:04:05", "2026-01-02T03:04:05+00:00", True),
        ("Fri, 2 Jan 2026 03:04:05 CEST", "2026-01-02T03:04:05+00:00", True),
        ("Fri, 2 Jan 2026 03:04:05 K", "2026-01-02T03:04:05+00:00", True),
        ("Fri, 2 Jan 2026 03:04:05 Z", "2026-01-02T03:04:05+00:00", False),
        ("2 Jan 26 03:04 MDT", "2026-01-02T03:04:00-06:00", False),
        ("Fri Jan  2 03:04:05 PST 2026", "2026-01-02T03:04:05-08:00", False),
        ("Fri, 02 Jan 2026 03:04:05 -08:30", "2026-01-02T03:04:05-08:30", False),
        ("Fri, 02 Jan 2026 03:04:60 +0000", "2026-01-02T03:04:59+00:00", False),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00", False),
        ("2026-01-02 03:04:05.25 +01:00", "2026-01-02T03:04:05+01:00", False),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05+00:00", True),
        ("Fri, 2 Jan 2026 03:04:05 +9959", "2025-12-28T23:05:05+00:00", False),
        ("31 Dec 9999 23:59:59 -2300", None, False),
        ("31 Feb 2026 03:04:05 +0000", None, False),
        ("yesterday", None, False),
    ],
)
def test_a_date_is_aware(text: str, expected: str | None, assumed: bool) -> None:
    field = ReceivedField.parse(f"by mx.example.org; {text}")
    date = None if field.date is None else field.date.isoformat()
    assert (date, field.zone_assumed if date else False) == (expected, assumed)


@pytest.mark.parametrize(
    ("with_", "encrypted", "authenticated"),
    [
        ("SMTP", False, False),
        ("esmtpsa", True, True),
        ("UTF8SMTPA", False, True),
        ("LMTPS", True, False),
        ("HTTPS", True, False),
        ("ESMTPSX", False, False),
        ("ESMTP (TLSv1.3)", True, False),
        ("SMTP (Google Transport Security)", True, False),
        ("SMTP (HELO TLSv1.3)", False, False),
    ],
)
def test_the_protocol_tells_tls_and_auth(with_: str, encrypted: bool, authenticated: bool) -> None:
    field = ReceivedField.parse(f"by mx.example.org with {with_}; 1 Jan 2026 00:00:00 +0000")
    assert (field.encrypted, field.authenticated) == (encrypted, authenticated)


def test_an_address_in_helo_is_not_the_address_of_the_client() -> None:
    for text in (
        "from [203.0.113.1] (gw.example.net [192.0.2.1]) by mx.example.org",
        "from gw.example.net (HELO [203.0.113.1]) (192.0.2.1) by mx.example.org",
        "from gw.example.net ([192.0.2.1] helo=[203.0.113.1]) by mx.example.org",
    ):
        host = ReceivedField.parse(text).from_
        assert host is not None
        assert (host.name, host.reverse_name, host.address) == (
            "[203.0.113.1]",
            "gw.example.net",
            "192.0.2.1",
        )
