"""For those who test programs that send mail: real servers, scripted faults, stubs.

The names to import; the code is in ``testkit``.  The pytest fixture ``smtp_server``
comes with the installed package.
"""

from __future__ import annotations

from twisted_sendmail.testkit import faults
from twisted_sendmail.testkit.authority import Authority
from twisted_sendmail.testkit.background import BackgroundServer
from twisted_sendmail.testkit.loopback import LoopbackServer
from twisted_sendmail.testkit.mailbox import KeepingReceiver, ReceivedMessage, SessionRecord
from twisted_sendmail.testkit.memory import MemoryServer
from twisted_sendmail.testkit.stub import SentMessage, StubMailer
from twisted_sendmail.testkit.wire import (
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
    "KeepingReceiver",
    "LoopbackServer",
    "MemoryConnection",
    "MemoryEndpoint",
    "MemoryNetwork",
    "MemoryServer",
    "MemoryTransport",
    "ReceivedMessage",
    "SentMessage",
    "SessionRecord",
    "StubMailer",
    "faults",
]
