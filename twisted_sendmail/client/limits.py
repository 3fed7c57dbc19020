"""The bounds of a pool of connections."""

from __future__ import annotations

from dataclasses import dataclass, fields

from twisted_sendmail.smtp import InvalidInput


@dataclass(frozen=True)
class PoolLimits:
    """How much of everything, at most.

    :raises InvalidInput: for zero or less, a fraction of something whole, or an option that
        is neither True nor False.
    """

    #: Connections open or opening at once.
    connections: int = 4
    #: Messages over one connection; a server's MAILMAX (RFC 9422) counts if it is less.
    messages: int = 1000
    #: Seconds a connection is used for new messages.
    age: float = 300.0
    #: Seconds a connection is kept open with nothing to do.
    idle: float = 30.0
    #: Messages waiting for a connection; more are refused, or held back by ``send_many``.
    waiters: int = 10_000
    #: Seconds a message waits for a connection; None: as long as its own deadline allows.
    wait: float | None = 600.0
    #: Messages in doubt at once on a connection; 1: never more than one.
    window: int = 8
    #: Octets in doubt at once on a connection; a larger message goes alone.
    window_octets: int = 1024 * 1024
    #: Octets in doubt at once over all connections; each may have one message even so.
    octets: int = 8 * 1024 * 1024
    #: With DATA, write the envelope of the next message right after the final dot, before its
    #: reply: one round trip a message instead of two.  RFC 2920 allows it, but there are servers
    #: that lose what follows the dot, hang, or crash; only for a server known to be right.
    pipeline_after_data: bool = False
    #: Messages a second over all connections; None for no limit.
    rate: float | None = None
    #: Messages that may go out at once before the rate is felt.
    burst: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if value is None and "None" in str(field.type):
                continue
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise InvalidInput(
                        f"the option '{field.name}' cannot be {value!r}",
                        remedy="give True or False",
                    )
                continue
            right = isinstance(value, int if whole else (int, float)) and value is not True
            if not right or not value > 0:
                raise InvalidInput(
                    f"the limit '{field.name}' cannot be {value!r}",
                    remedy=f"give {'a whole number' if whole else 'a number'} above zero",
                )
