"""A DNS server on the loopback interface that says what a test wants."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.names import dns


class NameServer(dns.DNSDatagramProtocol):
    """Answers by UDP from ``records``, and with the flag AD if ``validated``.

    :ivar records: name and type (``SRV``) to records of ``twisted.names.dns``.
    :ivar rcode: the code of every answer; NXDOMAIN for names that are not in ``records``.
    """

    def __init__(self) -> None:
        super().__init__(controller=None)  # type: ignore[no-untyped-call]  # Twisted has no type for it
        self.records: dict[tuple[str, int], list[Any]] = {}
        self.validated = False
        self.rcode = dns.OK
        self.asked: list[str] = []
        self._port: Any = None

    def start(self, reactor: Any) -> str:
        """Listen; return address and port."""
        self._port = reactor.listenUDP(0, self, interface="127.0.0.1")
        return f"127.0.0.1:{self._port.getHost().port}"

    def stop(self) -> Deferred[None]:
        stopped: Deferred[None] = self._port.stopListening()
        return stopped

    def add_srv(
        self, name: str, target: str, port: int, priority: int = 0, weight: int = 0
    ) -> None:
        # Twisted writes the root as an empty name.
        record = dns.Record_SRV(priority, weight, port, target.rstrip(".").encode(), ttl=60)  # type: ignore[no-untyped-call]  # the same
        self.records.setdefault((name, dns.SRV), []).append(record)

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        query = dns.Message()
        query.fromStr(data)
        (question,) = query.queries
        name = question.name.name.decode()
        self.asked.append(name)
        found = self.records.get((name.lower(), question.type), [])
        known = any(each == name.lower() for each, _ in self.records)
        reply = dns.Message(query.id, answer=True, recAv=True, recDes=True)
        reply.authenticData = self.validated
        reply.rCode = self.rcode or (dns.OK if known else dns.ENAME)
        reply.queries = query.queries
        reply.maxSize = 0  # not cut off
        reply.answers = [
            dns.RRHeader(question.name.name, question.type, ttl=60, payload=record)
            for record in (found if not reply.rCode else ())
        ]
        self.transport.write(reply.toStr(), addr)
