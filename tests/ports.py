"""Free ports of the loopback interface for servers in other processes."""

from __future__ import annotations

import contextlib
import random
import socket

#: Each is given once: who has it may not listen yet, or not just now.
_given: set[int] = set()


def free_port() -> int:
    """A port on which nobody listens.

    Below those that the system gives to connections, which might take it before it is used.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        if port not in _given:
            with socket.socket() as asking, contextlib.suppress(OSError):
                asking.bind(("127.0.0.1", port))
                _given.add(port)
                return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]


def listens(port: int) -> bool:
    """Does anybody listen there?"""
    with socket.socket() as asking:
        asking.settimeout(5)
        return asking.connect_ex(("127.0.0.1", port)) == 0
