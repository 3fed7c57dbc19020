"""A header with too many fields is refused with the limit, in whatever way the message comes in."""

from __future__ import annotations

import pytest

from twisted_sendmail import AllRecipientsRefused, InvalidMessage, ServerSettings
from twisted_sendmail.testing import MemoryServer


def message(fields: int) -> bytes:
    return b"a:\r\n" * fields + b"\r\na:\r\n"


def test_a_message_may_have_two_thousand_fields() -> None:
    with MemoryServer(tls=False) as server:
        server.send(message(2000), sender="s@x.example", recipients="r@x.example", complete=False)
        assert [message(2000)] == [each.content for each in server.messages]


def test_more_fields_are_an_error_before_anything_is_sent() -> None:
    with MemoryServer(tls=False) as server:
        for complete in (True, False):
            with pytest.raises(InvalidMessage, match="more than 2000 fields"):
                server.send(
                    message(2001), sender="s@x.example", recipients="r@x.example", complete=complete
                )
        assert not server.sessions


@pytest.mark.parametrize("extensions", [(), ("PIPELINING", "CHUNKING")])
def test_a_server_refuses_more_fields_than_it_takes(extensions: tuple[str, ...]) -> None:
    settings = ServerSettings(max_fields=10, extensions=extensions)
    with MemoryServer(tls=False, settings=settings) as server:

        def send(content: bytes) -> None:
            server.send(content, sender="s@x.example", recipients="r@x.example", complete=False)

        with pytest.raises(
            AllRecipientsRefused, match=r"552 5\.3\.4 The header has more than 10 fields"
        ):
            send(message(11))
        send(message(10))
        # Folded lines are no fields, and neither are lines of the body.
        folded = b"a:\r\n" + b" x\r\n" * 50 + b"\r\n" + b"a:\r\n" * 50
        send(folded)
        send(b"a: x\r\nno field\r\n" + b"a:\r\n" * 50 + b"\r\n")
        assert len(server.messages) == 3
