"""For those who test programs that send mail: real servers, scripted faults, stubs.

The names to import; the code is in ``testkit``.
"""

from __future__ import annotations

from twisted_sendmail.testkit.authority import Authority
from twisted_sendmail.testkit.loopback import LoopbackServer
from twisted_sendmail.testkit.mailbox import ReceivedMessage, SessionRecord

__all__ = ["Authority", "LoopbackServer", "ReceivedMessage", "SessionRecord"]
