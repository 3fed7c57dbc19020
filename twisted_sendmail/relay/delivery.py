"""From leased messages to settlements: each goes out once, and its end is recorded.

A message is leased durably before it comes here, so an octet of it never goes out unseen.
Its end is written down before it is let go; as long as that cannot be done it is neither
tried again nor forgotten.

RFC 5321 section 4.5.4, RFC 3461 section 5.2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client import Job, JobResult
from twisted_sendmail.queue import (
    AttemptRecord,
    LeasedMessage,
    MessageDamaged,
    QueuedMessage,
    SetAsideReason,
)
from twisted_sendmail.relay.bounce import duties
from twisted_sendmail.relay.carried import Attempt
from twisted_sendmail.relay.classify import Blame, judge
from twisted_sendmail.relay.conclusion import changes_of, conclude, due_recipients, given_up
from twisted_sendmail.relay.events import Attempted, Delays, SetAside, Trouble
from twisted_sendmail.relay.ledger import Ending, Ledger
from twisted_sendmail.relay.retry_policy import age
from twisted_sendmail.relay.stored import letter_of
from twisted_sendmail.smtp import DeliveryReport, SendmailError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.conclusion import Fate
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.lane import RouteQueue
    from twisted_sendmail.relay.reporting import Reporter
    from twisted_sendmail.relay.retry_policy import Chance


class Attempts:
    """All messages on their way.

    :param reporter: writes what senders are told.
    :param ledger: writes down how tries end.
    :param tell: told of what happens.
    """

    log = Logger(namespace="twisted_sendmail.relay")

    def __init__(
        self,
        reactor: Any,
        spool: Queue,
        reporter: Reporter,
        ledger: Ledger,
        *,
        tell: Observer,
        chance: Chance,
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self.reporter = reporter
        self._tell = tell
        self._ledger = ledger
        self._chance = chance
        #: By message; until the spool was told how it ended.
        self.under_way: dict[str, Attempt] = {}
        self._waiting: list[Deferred[None]] = []

    def carry(self, lane: RouteQueue, found: Sequence[LeasedMessage]) -> None:
        """Try what was leased."""
        now = self._reactor.seconds()
        jobs = []
        lane.route.asking()
        for leased in found:
            attempt = Attempt(lane, leased, now)
            self.under_way[leased.message.id] = attempt
            if leased.message.expired:
                self._give_up(attempt)
                continue
            try:
                jobs.append(self._job(attempt, now))
            except Exception:  # noqa: BLE001 - one bad record must not stop the others
                self._heard(Failure(), attempt)
        if jobs:
            lane.route.mailer.begin(jobs)

    def _job(self, attempt: Attempt, now: float) -> Job:
        leased = attempt.leased
        attempt.tried = due_recipients(leased.message, now, attempt.lane.schedule.horizon(now))
        attempt.letter = letter = letter_of(leased, attempt.tried, self._spool)
        attempt.job = job = Job(letter, partial(self._told, attempt), now)
        return job

    # -- verdicts ------------------------------------------------------------------------

    def _told(self, attempt: Attempt, result: JobResult) -> None:
        try:
            self._heard(result, attempt)
        except Exception:  # noqa: BLE001 - one message's fault must not stop the others
            self._stumbled(Failure(), attempt)

    def _heard(self, result: JobResult, attempt: Attempt) -> None:
        if attempt.leased.content is None and attempt.letter is not None:
            _ = Deferred.fromCoroutine(attempt.letter.close())
        message, lane = attempt.leased.message, attempt.lane
        now = self._reactor.seconds()
        judgement = judge(result, len(attempt.tried))
        if judgement.error is not None and not isinstance(judgement.error, SendmailError):
            self.log.failure("{id} could not be sent", Failure(judgement.error), id=message.id)
        fates = conclude(
            message,
            attempt.tried,
            judgement,
            now=now,
            schedule=lane.schedule,
            chance=self._chance,
        )
        blame = judgement.blame
        self._learn(attempt, blame, fates)
        if blame is Blame.UNTRIED:
            self._release(attempt)
            return
        report = result if isinstance(result, DeliveryReport) else None
        self._tell_of(attempt, fates, now, report, in_doubt=judgement.in_doubt)
        if blame is Blame.DAMAGED:
            self._write(attempt, _damaged(message, now, fates))
            return
        settlement = AttemptRecord(
            message.id,
            now,
            changes_of(fates),
            tried=any(verdict.counts for verdict in judgement.verdicts),
            in_doubt=judgement.in_doubt,
        )
        dsn = report is not None and report.dsn
        self._end(attempt, Ending(settlement, fates), dsn=dsn)

    def _learn(self, attempt: Attempt, blame: Blame, fates: Sequence[Fate]) -> None:
        lane = attempt.lane
        route = lane.route
        down = not route.up
        route.learn(
            attempt.generation,
            blame,
            fates[0].reply if fates else "",
            expired=any(fate.expired for fate in fates),
        )
        if down and route.up:
            lane.look()

    def _give_up(self, attempt: Attempt) -> None:
        """The operator wants it reported and gone."""
        message = attempt.leased.message
        now = self._reactor.seconds()
        fates = given_up(message)
        self._tell_of(attempt, fates, now, None, in_doubt=False)
        settlement = AttemptRecord(message.id, now, changes_of(fates), tried=False)
        self._end(attempt, Ending(settlement, fates), dsn=False)

    def _tell_of(
        self,
        attempt: Attempt,
        fates: Sequence[Fate],
        now: float,
        report: DeliveryReport | None,
        *,
        in_doubt: bool,
    ) -> None:
        message, job = attempt.leased.message, attempt.job
        sender = _sender(message)
        taken = job.taken_at if job is not None else None
        since = job.since if job is not None else now
        delays = Delays(
            age(message.draft.arrived, attempt.begun),
            age(attempt.begun, since),
            age(since, now if taken is None else taken),
            0.0 if taken is None else age(taken, now),
        )
        tls = report.tls.version if report is not None and report.tls is not None else None
        for fate in fates:
            recipient = fate.queued.recipient
            word = fate.word
            pending = word == "deferred"
            self._tell(
                Attempted(
                    message.id,
                    attempt.lane.route.name,
                    sender,
                    printable(str(recipient.path), 320),
                    printable(recipient.orcpt, 320) if recipient.orcpt else None,
                    fate.state,
                    word,
                    fate.status,
                    fate.relay or "none",
                    fate.reply,
                    delays,
                    due=fate.due if pending else None,
                    in_doubt=in_doubt and pending,
                    doubles=message.interrupted,
                    tls=tls,
                )
            )

    # -- settlements ---------------------------------------------------------------------

    def _end(self, attempt: Attempt, ending: Ending, *, dsn: bool) -> None:
        """Write down how it ended, and what has to be reported of it."""
        message = attempt.leased.message
        due = duties(message, ending.fates, ending.settlement.at, attempt.lane.schedule, dsn=dsn)
        if not due:
            self._write(attempt, ending)
            return
        working = Deferred.fromCoroutine(
            self.reporter.report(attempt.leased, ending, due, attempt.lane.schedule)
        )
        _ = working.addErrback(self._unreported, attempt, ending)
        _ = working.addCallback(lambda reported: self._write(attempt, reported))
        _ = working.addErrback(self._stumbled, attempt)

    def _unreported(self, failure: Failure, attempt: Attempt, ending: Ending) -> Ending:
        """A failure that cannot be told of is none yet: nothing is ticked off."""
        message = attempt.leased.message
        self.log.failure("{id} could not be reported about", failure, id=message.id)
        if failure.check(MessageDamaged):
            return _damaged(message, ending.settlement.at, ending.fates)
        return self.reporter.unreported(ending, attempt.lane.schedule)

    def _write(self, attempt: Attempt, ending: Ending) -> None:
        self._ledger.write(attempt.leased.message, ending, lambda left: self._done(attempt, left))
        self._decided(attempt)

    def _release(self, attempt: Attempt) -> None:
        releasing = self._spool.release([attempt.leased.message.id])
        _ = releasing.addErrback(
            lambda failure: self._tell(
                Trouble("a lease could not be ended", printable(str(failure.value)))
            )
        )
        _ = releasing.addCallback(lambda _: self._done(attempt, attempt.leased.message))
        self._decided(attempt)

    def _stumbled(self, failure: Failure, attempt: Attempt) -> None:
        """A fault of this code: the message keeps its lease, so that nothing goes round."""
        self.log.failure("{id} stumbled", failure, id=attempt.leased.message.id)
        if not attempt.ended:
            self._done(attempt, None)
        self._decided(attempt)

    def _done(self, attempt: Attempt, left: QueuedMessage | None) -> None:
        """It is written down."""
        attempt.ended = True
        attempt.lane.ended(attempt.leased, attempt.generation, left)

    def _decided(self, attempt: Attempt) -> None:
        """What became of it is known, and given to the spool."""
        if self.under_way.get(attempt.leased.message.id) is attempt:
            del self.under_way[attempt.leased.message.id]
        if not self.under_way:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    # -- the end -------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Fires when the end of everything that is under way has been given to the spool."""
        if not self.under_way:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting


def _sender(message: QueuedMessage) -> str:
    sender = message.draft.envelope.sender
    return printable(str(sender.mailbox), 320) if sender.mailbox else ""


def _damaged(message: QueuedMessage, now: float, fates: Sequence[Fate]) -> Ending:
    settlement = AttemptRecord(message.id, now, tried=False, aside=SetAsideReason.DAMAGED)
    return Ending(settlement, fates, [SetAside(message.id, "it is not what was written")])
