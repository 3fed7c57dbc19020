"""The audit after every case: compares messages sent, messages delivered, and the crashes between.

I1 no loss, I2 no phantom, I3 bounded duplicates, I4 integrity, I7 exclusion, I8 one report.  That
the queue drains (I5) and that nothing is held up (I6) is seen by the tests that wait for it.

A report is committed together with the failure it reports: no crash, at whatever moment, makes a
second one.  Like any message it may be delivered twice, which is then the same report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = re.compile(rb"^X-Token: (\S+)\r\n", re.MULTILINE)
MESSAGE_ID = re.compile(rb"^Message-ID:\s*(\S+)\r\n", re.MULTILINE | re.IGNORECASE)
FAILED = re.compile(
    r"^Final-Recipient: rfc822; *(\S+)\r\n(?:[^\r\n]+\r\n)*?Action: failed\r\n", re.MULTILINE
)
RECEIVED = re.compile(rb"\AReceived: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


@dataclass
class Sent:
    """A message that was given to the relay."""

    token: str
    recipients: tuple[str, ...]
    content: bytes
    #: The relay replied 250, or committed it from another source.
    acked: bool = False
    #: It was refused: it must not come out.
    refused: bool = False


@dataclass(frozen=True)
class Delivered:
    """A message that the next hop took."""

    token: str | None
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    #: From the first octet of its content to the 250.
    began: float
    ended: float


@dataclass
class Ledger:
    """Everything one case has seen."""

    sent: dict[str, Sent] = field(default_factory=dict)
    delivered: list[Delivered] = field(default_factory=list)
    #: When the relay was killed, or the next hop left it in doubt.
    hits: list[float] = field(default_factory=list)
    _pairs: dict[tuple[str | None, str], list[Delivered]] = field(default_factory=dict)
    _counted: int = 0

    def send(self, token: str, recipients: tuple[str, ...], size: int = 300) -> Sent:
        """A new message, not given to anybody yet."""
        line = f"{token} ".encode() * 8 + b"\r\n.\r\n..two\r\n"
        body = line * max(1, size // len(line))
        content = (
            f"From: a@sender.example\r\nTo: b@recipient.example\r\nSubject: {token}\r\n"
            f"Date: Thu, 01 Jan 2026 12:00:00 +0000\r\nMessage-ID: <{token}@sender.example>\r\n"
            f"X-Token: {token}\r\n\r\n"
        ).encode() + body
        sent = self.sent[token] = Sent(token, recipients, content)
        return sent

    def complaints(self) -> list[str]:
        """What is wrong, a line each."""
        return [
            *self._lost(),
            *self._phantoms(),
            *self._duplicates(),
            *self._overlaps(),
            *self._reported_twice(),
        ]

    def missing(self) -> list[tuple[str, str]]:
        """The acked (message, recipient) pairs that have neither come out nor been bounced."""
        known = {*self._by_pair(), *self._bounced()}
        return [
            (sent.token, recipient)
            for sent in self.sent.values()
            if sent.acked
            for recipient in sent.recipients
            if (sent.token, recipient) not in known
        ]

    def times(self, token: str, recipient: str) -> list[Delivered]:
        """The deliveries of one pair, as they ended."""
        return sorted(self._by_pair().get((token, recipient), ()), key=lambda d: d.ended)

    def _by_pair(self) -> dict[tuple[str | None, str], list[Delivered]]:
        if self._counted != len(self.delivered):
            self._counted = len(self.delivered)
            self._pairs = {}
            for d in self.delivered:
                for recipient in d.recipients if d.sender else ():
                    self._pairs.setdefault((d.token, recipient), []).append(d)
        return self._pairs

    def bounces(self, token: str) -> list[Delivered]:
        """The reports that came out about one message."""
        return [d for d in self.delivered if not d.sender and d.token == token]

    def _bounced(self) -> Iterator[tuple[str, str]]:
        for report in self.delivered:
            if not report.sender and report.token is not None:
                text = report.content.decode("utf-8", "replace")
                for address in re.findall(r"^Final-Recipient: rfc822; *(\S+)", text, re.MULTILINE):
                    yield report.token, address

    def _lost(self) -> Iterator[str]:
        for token, recipient in self.missing():
            yield f"I1: {token} for {recipient} was acked, and neither delivered nor bounced"

    def _phantoms(self) -> Iterator[str]:
        for d in self.delivered:
            if not d.sender:
                continue
            sent = self.sent.get(d.token or "")
            if sent is None:
                yield f"I2: {d.token} was never sent"
                continue
            if sent.refused:
                yield f"I2: {d.token} was refused, and came out"
            if not set(d.recipients) <= set(sent.recipients):
                yield f"I2: {d.token} went to {d.recipients}, sent to {sent.recipients}"
            if RECEIVED.sub(b"", d.content, count=1) != sent.content:
                yield f"I4: {d.token} came out as another: {len(d.content)} octets"

    def _duplicates(self) -> Iterator[str]:
        for sent in self.sent.values():
            for recipient in sent.recipients:
                times = self.times(sent.token, recipient)
                for first, second in pairwise(times):
                    if not any(first.began <= hit <= second.began for hit in self.hits):
                        yield f"I3: {sent.token} for {recipient} went twice, and nothing had hit it"

    def _overlaps(self) -> Iterator[str]:
        for sent in self.sent.values():
            for recipient in sent.recipients:
                times = self.times(sent.token, recipient)
                for first, second in pairwise(times):
                    if second.began < first.ended:
                        yield f"I7: two deliveries of {sent.token} to {recipient} overlap"

    def _reported_twice(self) -> Iterator[str]:
        reports: dict[tuple[str, str], list[Delivered]] = {}
        for report in sorted(self.delivered, key=lambda d: d.ended):
            if report.sender or report.token is None:
                continue
            for recipient in FAILED.findall(report.content.decode("utf-8", "replace")):
                reports.setdefault((report.token, recipient), []).append(report)
        for (token, recipient), copies in reports.items():
            names = {_name(copy) for copy in copies}
            if len(names) > 1:
                yield f"I8: the failure of {token} for {recipient} was reported {len(names)} times"
            for first, second in pairwise(copies):
                if not any(first.began <= hit <= second.began for hit in self.hits):
                    yield f"I3: a report about {token} went twice, and nothing had hit it"


def _name(report: Delivered) -> bytes:
    """The Message-ID of a report: the first one in it, before that of what it returns."""
    found = MESSAGE_ID.search(report.content)
    return found[1] if found else b""
