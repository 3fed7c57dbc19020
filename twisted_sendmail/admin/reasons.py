"""Why mail waits: what was said to many recipients, said once.

Pure.  Replies that differ only in an address, a queue id or a number are one reason.
The words for enhanced status codes are those of RFC 3463 section 3, shortened.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted_sendmail.queue import SetAsideReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.queue import QueuedMessage, QueuedRecipient

_WORDS = {
    "1.1": "mailbox unknown",
    "1.2": "domain unknown",
    "1.8": "sender's domain unknown",
    "2.0": "mailbox trouble",
    "2.1": "mailbox disabled",
    "2.2": "mailbox full",
    "2.3": "message too long for the mailbox",
    "3.0": "trouble at the server",
    "3.1": "disk full at the server",
    "3.2": "server not accepting mail",
    "3.4": "message too big",
    "4.0": "trouble on the way",
    "4.1": "no answer from the server",
    "4.2": "connection was lost",
    "4.3": "name service failed",
    "4.4": "no way there",
    "4.5": "server too busy",
    "4.6": "loop",
    "4.7": "too late",
    "5.0": "trouble with the protocol",
    "5.3": "too many recipients",
    "6.7": "address not ASCII",
    "7.0": "refused for security",
    "7.1": "refused by policy",
    "7.4": "security feature missing",
    "7.5": "TLS failed",
    "7.8": "password refused",
    "7.9": "mechanism too weak",
    "7.10": "encryption needed",
    "7.11": "encryption needed",
}

# What makes two replies differ that mean the same: addresses, and words with a digit in them.
_PARTICULAR = re.compile(r"\S+@\S+|\b(?=\w*\d)\w{5,}\b|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Reason:
    """Something that was said, and to how many."""

    #: Enhanced status, ``""`` where none was said.
    status: str
    #: One of those replies, as it came.
    reply: str
    recipients: int
    messages: int
    #: Who said it last.
    relay: str | None
    #: When the oldest message concerned arrived.
    oldest: float


def meaning(status: str) -> str:
    """An enhanced status in a few words, ``""`` for one that has none."""
    return _WORDS.get(status.partition(".")[2], "")


def reasons(messages: Iterable[QueuedMessage]) -> list[Reason]:
    """What keeps *messages*, the most frequent first."""
    found: dict[tuple[str, str], Reason] = {}
    for message in messages:
        counted: Counter[tuple[str, str]] = Counter()
        last: dict[tuple[str, str], QueuedRecipient] = {}
        for recipient in message.pending:
            if recipient.reply is None:
                continue
            key = (recipient.status or "", _PARTICULAR.sub("*", recipient.reply))
            counted[key] += 1
            last[key] = recipient
        for key, number in counted.items():
            before = found.get(key)
            found[key] = Reason(
                key[0],
                before.reply if before else last[key].reply or "",
                number + (before.recipients if before else 0),
                1 + (before.messages if before else 0),
                last[key].relay or (before.relay if before else None),
                min(message.draft.arrived, before.oldest if before else message.draft.arrived),
            )
    return sorted(found.values(), key=lambda r: (-r.recipients, r.oldest))


def latest(message: QueuedMessage) -> QueuedRecipient | None:
    """The recipient whose last try is the most recent one, of those who wait."""
    tried = [r for r in message.pending if r.reply is not None]
    return max(tried, key=lambda r: r.tried or 0.0) if tried else None


def standing(message: QueuedMessage) -> str | None:
    """What keeps it that no server said; None: nothing."""
    if message.aside is SetAsideReason.DAMAGED:
        return "It is not what was written to disk, and is not sent."
    if message.aside is SetAsideReason.UNDELIVERABLE:
        return "It failed, and there is nobody to tell."
    if message.doomed:
        return "It is deleted when the try under way has ended."
    if message.expired:
        return "It is returned to its sender at the next look."
    if message.leased:
        return "It is on its way."
    if message.held:
        return "Somebody put it on hold."
    return None
