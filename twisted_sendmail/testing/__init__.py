"""Test programs that send mail: real servers, scripted faults, and stand-ins without a network.

The pytest fixture ``smtp_server`` comes with the installed package.
"""

from __future__ import annotations

from twisted_sendmail.testing import faults
from twisted_sendmail.testing.authority import Authority
from twisted_sendmail.testing.background import BackgroundServer
from twisted_sendmail.testing.loopback import LoopbackServer
from twisted_sendmail.testing.memory_network import (
    BareTransport,
    MemoryConnection,
    MemoryEndpoint,
    MemoryNetwork,
    MemoryTransport,
)
from twisted_sendmail.testing.memory_server import MemoryServer
from twisted_sendmail.testing.recording import (
    ReceivedMessage,
    RecordingReceiver,
    RecordingServer,
    SessionRecord,
)
from twisted_sendmail.testing.stub import SentMessage, StubMailer

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
    "RecordingServer",
    "SentMessage",
    "SessionRecord",
    "StubMailer",
    "faults",
]
