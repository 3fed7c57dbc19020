"""For those who test programs that send mail: real servers, scripted faults, stubs.

The names to import; the code is in ``testkit``.  The pytest fixture ``smtp_server``
comes with the installed package.
"""

from __future__ import annotations

from twisted_sendmail.testing import faults
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.background import BackgroundServer
from twisted_sendmail.testing.loopback import LoopbackServer
from twisted_sendmail.testing.mailbox import ReceivedMessage, RecordingReceiver, SessionRecord
from twisted_sendmail.testing.memory import MemoryServer
from twisted_sendmail.testing.stub import SentMessage, StubMailer
from twisted_sendmail.testing.wire import (
    BareTransport,
    MemoryConnection,
    MemoryEndpoint,
    MemoryNetwork,
    MemoryTransport,
)

__all__ = [
    "Authority",
    "BackgroundServer",
    "BareTransport",
    "LoopbackServer",
    "MemoryConnection",
    "MemoryEndpoint",
    "MemoryNetwork",
    "MemoryServer",
    "MemoryTransport",
    "ReceivedMessage",
    "RecordingReceiver",
    "SentMessage",
    "SessionRecord",
    "StubMailer",
    "faults",
]
