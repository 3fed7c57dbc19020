"""Which address an operator means: whole, ``@domain``, or a part; in either case."""

from __future__ import annotations


def fits(meant: str, address: str) -> bool:
    """Is *address* one of those that are *meant*?

    >>> fits("ann@example.org", "joann@example.org")
    False
    >>> fits("@Example.org", "ann@example.org"), fits("ann", "joann@example.org")
    (True, True)
    """
    meant, address = str(meant).casefold(), str(address).casefold()
    name, at, domain = meant.partition("@")
    if not at:
        return meant in address
    if not name:
        # The local part of an address may hold an @ in quotes; its domain is behind the last.
        return address.rpartition("@")[2] == domain
    return address == meant
