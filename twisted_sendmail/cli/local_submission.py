"""A message to the running relay, over its Unix socket, by the package's own client.

It says what became of each recipient, and so who is left for the queue.  A reply that
was lost leaves the message in doubt: it is queued then, with the Message-ID it has, and
goes out at worst twice; not at all would be worse for who cannot try again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import UNIXClientEndpoint

from twisted_sendmail.cli.running import run
from twisted_sendmail.client import Timeouts, TLSPolicy, sendmail
from twisted_sendmail.message import Message
from twisted_sendmail.smtp import (
    DeliveryReport,
    Envelope,
    Recipient,
    RecipientResult,
    RecipientStatus,
    SendmailError,
)

#: Seconds that a relay of this machine may be silent: it answers at once, or there is something
#: wrong with it, and who calls waits.
SILENCE = 20.0
TIMEOUTS = Timeouts(
    connect=5.0,
    greeting=SILENCE,
    command=SILENCE,
    mail=SILENCE,
    rcpt=SILENCE,
    data_init=SILENCE,
    data_block=SILENCE,
    data_end=SILENCE,
    quit=0.5,
)


@dataclass
class Handed:
    """What became of a message that was handed to the relay."""

    #: The exit status of an interrupt; nothing more is to be done then.
    interrupted: int = 0
    report: DeliveryReport | None = None
    error: SendmailError | None = None

    def left(self, envelope: Envelope) -> tuple[Recipient, ...]:
        """Those for whom it has to be queued: nobody said yes, and nobody said never."""
        for_good = self.error is not None and not self.error.temporary
        if self.report is None:
            return () if for_good else envelope.recipients
        return tuple(o.recipient for o in self.report.outcomes if _is_open(o, for_good=for_good))

    @property
    def taken(self) -> bool:
        """Does the relay have the message for anybody, or may it have it?"""
        if self.report is None:
            return self.error is not None and self.error.in_doubt
        return bool(self.report.accepted or self.report.in_doubt)

    @property
    def refused(self) -> tuple[RecipientResult, ...]:
        """Those to whom the relay says never."""
        if self.report is None:
            return ()
        return tuple(o for o in self.report.refused if not o.transient)


def _is_open(outcome: RecipientResult, *, for_good: bool) -> bool:
    if outcome.status is RecipientStatus.REFUSED:
        return outcome.transient
    if outcome.status is RecipientStatus.UNTOUCHED:
        return not for_good
    return outcome.in_doubt


def hand_over(
    socket: Path, message: Message, envelope: Envelope, watch: Callable[[str], None] | None
) -> Handed:
    """Submit *message* to the relay that listens at *socket*.

    :param watch: called with each line of the redacted dialogue.
    """
    handed = Handed()

    async def work(reactor: Any) -> int:
        try:
            handed.report = await sendmail(
                UNIXClientEndpoint(reactor, str(socket), timeout=5),
                message,
                envelope=envelope,
                server_name="",
                tls=TLSPolicy.NONE,
                helo_name="localhost",
                timeouts=TIMEOUTS,
                watch=watch,
                complete=False,
                reactor=reactor,
            )
        except SendmailError as e:
            handed.error, handed.report = e, e.report
            return 1
        except CancelledError:
            return 1
        return 0

    status = run(work)
    if status > 128:
        handed.interrupted = status
    return handed
