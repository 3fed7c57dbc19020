"""A DNS server on the loopback interface that answers as a test wants."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol


class NameServer(DatagramProtocol):
    """Answers by UDP from ``records``, follows aliases, and sets the flag AD if ``validated``.

    :ivar records: name and type (``SRV``) to the texts of records; other names do not exist.
    :ivar rcode: the code of every answer.
    :ivar bogus: names to whose queries the answer is SERVFAIL, as from a name server that has found their
        signature wrong.
    :ivar unsigned: names whose answers have no AD.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.validated = False
        self.rcode: int = dns.rcode.NOERROR
        self.bogus: set[str] = set()
        self.unsigned: set[str] = set()
        self.asked: list[str] = []
        self._port: Any = None

    def start(self, reactor: Any) -> str:
        """Listen; return address and port."""
        self._port = reactor.listenUDP(0, self, interface="127.0.0.1")
        return f"127.0.0.1:{self._port.getHost().port}"

    def stop(self) -> Deferred[None]:
        stopped: Deferred[None] = self._port.stopListening()
        return stopped

    def add(self, name: str, kind: str, *texts: str) -> None:
        """Add records, such as ``add("_25._tcp.mx.test", "TLSA", "3 1 1 ab…")``."""
        self.records.setdefault((name.lower(), kind), []).extend(texts)

    def add_srv(
        self, name: str, target: str, port: int, priority: int = 0, weight: int = 0
    ) -> None:
        self.add(name, "SRV", f"{priority} {weight} {port} {target.rstrip('.')}.")

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        reply = dns.message.make_response(query, recursion_available=True)
        signed, rcode = self.validated, self.rcode
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            signed = signed and name.lower() not in self.unsigned
            if name.lower() in self.bogus:
                rcode = dns.rcode.SERVFAIL
            found = self.records.get((name.lower(), kind), [])
            alias = self.records.get((name.lower(), "CNAME"), [])
            for each_kind, texts in ((kind, found), ("CNAME", alias)):
                if texts:
                    reply.answer.append(
                        dns.rrset.from_text_list(f"{name}.", 60, "IN", each_kind, texts)
                    )
            if not found and alias:
                name = alias[0].rstrip(".")
        known = any(each == name.lower() for each, _ in self.records)
        reply.set_rcode(dns.rcode.Rcode(rcode or (0 if known else dns.rcode.NXDOMAIN)))
        if rcode:
            reply.answer.clear()
        elif signed:
            reply.flags |= dns.flags.AD
        assert self.transport is not None
        self.transport.write(reply.to_wire(max_size=65535), addr)
