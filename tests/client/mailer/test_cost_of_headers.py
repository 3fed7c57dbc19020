"""Reading the addresses of a header takes time in proportion to its length."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.growth import assert_no_square
from twisted_sendmail import InvalidInput
from twisted_sendmail.testing import MemoryServer


@pytest.mark.parametrize(
    "unit",
    ["()", "(a)", "(", "(()", '"', '"\\"', "<", "a ", ",", ":;", "g:;", "\\", "[", "a<", " "],
)
def test_reading_recipients_costs_no_square(unit: str) -> None:
    def send(size: int) -> None:
        value = f"{unit * (size // len(unit))} r@example.net"
        message = f"From: s@example.org\r\nTo: {value}\r\n\r\nx\r\n".encode()
        with MemoryServer(tls=False) as server, suppress(InvalidInput):
            server.send(message)

    assert_no_square(send, 50_000)
