"""What is done to a message on its way into the queue, through whichever door it comes.

Addresses are rewritten, the header is made complete, hops are counted, and what the
queue has to know of it is found out; then it is a ``MessageInfo``, to be committed with the
content that came out here.

It touches no disk: who feeds it writes what it gives.  RFC 6409 section 8,
RFC 5321 section 6.3 (loops).
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from twisted_sendmail.message import HeaderFixer, complete_as_it_is
from twisted_sendmail.queue.models import MessageInfo
from twisted_sendmail.smtp import InvalidMessage, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.message import Header, Rewriting
    from twisted_sendmail.smtp import Envelope, ReversePath


class TooManyHops(InvalidMessage):
    """The message goes in circles (554 5.4.6)."""


@attrs.frozen
class CleanupPolicy:
    """What holds for all that comes in."""

    #: Our host name.
    name: str
    #: The name of the way out, by the (rewritten) sender.
    route_of: Callable[[ReversePath], str]
    rewriting: Rewriting | None = None
    #: Add what is missing in the header and take blind copies out; else it stays as it is,
    #: and so does From when the sender is rewritten.
    complete: bool = True
    #: Received fields at the most; RFC 5321 section 6.3 asks for 100 at least.
    max_hops: int = 100


class Cleanup:
    """One message's.

    :param envelope: as it came.
    :param id: its name in the queue.
    :param now: when it comes in, in seconds since 1970.
    :param origin: where it comes from, to be shown.
    :param from_name: the sender's name, for a From that is missing.
    :param binary: it came with BODY=BINARYMIME.
    :param held: it is to wait for the operator.
    """

    def __init__(
        self,
        policy: CleanupPolicy,
        envelope: Envelope,
        id: str,  # noqa: A002 - that is its name
        now: float,
        *,
        origin: str = "",
        from_name: str | None = None,
        binary: bool = False,
        held: bool = False,
    ) -> None:
        self._policy = policy
        self._id = id
        self._now = now
        self._origin = _shown(origin)
        self._binary = binary
        self._held = held
        rewriting = policy.rewriting
        #: As it is kept.
        self.envelope = envelope if rewriting is None else rewriting.envelope(envelope)
        rewrite: Callable[[Header], Header] | None = None
        before, after = envelope.sender, self.envelope.sender
        if rewriting is not None and before != after:
            rules = rewriting

            def rewrite(header: Header) -> Header:
                return rules.header(header, before, after)

        self._completion = HeaderFixer(
            _local_time(int(now)),
            policy.name,
            after,
            from_name,
            complete=policy.complete,
            rewrite=rewrite,
        )

    def feed(self, data: bytes) -> bytes:
        """Take content, CRLF and not dot-stuffed; give what is to be kept.

        :raises TooManyHops: nothing more is to be fed.
        """
        return self._checked(self._completion.feed(data))

    def finish(self) -> bytes:
        """The content has ended; what is still to be kept.

        :raises TooManyHops: it is not to be committed.
        """
        return self._checked(self._completion.finish())

    def _checked(self, octets: bytes) -> bytes:
        hops = self._completion.hops
        if hops > self._policy.max_hops:
            raise TooManyHops(
                "the message goes in circles",
                detail=f"it has passed {hops} servers",
                remedy="look at its Received fields for a server that comes twice",
            )
        return octets

    def draft(self) -> MessageInfo:
        """What is committed; to be asked behind ``finish``."""
        completion, envelope = self._completion, self.envelope
        return MessageInfo(
            id=self._id,
            envelope=envelope,
            arrived=self._now,
            route=self._policy.route_of(envelope.sender),
            origin=self._origin,
            smtputf8=envelope.needs_smtputf8 or completion.smtputf8_header,
            eight_bit=completion.eight_bit,
            binary=self._binary,
            message_id=completion.message_id,
            automatic=completion.automatic,
            held=self._held,
        )


def admitted(  # noqa: PLR0917 - the same as there, and called for every message
    message: bytes,
    policy: CleanupPolicy,
    envelope: Envelope,
    id: str,  # noqa: A002 - that is its name
    now: float,
    origin: str,
    binary: bool,  # noqa: FBT001
    smtputf8: bool,  # noqa: FBT001
) -> tuple[bytes, MessageInfo]:
    """What ``Cleanup`` makes of a whole *message*: the octets to be kept, and the draft.

    :param smtputf8: its addresses may hold more than ASCII.
    :raises TooManyHops: it is not to be committed.
    """
    seen = complete_as_it_is(message) if policy.rewriting is None else None
    if seen is None or seen[1] > policy.max_hops:
        admission = Cleanup(policy, envelope, id, now, origin=origin, binary=binary)
        octets = admission.feed(message)
        octets += admission.finish()
        return octets, admission.draft()
    return message, MessageInfo(
        id,
        envelope,
        now,
        policy.route_of(envelope.sender),
        _shown(origin),
        smtputf8 and envelope.needs_smtputf8,
        not message.isascii(),
        binary,
        seen[0],
    )


# Much mail comes in the same second, and from the same place.


@lru_cache(maxsize=4)
def _local_time(second: int) -> datetime:
    return datetime.fromtimestamp(second, timezone.utc).astimezone()


@lru_cache(maxsize=256)
def _shown(origin: str) -> str:
    return printable(origin, 200)
