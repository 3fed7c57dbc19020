"""Limits of a server on the wire: octets of a header and of a message, hops, recipients."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import Client, Net
from twisted_sendmail import ServerSettings

ENVELOPE = "MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@recipient.example>\r\n"
WAYS = pytest.mark.parametrize("way", ["DATA", "BDAT", "two chunks"])
CUTS = pytest.mark.parametrize("cut", [0, 1, 7])


def begun(net: Net, **settings: Any) -> Client:
    net.server(settings=ServerSettings(require_tls=False, **settings))
    client = net.client()
    client.send("EHLO client.example.net\r\n")
    return client


def give(client: Client, content: bytes, way: str, cut: int = 0) -> str:
    """Send one message, *cut* octets at a time if that is not 0; code and status of the verdict."""
    said = client.send(ENVELOPE)
    assert [line[:3] for line in said] == ["250", "250"]
    if way == "DATA":
        assert client.send("DATA\r\n")[0].startswith("354")
        wire = content + b".\r\n"
    elif way == "BDAT":
        wire = b"BDAT %d LAST\r\n" % len(content) + content
    else:
        half = len(content) // 2
        wire = b"BDAT %d\r\n" % half + content[:half]
        wire += b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:]
    said = []
    for at in range(0, len(wire), cut or len(wire)):
        said += client.send(wire[at : at + (cut or len(wire))])
    # A refused chunk ends it: the next one is out of order.
    verdicts = [line for line in said if not line.startswith(("250 2.0.0 ", "503 "))] or said
    return " ".join(verdicts[0].split()[:2])


@WAYS
@CUTS
def test_a_header_may_be_as_long_as_the_limit_and_no_longer(net: Net, way: str, cut: int) -> None:
    client = begun(net, max_header=200)
    head = b"From: a@sender.example\r\nX: "
    for length, verdict in ((200, "250 2.0.0"), (201, "552 5.3.4")):
        header = head + b"x" * (length - len(head) - 2) + b"\r\n"
        assert length == len(header)
        body = b"\r\n" + b"The body is not counted.\r\n" * 20
        assert verdict == give(client, header + body, way, cut)
    assert len(net.messages) == 1


@WAYS
@CUTS
def test_a_message_may_have_passed_as_many_servers_as_the_limit(
    net: Net, way: str, cut: int
) -> None:
    client = begun(net, max_hops=3)
    hop, folded = b"Received: from a by b\r\n", b"RECEIVED : from a\r\n\tby b\r\n"
    rest = b"Subject: x\r\nX-Received: no hop\r\n\r\nReceived: nor this\r\n" + hop * 9
    assert give(client, hop * 2 + folded + rest, way, cut) == "250 2.0.0"
    assert give(client, hop + folded + hop * 2 + rest, way, cut) == "554 5.4.6"
    assert len(net.messages) == 1


@WAYS
@CUTS
def test_a_message_may_be_as_large_as_the_limit_and_no_larger(net: Net, way: str, cut: int) -> None:
    client = begun(net, max_size=500)
    for size, verdict in ((500, "250 2.0.0"), (501, "552 5.3.4")):
        content = b"A: b\r\n\r\n" + b"yx" * ((size - 10) // 2)
        content = content.ljust(size - 2, b"x") + b"\r\n"
        assert size == len(content)
        assert verdict == give(client, content, way, cut)
    assert [len(content) for content in net.contents()] == [500]


def test_stuffed_dots_are_not_counted(net: Net) -> None:
    client = begun(net, max_size=500)
    content = (b"." * 8 + b"\r\n") * 50
    assert len(content) == 500
    assert give(client, content.replace(b"........", b"." * 9), "DATA") == "250 2.0.0"
    assert [content] == net.contents()


def test_a_size_that_is_told_beforehand_is_refused_at_once(net: Net) -> None:
    client = begun(net, max_size=500)
    assert "SIZE 500" in client.send("EHLO client.example.net\r\n")[-2]
    assert client.code("MAIL FROM:<a@sender.example> SIZE=501") == "552 5.3.4"
    assert client.code("MAIL FROM:<a@sender.example> SIZE=500") == "250 2.0.0"


def test_a_message_that_was_told_smaller_than_it_is_is_counted(net: Net) -> None:
    client = begun(net, max_size=500)
    client.send("MAIL FROM:<a@sender.example> SIZE=10\r\nRCPT TO:<b@recipient.example>\r\n")
    client.send("DATA\r\n")
    assert client.send(b"x" * 70 + b"\r\n" + b"y" * 500 + b"\r\n.\r\n")[0].startswith("552 5.3.4")
    assert net.messages == []


def test_after_a_refusal_the_session_takes_the_next_message(net: Net) -> None:
    client = begun(net, max_size=500, max_header=200, max_hops=3)
    refused = [
        b"X: " + b"x" * 300 + b"\r\n\r\n",
        b"Received: x\r\n" * 4 + b"\r\n",
        b"A: b\r\n\r\n" + b"x" * 600 + b"\r\n",
    ]
    for way in ("DATA", "BDAT", "two chunks"):
        for content in refused:
            assert give(client, content, way)[0] == "5"
            client.send("RSET\r\n")
            assert give(client, b"A: b\r\n\r\nfine\r\n", way) == "250 2.0.0"
    assert net.contents() == [b"A: b\r\n\r\nfine\r\n"] * 9


def test_recipients_beyond_the_limit_are_refused_for_now(net: Net) -> None:
    client = begun(net, max_recipients=2)
    client.send("MAIL FROM:<a@sender.example>\r\n")
    said = client.send("".join(f"RCPT TO:<{n}@recipient.example>\r\n" for n in range(3)))
    assert [line[:3] for line in said] == ["250", "250", "452"]
    client.send("DATA\r\n")
    assert client.send(b"A: b\r\n\r\n.\r\n")[0].startswith("250")
    assert [str(each) for each in net.messages[0].recipients] == [
        "0@recipient.example",
        "1@recipient.example",
    ]
