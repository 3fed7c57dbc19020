"""One message on a session that is ready: MAIL, RCPT, DATA, content.

What is commanded together goes out together if the server offers PIPELINING, and
one after the other if not; this code is the same for both.  It ends with a report in
any case: what became of each recipient, and why, if a verdict is missing.

RFC 5321 section 3.3, RFC 2920 section 3.1 (the lone dot), RFC 6152, RFC 1870.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.content_guard import GuardedContent
from twisted_sendmail.smtp.client_table import State
from twisted_sendmail.smtp.errors import (
    CommandNotAllowed,
    ConnectionClosed,
    DeliveryInDoubt,
    SendmailError,
    refusal,
)
from twisted_sendmail.smtp.outcome import DeliveryReport, Outcome, Status
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.request import mail_command, rcpt_command

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message.letter import Letter
    from twisted_sendmail.smtp.capabilities import Capabilities

#: A reply, or why there is none.
Answer = Reply | SendmailError


async def transact(
    protocol: SubmissionProtocol,
    letter: Letter,
    *,
    last: bool = False,
    all_or_nothing: bool = False,
) -> DeliveryReport:
    """Send one message; the report says what became of it.

    :param last: say QUIT behind the content; wait for the end with ``protocol.end()``.
    :param all_or_nothing: do not deliver to some when others are refused.
    :raises Exception: what the message's own source raises; nothing was delivered then.

    :raises Cancelled: the caller cancelled; the connection is closed, and its ``report``
        says whether the message is in doubt.
    """
    return await _Transaction(protocol, letter, last=last, all_or_nothing=all_or_nothing).run()


class _Transaction:
    def __init__(
        self, protocol: SubmissionProtocol, letter: Letter, *, last: bool, all_or_nothing: bool
    ) -> None:
        self._protocol = protocol
        self._letter = letter
        self._last = last
        self._all_or_nothing = all_or_nothing
        self._recipients = letter.envelope.recipients
        self._refused: dict[int, Reply] = {}
        self._status = Status.UNTOUCHED
        self._verdict: Reply | None = None
        self._phase: str | None = None
        self._error: SendmailError | None = None
        self._size = letter.size or 0

    async def run(self) -> DeliveryReport:
        try:
            await self._run()
        except CancelledError as e:
            self._error = e if isinstance(e, SendmailError) else Cancelled("cancelled")
            self._protocol.abort(self._error)
            self._report()
            raise self._error from None
        except SendmailError as e:
            self._error = e
        except BaseException:
            self._protocol.abort()
            raise
        if self._error is not None and not self._error.connection_usable:
            self._protocol.abort(self._error)
        return self._report()

    async def _run(self) -> None:
        protocol = self._protocol
        offered = protocol.session.capabilities
        self._fit(offered)
        letter = self._letter
        mail = mail_command(
            letter.envelope,
            offered,
            size=letter.size,
            eight_bit=letter.eight_bit,
            smtputf8=letter.smtputf8,
        )
        # A reply that came since the last one is nobody's; see that it is not ours.
        await protocol.settled()
        with protocol.group():
            mailed = _answer(protocol.mail(mail.sender, mail.parameters))
            rcpts = [rcpt_command(recipient, offered) for recipient in self._recipients]
            received = [_answer(protocol.rcpt(rcpt.recipient, rcpt.parameters)) for rcpt in rcpts]
            asked = _answer(protocol.data())
        mail_reply = _heard(await mailed)
        for index, waiting in enumerate(received):
            answer = await waiting
            if isinstance(answer, CommandNotAllowed):
                continue  # MAIL was refused, and it was not even sent
            reply = _heard(answer)
            if mail_reply.positive and not reply.positive:
                self._refused[index] = reply
        data_answer = await asked
        data_reply = data_answer if isinstance(data_answer, Reply) else None
        if data_reply is None and not isinstance(data_answer, CommandNotAllowed):
            _heard(data_answer)
        if not mail_reply.positive:
            self._refuse_rest(mail_reply, "MAIL")
        elif self._all_or_nothing and self._refused:
            await self._withdraw(data_reply)
            return
        if len(self._refused) == len(self._recipients):
            await self._nobody(data_reply)
        elif data_reply is not None and data_reply.intermediate:
            await self._content()
        elif data_reply is not None:
            self._refuse_rest(data_reply, "DATA")
            await self._reset()

    def _fit(self, offered: Capabilities) -> None:
        """Take the 7-bit form where the server needs it and the message has one."""
        if self._letter.eight_bit and "8BITMIME" not in offered:
            self._letter = self._letter.seven_bit() or self._letter
            self._size = self._letter.size or 0

    async def _content(self) -> None:
        protocol, letter = self._protocol, self._letter
        # See that what comes next can only be the answer to the content.
        await protocol.settled()
        guarded = None
        content: Any = letter.small
        if content is None:
            offered = protocol.session.capabilities
            limit = offered.size if letter.size is None else None
            unknown = letter.eight_bit is None and "8BITMIME" not in offered
            content = guarded = GuardedContent(letter, limit, seven_bit=unknown)
        with protocol.group():
            verdict = protocol.content(content)
            # Its source may have failed at once, and the session with it.
            if self._last and protocol.usable:
                _ = protocol.quit().addErrback(lambda _: None)
        try:
            reply = await verdict
        except DeliveryInDoubt as e:
            self._status = Status.IN_DOUBT
            cause = e.__cause__
            if isinstance(cause, Cancelled):
                cause.remedy = e.remedy
                raise cause from None
            raise
        finally:
            self._size = guarded.size if guarded is not None else self._size
        self._verdict, self._phase = reply, "content"
        if reply.positive:
            self._status = Status.ACCEPTED
        else:
            self._refuse_rest(reply, "content")

    async def _nobody(self, data_reply: Reply | None) -> None:
        """Nobody was accepted; the server may wait for a content all the same."""
        if data_reply is not None and data_reply.intermediate:
            await self._protocol.lone_dot()
        await self._reset()

    async def _withdraw(self, data_reply: Reply | None) -> None:
        """All or nothing, and it is not all."""
        index, reply = next(iter(self._refused.items()))
        recipient = self._recipients[index]
        self._error = refusal(
            f"RCPT TO:{recipient.path.wire}", reply, phase="RCPT", recipient=str(recipient)
        )
        self._error.detail = "all recipients or none were asked for, so nobody gets it"
        if data_reply is not None and data_reply.intermediate:
            # A lone dot would deliver an empty message to those accepted.
            self._protocol.abort(
                ConnectionClosed("connection dropped", detail="not all recipients were accepted")
            )
        else:
            await self._reset()

    async def _reset(self) -> None:
        """Leave a session that is ready, or none: the next message must start clean."""
        protocol = self._protocol
        if self._last or not protocol.usable or protocol.session.confirmed is State.READY:
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
        outcomes = tuple(
            Outcome(recipient, Status.REFUSED, self._refused[index])
            if index in self._refused
            else Outcome(recipient, self._status, self._verdict)
            for index, recipient in enumerate(self._recipients)
        )
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
        )
        if self._error is not None:
            self._error.at(
                host=protocol.host, tls=protocol.tls, transcript=protocol.session.transcript
            )
            self._error.report = report
        return report


def _answer(waiting: Deferred[Reply]) -> Deferred[Answer]:
    """The same, with the failures of the session as results: none is left unheard."""

    def value(failure: Failure) -> SendmailError:
        failure.trap(SendmailError)
        error: SendmailError = failure.value  # type: ignore[assignment]
        return error

    return waiting.addErrback(value)


def _heard(answer: Answer) -> Reply:
    if isinstance(answer, SendmailError):
        raise answer
    return answer
