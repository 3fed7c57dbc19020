"""One message on a session that is ready: MAIL, RCPT, and DATA and content or BDAT.

What is commanded together goes out together if the server offers PIPELINING, and
one after the other if not; this code is the same for both.  It ends with a report in
any case: what became of each recipient, and why, if a verdict is missing.

RFC 5321 section 3.3, RFC 2920 section 3.1 (the lone dot), RFC 3030 (BDAT), RFC 6152,
RFC 1870.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.internet.defer import CancelledError

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.content_guard import GuardedContent
from twisted_sendmail.client.exchange import Answer, reply_of
from twisted_sendmail.client.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    Bdat,
    ClientState,
    Command,
    CommandNotAllowed,
    ConnectionClosed,
    Data,
    DeliveryInDoubt,
    DeliveryReport,
    RecipientStatus,
    Reply,
    Rset,
    SendmailError,
    mail_command,
    rcpt_command,
    recipient_results,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.defer import Deferred

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import Capabilities

#: Octets up to which a content is sent along with the envelope, before it is known
#: whether anybody will be accepted; a longer one is worth the wait.
EAGER = 128 * 1024


async def transact(
    protocol: SubmissionProtocol,
    letter: PreparedMessage,
    *,
    last: bool = False,
    all_or_nothing: bool = False,
    said: Callable[[], None] | None = None,
    eager: bool = True,
) -> DeliveryReport:
    """Send one message; the report says what became of it.

    :param last: QUIT follows: a session that is not ready for another message is left as it is.
    :param all_or_nothing: do not deliver to some when others are refused.
    :param said: called when the message has said all it will if nothing goes wrong, and
        what the next one says may go out behind it in the same write.
    :param eager: False not to send content before the envelope is answered: on a connection
        that may be dead, the message would be in doubt for nothing.
    :raises Exception: what the message's own source raises; nothing was delivered then.

    :raises Cancelled: the caller cancelled; the connection is closed, and its ``report``
        says whether the message is in doubt.
    """
    transaction = Transaction(protocol, letter, said=said, last=last, all_or_nothing=all_or_nothing)
    transaction.eager = eager and not all_or_nothing
    return await transaction.run(transaction.begin())


class Transaction:
    """One message on its way; parameters are those of :func:`transact`.

    :param voice: who speaks for it on the protocol, if it is not itself.
    """

    #: The content may go out along with the envelope.
    eager = True

    def __init__(
        self,
        protocol: SubmissionProtocol,
        letter: PreparedMessage,
        *,
        said: Callable[[], None] | None,
        last: bool = False,
        all_or_nothing: bool = False,
        voice: object = None,
    ) -> None:
        self._protocol = protocol
        self._letter = letter
        self._all_or_nothing = all_or_nothing
        self._said = said
        self._last = last
        self._voice = voice or object()
        self._recipients = letter.envelope.recipients
        self._refused: dict[int, Reply] = {}
        self._status = RecipientStatus.UNTOUCHED
        self._verdict: Reply | None = None
        self._phase: str | None = None
        self._error: SendmailError | None = None
        self._size = letter.size or 0

    async def run(self, program: Coroutine[Any, Any, None]) -> DeliveryReport:
        """Go through *program*, one of this class; the report, whatever comes of it."""
        try:
            await program
        except CancelledError as e:
            self._error = e if isinstance(e, SendmailError) else Cancelled("cancelled")
            self._protocol.abort(self._error)
            self._report()
            raise self._error from None
        except SendmailError as e:
            # One end of a connection is the error of every message on it, each with its report.
            self._error = e if e.report is None else e.copy()
        except BaseException:
            self._protocol.abort()
            raise
        # Behind a 421 the verdicts on other messages may still come.
        if self._error and not self._error.connection_usable and self._protocol.usable:
            self._protocol.abort(self._error)
        return self._report()

    async def begin(self) -> None:
        """All of it, from the beginning."""
        protocol = self._protocol
        offered = protocol.session.capabilities
        await self._fit(offered)
        letter = self._letter
        envelope: list[Command] = [
            mail_command(
                letter.envelope,
                offered,
                size=letter.size,
                eight_bit=letter.eight_bit,
                smtputf8=letter.smtputf8,
                binary=letter.binary,
            )
        ]
        envelope += [rcpt_command(recipient, offered) for recipient in self._recipients]
        if protocol.session.idle:
            # A reply that came since the last one is nobody's; see that it is not ours.
            await protocol.settled()
        if offered.chunking and offered.pipelining:
            await self._in_chunks(envelope)
        else:
            await self._behind_data(envelope)

    # -- DATA (RFC 5321 section 4.1.1.4) -----------------------------------------------

    async def _behind_data(self, envelope: list[Command]) -> None:
        self._protocol.speaker = self._voice
        await self.data_heard(await self._protocol.exchange([*envelope, Data()]))

    async def data_heard(self, answers: list[Answer]) -> None:
        """Go on from the answers to MAIL, RCPT and DATA."""
        *answers, asked = answers
        go_on = self._envelope_heard(answers)
        reply = asked if isinstance(asked, Reply) else None
        if reply is None and not isinstance(asked, CommandNotAllowed):
            reply_of(asked)
        granted = reply is not None and reply.intermediate
        if not go_on:
            await self._nobody(granted=granted)
        elif self._all_or_nothing and self._refused:
            await self._withdraw(granted=granted)
        elif granted:
            await self.content()
        elif reply is not None:
            self._refuse_rest(reply, "DATA")
            await self._reset()

    async def content(self) -> None:
        """Go on from a 354."""
        protocol = self._protocol
        # See that what comes next can only be the answer to the content.
        await protocol.settled()
        content: Any = self._letter.small
        if content is None:
            content = self._guarded()
        with protocol.group():
            verdict = protocol.content(content)
            # Its source may have failed at once, and the session with it.
            if protocol.usable:
                self._nothing_more()
        await self._hear(verdict, content)

    # -- BDAT (RFC 3030) ---------------------------------------------------------------

    async def _in_chunks(self, envelope: list[Command]) -> None:
        protocol, small = self._protocol, self._letter.small
        session = protocol.session
        behind = not session.idle or session.confirmed is not ClientState.READY
        if behind:
            # What was said before is not answered yet.  Should nobody be accepted there, some
            # servers go on with its sender, and would take our recipients to be his.
            envelope.insert(0, Rset())
        protocol.speaker = self._voice
        if small is not None and len(small) <= EAGER and self.eager:
            with protocol.group():
                waiting = protocol.exchange([*envelope, Bdat(len(small), last=True)], small)
                self._nothing_more()
            await self.chunk_heard((await waiting)[behind:])
            return
        if not self._envelope_heard((await protocol.exchange(envelope))[behind:]):
            await self._reset()
        elif self._all_or_nothing and self._refused:
            await self._withdraw(granted=False)
        else:
            content = self._guarded()
            await self._hear(protocol.chunks(content), content)
            await self._reset()

    async def chunk_heard(self, answers: list[Answer]) -> None:
        """Go on from the answers to MAIL, RCPT and the only BDAT."""
        *answers, verdict = answers
        if isinstance(verdict, DeliveryInDoubt):
            self._lost_in_chunks(answers, verdict)
        if isinstance(verdict, Reply) and verdict.positive:
            # A 421 to one recipient, and no end: the others have it.
            answers = [getattr(a, "reply", None) or a for a in answers]
        if self._envelope_heard(answers):
            self._judged(reply_of(verdict))
        await self._reset()

    # -- what was heard ----------------------------------------------------------------

    async def verdict_heard(self, verdict: Answer) -> None:
        """Go on from the answer to the content behind DATA."""
        if isinstance(verdict, DeliveryInDoubt):
            self._in_doubt(verdict)
        self._judged(reply_of(verdict))

    def _envelope_heard(self, answers: list[Answer]) -> bool:
        """Note who is refused; True if anybody was accepted."""
        mail = reply_of(answers[0])
        if not mail.positive:
            self._refuse_rest(mail, "MAIL")
            return False
        for index, answer in enumerate(answers[1:]):
            reply = reply_of(answer)
            if not reply.positive:
                self._refused[index] = reply
        return len(self._refused) < len(self._recipients)

    def _lost_in_chunks(self, answers: list[Answer], verdict: DeliveryInDoubt) -> NoReturn:
        """The connection ended; what was heard before still counts."""
        replies: list[Answer] = list(takewhile(lambda a: isinstance(a, Reply), answers))
        if replies and not self._envelope_heard(replies):
            whole = len(replies) == len(answers) or bool(self._phase)
            if whole and isinstance(verdict.__cause__, SendmailError):
                raise verdict.__cause__  # nobody was accepted: there is nothing to doubt
        self._in_doubt(verdict)
        raise verdict

    async def _hear(self, verdict: Deferred[Reply], content: GuardedContent | bytes) -> None:
        try:
            reply = await verdict
        except DeliveryInDoubt as e:
            self._in_doubt(e)
            raise
        finally:
            if isinstance(content, GuardedContent):
                self._size = content.size
        self._judged(reply)

    def _judged(self, reply: Reply) -> None:
        self._verdict, self._phase = reply, "content"
        if reply.positive:
            self._status = RecipientStatus.ACCEPTED
        else:
            self._refuse_rest(reply, "content")

    def _in_doubt(self, error: DeliveryInDoubt) -> None:
        """The server may have the message or not.

        :raises Cancelled: because the caller gave up.
        """
        self._status = RecipientStatus.IN_DOUBT
        cause = error.__cause__
        if isinstance(cause, Cancelled):
            cause.remedy = error.remedy
            raise cause from None

    # -- what is said ------------------------------------------------------------------

    def _nothing_more(self) -> None:
        """Tell that all commands of this message are queued."""
        if self._said is not None:
            self._said()

    def _guarded(self) -> GuardedContent:
        letter, offered = self._letter, self._protocol.session.capabilities
        return GuardedContent(
            letter,
            offered.size if letter.size is None else None,
            seven_bit=letter.eight_bit is None and "8BITMIME" not in offered,
        )

    async def _fit(self, offered: Capabilities) -> None:
        """Take the 7-bit form where the server needs it and the message has one."""
        letter, eight_bit_mime = self._letter, "8BITMIME" in offered
        await letter.measure_for(offered.size, eight_bit_mime=eight_bit_mime)
        self._size = letter.size or 0
        if letter.eight_bit and not eight_bit_mime and not letter.binary:
            encoded = await off_reactor(self._protocol.clock, letter.seven_bit)
            self._letter = encoded or letter
            self._size = self._letter.size or 0

    async def _nobody(self, *, granted: bool) -> None:
        """Nobody was accepted; the server may wait for a content all the same."""
        if granted:
            await self._protocol.lone_dot()
        await self._reset()

    async def _withdraw(self, *, granted: bool) -> None:
        """All or nothing, and it is not all."""
        index, reply = next(iter(self._refused.items()))
        recipient = self._recipients[index]
        self._error = refusal(
            f"RCPT TO:{recipient.path.wire}", reply, phase="RCPT", recipient=str(recipient)
        )
        self._error.detail = "all recipients or none were asked for, so nobody gets it"
        if granted:
            # A lone dot would deliver an empty message to those accepted.
            self._protocol.abort(
                ConnectionClosed("connection dropped", detail="not all recipients were accepted")
            )
        else:
            await self._reset()

    async def _reset(self) -> None:
        """Leave a session that is ready, or none: the next message must start clean."""
        protocol = self._protocol
        # If the next message has spoken, the state is its own: it found what we left, and said RSET.
        over = (
            protocol.speaker is not self._voice or protocol.session.confirmed is ClientState.READY
        )
        if self._last or over or not protocol.usable:
            return
        try:
            reply = await protocol.rset()
        except SendmailError:
            return  # the connection is gone; what is known of this message stays
        if not reply.positive:
            protocol.abort(refusal("RSET", reply))

    def _refuse_rest(self, reply: Reply, phase: str) -> None:
        self._verdict, self._phase = reply, phase
        for index in range(len(self._recipients)):
            self._refused.setdefault(index, reply)

    def _report(self) -> DeliveryReport:
        protocol, letter = self._protocol, self._letter
        outcomes = recipient_results(self._recipients, self._refused, self._status, self._verdict)
        report = DeliveryReport(
            letter.envelope,
            outcomes,
            reply=self._verdict,
            phase=self._phase,
            size=self._size,
            host=protocol.host,
            tls=protocol.tls,
            transcript=protocol.session.transcript,
            error=self._error,
            message_id=letter.message_id,
            dsn="DSN" in protocol.session.capabilities,
        )
        if self._error is not None:
            self._error.at(
                host=protocol.host, tls=protocol.tls, transcript=protocol.session.transcript
            )
            self._error.report = report
        return report
