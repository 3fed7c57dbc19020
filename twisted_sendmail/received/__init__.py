"""Trace information of messages: Received fields parsed and written, and the route that they show; pure."""

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "Hop",
    "HopLink",
    "ReceivedField",
    "Trace",
    "TraceFinding",
    "TraceHost",
    "TraceProblem",
    "TraceTLS",
    "clause",
    "folded",
    "received_field",
]

if TYPE_CHECKING:
    from twisted_sendmail.received.field import ReceivedField, TraceHost, TraceTLS
    from twisted_sendmail.received.trace import Hop, HopLink, Trace, TraceFinding, TraceProblem
    from twisted_sendmail.received.writer import clause, folded, received_field
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "field": "ReceivedField TraceHost TraceTLS",
            "trace": "Hop HopLink Trace TraceFinding TraceProblem",
            "writer": "clause folded received_field",
        },
    )
