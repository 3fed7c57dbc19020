"""Reading the addresses of a header takes time in proportion to its length."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from twisted_sendmail import InvalidInput
from twisted_sendmail.testing import MemoryServer


def cost_of_sending(unit: str, size: int) -> float:
    """CPU seconds, the least of three; envelope and recipients are those of the header."""
    value = f"{unit * (size // len(unit))} r@example.net"
    message = f"From: s@example.org\r\nTo: {value}\r\n\r\nx\r\n".encode()
    took = []
    for _ in range(3):
        begun = time.process_time()
        with MemoryServer(tls=False) as server, suppress(InvalidInput):
            server.send(message)
        took.append(time.process_time() - begun)
    return min(took)


@pytest.mark.parametrize(
    "unit",
    ["()", "(a)", "(", "(()", '"', '"\\"', "<", "a ", ",", ":;", "g:;", "\\", "[", "a<", " "],
)
def test_reading_recipients_costs_no_square(unit: str) -> None:
    """Four times the header costs four times as much; a square would be sixteen times."""
    assert cost_of_sending(unit, 200_000) < 9 * cost_of_sending(unit, 50_000)
