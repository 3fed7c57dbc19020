"""The way of a message into the queue, from any source: addresses, header, facts.

Addresses are rewritten, the header is completed, hops are counted, and the facts that the queue
needs are found out. The result is a ``MessageInfo``, to be committed with the content that
:class:`Cleanup` returned. Nothing here touches a disk.

RFC 6409 section 8, RFC 5321 section 6.3 (loops).
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.message import Header, HeaderFixer
from twisted_sendmail.queue.models import MessageInfo
from twisted_sendmail.queue.signing import DKIMDomain, MailOrigin, signing_domain
from twisted_sendmail.smtp import (
    MAX_HOPS,
    InvalidInput,
    InvalidMessage,
    LongLines,
    is_loop,
    printable,
    section_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_sendmail.message import Qualification, Rewriting
    from twisted_sendmail.smtp import Envelope, ReversePath


class TooManyHops(InvalidMessage):
    """The message is in a mail loop; a server answers ``TOO_MANY_HOPS``."""


@attrs.frozen
class CleanupPolicy:
    """The rules for all messages that come in."""

    #: The name of this host.
    name: str
    #: Returns the name of the route for a sender: as it is queued, and as it was received.
    route_of: Callable[[ReversePath, ReversePath], str]
    rewriting: Rewriting | None = None
    #: The domains for addresses without one, in the header of local mail; None: they stay.
    qualification: Qualification | None = None
    #: Add missing fields to the header and remove Bcc. Otherwise the header stays unchanged, also
    #: when the sender is rewritten.
    complete: bool = True
    #: Received fields that a message may have when it comes in.
    max_hops: int = MAX_HOPS
    #: Domains whose mail is signed when it is delivered.
    dkim: tuple[DKIMDomain, ...] = ()


class Cleanup:
    """One message on its way into the queue.

    :param envelope: as it was received.
    :param id: the id of the message in the queue.
    :param now: the time of arrival, in seconds since the epoch.
    :param origin: the source of the message, for display.
    :param uid: the user of this machine who sent the message; None: there is none, or it is not known.
    :param binary: the message came with BODY=BINARYMIME.
    :param local: the message comes from a program of this machine.
    :param account: the account of the client, which has signed in.
    :param own: the message comes from the relay itself, or from the application that it is part of.
    :param held: the message waits for the operator.
    :param own_hops: Received fields at the beginning that this host added.
    :param written: the time for a missing Date; by default *now*.
    :param from_name: the sender's name, for a missing From.
    :param file_key: of the file that holds the message (``MessageInfo.file_key``).
    :raises InvalidInput: a parameter of an application's extension cannot be stored.
    """

    __slots__ = (
        "_binary",
        "_domains",
        "_file_key",
        "_fixer",
        "_held",
        "_id",
        "_long_lines",
        "_mail_origin",
        "_now",
        "_origin",
        "_original",
        "_own_hops",
        "_policy",
        "_uid",
        "dkim",
        "envelope",
    )

    def __init__(
        self,
        policy: CleanupPolicy,
        envelope: Envelope,
        id: str,  # noqa: A002 - the name of the thing
        now: float,
        *,
        origin: str = "",
        uid: int | None = None,
        local: bool = False,
        account: str | None = None,
        own: bool = False,
        binary: bool = False,
        held: bool = False,
        own_hops: int = 0,
        written: float | None = None,
        from_name: str | None = None,
        file_key: str | None = None,
    ) -> None:
        self._file_key = file_key
        self._policy = policy
        self._id = id
        self._now = now
        self._origin = printable(origin, 200)
        self._uid = uid
        # The domains that may sign, until the header is known.
        self._domains = policy.dkim
        self._mail_origin = MailOrigin(uid, account, local, own) if policy.dkim else None
        #: The domain to sign for, valid after :meth:`finish`; None: the message is not signed.
        self.dkim: DKIMDomain | None = None
        self._binary = binary
        self._long_lines = LongLines()
        self._held = held
        _check_others(envelope.others)
        for recipient in envelope.recipients:
            if recipient.others:
                _check_others(recipient.others)
        self._own_hops = own_hops
        rewriting = policy.rewriting
        #: The envelope as it is queued.
        self.envelope = envelope if rewriting is None else rewriting.envelope(envelope)
        before, after = envelope.sender, self.envelope.sender
        self._original = before
        rewrite: Callable[[Header], Header] | None = None
        if rewriting is not None and (rewriting.sets_from or before != after):
            rules = rewriting

            def rewrite(header: Header) -> Header:
                return rules.header(header, before, after)

        self._fixer = HeaderFixer(
            now if written is None else written,
            policy.name,
            after,
            from_name=from_name,
            complete=policy.complete,
            qualification=policy.qualification if local else None,
            rewrite=rewrite,
        )

    def feed(self, data: bytes) -> bytes:
        """Read content, CRLF and not dot-stuffed; return the content to be queued.

        :raises TooManyHops: the message is not to be queued.
        """
        octets = self._fixer.feed(data)
        if self._domains and octets:
            self._choose_domain(octets)
        self._check_hops()
        self._long_lines.feed(octets)
        return octets

    def finish(self) -> bytes:
        """End the content; return the rest of the content to be queued.

        :raises TooManyHops: the message is not to be queued.
        """
        octets = self._fixer.finish()
        if self._domains:
            self._choose_domain(octets)
        self._check_hops()
        self._long_lines.feed(octets)
        return octets

    def _choose_domain(self, octets: bytes) -> None:
        """Choose the domain to sign for by the header, with which *octets* begin."""
        domains, self._domains = self._domains, ()
        end = section_end(octets)
        header = Header.parse(octets if end < 0 else octets[:end])
        if self._mail_origin is not None:
            self.dkim = signing_domain(domains, header, self._mail_origin)

    def check_keys(self) -> None:
        """Check that the keys which sign the message can be read now. Blocks.

        :raises SigningUnavailable: one cannot.
        """
        if self.dkim is not None:
            _ = self.dkim.signer.read_keys()

    def _check_hops(self) -> None:
        hops = self._fixer.hops - self._own_hops
        if is_loop(hops, self._policy.max_hops):
            raise TooManyHops(
                "the message is in a mail loop",
                detail=f"the message has passed {hops} servers",
                remedy="look at its Received fields for a server that comes twice",
            )

    def message_info(self) -> MessageInfo:
        """Return the record to be committed; valid after :meth:`finish`."""
        fixer, envelope = self._fixer, self.envelope
        return MessageInfo(
            id=self._id,
            envelope=envelope,
            arrived=self._now,
            route=self._policy.route_of(envelope.sender, self._original),
            origin=self._origin,
            uid=self._uid,
            smtputf8=envelope.needs_smtputf8 or fixer.smtputf8_header,
            eight_bit=fixer.eight_bit,
            long_lines=not self._binary and self._long_lines.found,
            binary=self._binary,
            message_id=fixer.message_id,
            automatic=fixer.automatic,
            held=self._held,
            dkim=None if self.dkim is None else self.dkim.domain,
            file_key=self._file_key,
        )


def _check_others(others: Mapping[str, Any]) -> None:
    """Refuse values of an application's parameters that would not come out of the queue unchanged."""
    for keyword, value in others.items():
        if not isinstance(value, (str, int, float, NoneType)):
            raise InvalidInput(
                f"the parameter {printable(keyword, 40)} cannot be queued",
                detail=f"its value is of the type {type(value).__name__}",
                remedy="give text, a number, True, False or None",
            )
