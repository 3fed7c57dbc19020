"""One transaction on a session that is ready: MAIL, RCPT, and DATA with the content, or BDAT.

**Theory of operation.**

A :class:`Transaction` is a plain object.  It sends groups of commands and reacts to the replies of
each group, which it gets as one list; there is no coroutine and no Deferred in between:

=============================  =====================================  ===============================
the server offers              groups                                 flights with PIPELINING
=============================  =====================================  ===============================
nothing, or PIPELINING         MAIL RCPT… DATA · content              two
PIPELINING and CHUNKING        MAIL RCPT… BDAT LAST                   one
the same, large content        MAIL RCPT… · BDAT · … · BDAT LAST      two and more
=============================  =====================================  ===============================

The session writes a group in one piece or one command at a time, as the server's extensions and
the window of unanswered commands allow; this module does not depend on it.  For example, with one
recipient of three refused::

    send(MAIL, RCPT, RCPT, RCPT, DATA)    →  [250, 250, 550, 250, 354]   note the refusal
    send_content(…)                       →  [250]                       two accepted, one refused
    done(report)

**Invariants.**

- ``done`` is called exactly once, with a report that has a result for every recipient, or with the
  Failure of the message's source or of a cancellation.
- A recipient is *in doubt* only if the end of the content was written and its reply did not come.
- When 354 comes and no recipient was accepted, a lone dot ends the content.  When 354 comes, one
  recipient was refused, and the message is for all or none, the connection is dropped: a lone dot
  would deliver an empty message.
- Without SMTPUTF8 (RFC 6531), recipients that need it are refused before MAIL, if there are others.
- The session is ready for another message afterwards, by RSET if necessary, or closed.  RSET also
  precedes MAIL when an earlier message on the connection has no verdict yet: if that message is
  refused, some servers keep its sender.

RFC 5321 section 3.3, RFC 2920 section 3.1, RFC 3030 (BDAT), RFC 6152 (8BITMIME), RFC 1870 (SIZE).
"""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.message import signed
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    Bdat,
    ChunkingFailure,
    ClientState,
    CommandGroup,
    CommandNotAllowed,
    ConnectionClosed,
    Data,
    DeliveryInDoubt,
    DeliveryReport,
    ExtensionUnavailable,
    LoneDot,
    MessageTooLarge,
    RecipientStatus,
    Reply,
    ReplySubject,
    Rset,
    SendmailError,
    classify_reply,
    mail_command,
    rcpt_command,
    recipient_results,
    refusal,
    refused_parameters,
    smtputf8_refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import Capabilities, Command, CommandResult

_log = Logger(namespace="twisted_sendmail.client")


#: Octets up to which a content is sent along with the envelope, before it is known
#: whether anybody will be accepted; a longer one is sent only after RCPT succeeds.
MAX_OPTIMISTIC_SIZE = 128 * 1024


_RSET, _DATA = Rset(), Data()
# Looking up a member of an Enum takes longer than most steps of a transaction.
_READY = ClientState.READY
_ACCEPTED, _UNTOUCHED = RecipientStatus.ACCEPTED, RecipientStatus.UNTOUCHED


class Transaction:
    """One transaction.

    :param done: called once with the report, or the failure of the message's source.
    :param last: QUIT follows: a session that is not ready for another message is left as it is.
    :param all_or_nothing: do not deliver to some when others are refused.
    :param queued: called when all commands are queued, so that those of another message may follow.
    :param send_content_early: False to send no content before the envelope is answered: on a connection that
        may be dead, the message would be needlessly in doubt.
    :param may_end: called before the end of the content is written, in the call that writes it; if it returns
        False, the end is not written, and the report's error is a ``DeliveryWithdrawn``.
    """

    # Defaults of the class: one assignment less for each message.
    #: While the message is measured, encoded or signed.
    _measuring: Deferred[None] | None = None
    _error: SendmailError | None = None
    _unsupported: frozenset[str] = frozenset()
    _begins_with_rset = False
    # RSET, if the transaction begins with it, MAIL, RCPT, and DATA or the only BDAT.
    _commands: Sequence[Command] = ()
    _content: _CheckedContent | None = None
    # The places, among all recipients, of those in the envelope of ``_message``; None: all.
    _places: Sequence[int] | None = None
    _status = RecipientStatus.UNTOUCHED
    _verdict: Reply | None = None
    _decided_by: str | None = None

    def __init__(
        self,
        protocol: SubmissionProtocol,
        message: PreparedMessage,
        done: Callable[[Any], object],
        queued: Callable[[], object] | None = None,
        may_end: Callable[[], bool] | None = None,
        *,
        last: bool = False,
        all_or_nothing: bool = False,
        send_content_early: bool = True,
    ) -> None:
        self._protocol = protocol
        self._message = message
        #: That of all recipients.
        self._envelope = message.envelope
        self._done: Callable[[Any], object] | None = done
        self._queued = queued
        self._last = last
        self._all_or_nothing = all_or_nothing
        self._may_end = may_end
        self._send_content_early = send_content_early and not all_or_nothing
        # Octets to be sent; None if not known.
        self._size = message.size
        self._refused: dict[int, Reply] = {}
        # The next step, called with the answers to the group that was sent last; a function, because
        # a bound method would keep the transaction alive until the garbage collector runs.
        self._next: Callable[[Transaction, list[Any]], None] = Transaction._send_envelope

    # -- sending ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the first group."""
        offered = self._protocol.session.capabilities
        # Most messages need no SMTPUTF8.
        refused = self._message.smtputf8 and not offered.smtputf8 and self._refuse_smtputf8()
        if refused or (
            self._message.dkim is None
            and self._message.fits(
                eight_bit_mime=offered.eight_bit_mime,
                smtputf8=offered.smtputf8,
                binarymime=offered.binarymime,
            )
        ):
            self._step()
        else:
            measuring = Deferred.fromCoroutine(self._measure(offered))
            self._measuring = measuring.addCallbacks(lambda _: self._measured(), self._failed)

    def _refuse_smtputf8(self) -> bool:
        """Refuse the recipients that need SMTPUTF8; True if the whole message has to be refused."""
        envelope = self._envelope
        if not envelope.needs_smtputf8:
            return False
        places = [n for n, each in enumerate(envelope.recipients) if not each.path.needs_smtputf8]
        if self._all_or_nothing or envelope.sender.needs_smtputf8 or not places:
            return True
        for place, recipient in enumerate(envelope.recipients):
            if recipient.path.needs_smtputf8:
                self._refused[place] = smtputf8_refusal(recipient)
        self._message = self._message.to(tuple(envelope.recipients[place] for place in places))
        self._places = places
        return False

    async def _measure(self, offered: Capabilities) -> None:
        """Measure the message if the server needs that, encode what the server does not take, and sign."""
        signer, clock = self._message.dkim, self._protocol.clock
        run_blocking = partial(off_reactor, clock)
        await self._message.measure_for(offered.size, eight_bit_mime=offered.eight_bit_mime)
        self._message = await self._message.fitted(
            eight_bit_mime=offered.eight_bit_mime,
            smtputf8=offered.smtputf8,
            # A binary body is encoded before it is signed: RFC 6376 section 5.3.
            binarymime=offered.binarymime and signer is None,
            run_blocking=run_blocking,
        )
        if self._message.signature_broken:
            self._protocol.session.transcript.add("--", "signed message encoded for this server")
        if signer is not None:
            now = clock.seconds()
            self._message = await signed(self._message, signer, now, run_blocking=run_blocking)
        self._size = self._message.size

    def _measured(self) -> None:
        self._measuring = None
        if self._done is not None:
            self._step()

    def _send_envelope(self, _: object = ()) -> None:
        protocol, message = self._protocol, self._message
        session = protocol.session
        offered, extensions = session.capabilities, session.extensions
        commands: list[Command] = [
            mail_command(
                message.envelope,
                offered,
                size=self._size,
                eight_bit=message.eight_bit,
                smtputf8=bool(message.not_in_ascii)
                or (message.smtputf8 and (offered.smtputf8 or message.envelope.needs_smtputf8)),
                not_in_ascii=message.not_in_ascii,
                binary=message.binary,
                extensions=extensions,
            ),
            *[rcpt_command(each, offered, extensions) for each in message.envelope.recipients],
        ]
        self._commands = commands
        if not (offered.chunking and offered.pipelining):
            self._next = Transaction._data_answered
            commands.append(_DATA)
            protocol.send_group(CommandGroup(commands, None, self._step))
            return
        self._begins_with_rset = not session.idle or session.confirmed is not _READY
        if self._begins_with_rset:
            commands.insert(0, _RSET)
        small = message.small
        if small is None or len(small) > MAX_OPTIMISTIC_SIZE or not self._send_content_early:
            self._next = Transaction._envelope_answered
            protocol.send_group(CommandGroup(commands, None, self._step))
            return
        commands.append(Bdat(len(small), last=True))
        self._next = Transaction._message_answered
        protocol.send_group(CommandGroup(commands, small, self._step, self._may_end))
        self._all_queued()

    def _send_content(self) -> None:
        """Send the content after a 354."""
        protocol, content = self._protocol, self._message.small
        self._next = Transaction._content_answered
        with protocol.group():
            if content is None:
                self._content = self._checked_content()
            protocol.send_content(content or self._content or b"", self._step, self._may_end)
            # The source may have failed at once, and the session with it.
            if protocol.usable:
                self._all_queued()

    def _all_queued(self) -> None:
        if self._queued is not None:
            self._queued()

    def _checked_content(self) -> _CheckedContent:
        message, offered = self._message, self._protocol.session.capabilities
        return _CheckedContent(
            message,
            offered.size if message.size is None else None,
            seven_bit=message.eight_bit is None and not offered.eight_bit_mime,
        )

    # -- replies ---------------------------------------------------------------------------

    def _data_answered(self, answers: list[CommandResult]) -> None:
        """Take the replies to MAIL, RCPT and DATA."""
        *answers, asked = answers
        accepted = self._envelope_accepted(answers)
        if not isinstance(asked, (Reply, CommandNotAllowed)):
            raise asked
        granted = isinstance(asked, Reply) and asked.intermediate
        if not accepted:
            if granted:
                self._next = Transaction._dot_answered
                _ = self._protocol.send(LoneDot(), done=self._step)
            else:
                self._end_transaction()
        elif self._all_or_nothing and self._refused:
            self._withdraw(granted=granted)
        elif granted:
            self._send_content()
        else:
            self._note_verdict(asked, "DATA")
            self._end_transaction()

    def _dot_answered(self, answers: list[CommandResult]) -> None:
        """Take the reply, good or not, to the end of a content without recipients."""
        (answer,) = answers
        if isinstance(answer, SendmailError):
            raise answer
        self._end_transaction()

    def _envelope_answered(self, answers: list[CommandResult]) -> None:
        """Take the replies to MAIL and RCPT; chunks may follow."""
        if not self._envelope_accepted(answers[self._begins_with_rset :]):
            self._end_transaction()
        elif self._all_or_nothing and self._refused:
            self._withdraw(granted=False)
        else:
            self._content = self._checked_content()
            self._next = Transaction._content_answered
            self._protocol.send_chunks(self._content, self._step, self._may_end)

    def _message_answered(self, answers: list[CommandResult]) -> None:
        """Take the replies to MAIL, RCPT and the only BDAT."""
        *answers, verdict = answers[self._begins_with_rset :]
        if isinstance(verdict, DeliveryInDoubt):
            self._lost_before_verdict(answers, verdict)
        if self._protocol.session.closing and isinstance(verdict, Reply) and verdict.positive:
            # After a 421 to one recipient the server went on: the others have the message.
            answers = [getattr(answer, "reply", None) or answer for answer in answers]
        if self._envelope_accepted(answers):
            self._note_verdict(verdict, "content")
        self._end_transaction()

    def _content_answered(self, answers: list[Any]) -> None:
        """Take the reply to the content."""
        (answer,) = answers
        if self._content is not None:
            self._size = self._content.size
        if isinstance(answer, Failure):
            self._failed(answer)
            return
        if isinstance(answer, DeliveryInDoubt):
            self._status = RecipientStatus.IN_DOUBT
        self._note_verdict(answer, "content")
        self._end_transaction()

    def _envelope_accepted(self, answers: list[CommandResult]) -> bool:
        """Note who is refused; True if anybody was accepted."""
        mail, *recipients = answers
        if isinstance(mail, SendmailError):
            raise mail
        if not mail.positive:
            self._note_unsupported(mail, 0)
            self._note_verdict(mail, "MAIL")
            return False
        for number, reply in enumerate(recipients):
            if isinstance(reply, SendmailError):
                raise reply
            if not reply.positive:
                self._note_unsupported(reply, number + 1)
                place = number if self._places is None else self._places[number]
                self._refused[place] = reply
        return len(self._refused) < len(self._envelope.recipients)

    def _note_unsupported(self, refused: Reply, place: int) -> None:
        """Leave parameters that the server does not implement out of later commands."""
        command: Any = self._commands[self._begins_with_rset + place]
        names = refused_parameters(refused, [name for name, _ in command.parameters])
        if names:
            self._unsupported |= names
            self._protocol.session.withhold(*names)

    def _lost_before_verdict(self, answers: list[CommandResult], verdict: DeliveryInDoubt) -> None:
        """Take the end of the connection; the replies that came before still count.

        :raises SendmailError: always.
        """
        replies: list[CommandResult] = list(takewhile(lambda a: isinstance(a, Reply), answers))
        if replies and not self._envelope_accepted(replies):
            whole = len(replies) == len(answers) or self._decided_by is not None
            if whole and isinstance(verdict.__cause__, SendmailError):
                raise verdict.__cause__  # nobody was accepted: nobody is in doubt
        self._status = RecipientStatus.IN_DOUBT
        raise verdict

    def _note_verdict(self, verdict: CommandResult, phase: str) -> None:
        """Record *verdict* for every recipient that was not refused before.

        :raises SendmailError: there is no reply.
        """
        if isinstance(verdict, SendmailError):
            raise verdict
        self._verdict, self._decided_by = verdict, phase
        if verdict.positive:
            self._status = _ACCEPTED
        else:
            for place in range(len(self._envelope.recipients)):
                _ = self._refused.setdefault(place, verdict)

    def _withdraw(self, *, granted: bool) -> None:
        """Deliver to none: the message is for all or none, and one recipient was refused."""
        place, reply = next(iter(self._refused.items()))
        recipient = self._envelope.recipients[place]
        # All recipients before the first refused one were accepted.
        meaning = classify_reply(reply, to_rcpt=True, accepted_before=place > 0)
        self._error = refusal(
            f"RCPT TO:{recipient.path.wire}",
            reply,
            phase="RCPT",
            recipient=str(recipient),
            too_many=meaning.subject is ReplySubject.TOO_MANY_RECIPIENTS,
        )
        self._error.detail = "delivery to all or none was requested; the message was not delivered"
        if granted:
            # A lone dot would deliver an empty message to those accepted.
            why = "not all recipients were accepted"
            self._protocol.abort(ConnectionClosed("connection dropped", detail=why))
        self._end_transaction()

    # -- the end ---------------------------------------------------------------------------

    def _end_transaction(self) -> None:
        """Make the session ready for another transaction: every recipient has a result."""
        protocol, session = self._protocol, self._protocol.session
        # A message that follows begins with RSET itself.
        alone = session.idle and not session.completed
        if (
            alone
            and session.confirmed is not _READY
            and protocol.usable
            and not (self._last and not self._unsupported)
        ):
            self._next = Transaction._reset_answered
            _ = protocol.send(Rset(), done=self._step)
        else:
            self._finish()

    def _reset_answered(self, answers: list[CommandResult]) -> None:
        (answer,) = answers
        if isinstance(answer, Reply) and not answer.positive:
            self._protocol.abort(refusal("RSET", answer))
        # Without a reply the connection is gone, and the results of this message stay.
        self._finish()

    def _finish(self) -> None:
        """Call the owner with the report."""
        done, self._done = self._done, None
        if done is None:
            return
        protocol, message, error = self._protocol, self._message, self._error
        session = protocol.session
        report = DeliveryReport(
            self._envelope,
            recipient_results(
                self._envelope.recipients, self._refused, self._status, self._verdict
            ),
        )
        report.reply = self._verdict
        report.phase = self._decided_by
        report.size = self._size or 0
        report.host = protocol.host
        report.tls = protocol.tls
        report.transcript = session.transcript
        report.error = error
        report.message_id = message.message_id
        report.dsn = session.capabilities.dsn
        report.long_line = message.long_line
        report.signature_broken = message.signature_broken
        report.unsupported = self._unsupported
        if self._unsupported:
            _log.warn(
                "{host} offers {names} and does not implement it; "
                "add it to the server's ignore-extensions to avoid the attempt",
                host=protocol.host,
                names=", ".join(sorted(self._unsupported)),
            )
        if error is not None:
            _ = error.at(host=protocol.host, tls=protocol.tls, transcript=session.transcript)
            error.report = report
        done(Failure(error) if isinstance(error, Cancelled) else report)

    # -- errors ----------------------------------------------------------------------------

    def _step(self, answers: Any = ()) -> None:
        """Take the next step; an error that it raises ends the message."""
        try:
            self._next(self, answers)
        except SendmailError as error:
            self._end(error)
        except Exception:  # noqa: BLE001 - it is passed on
            self._failed(Failure())

    def _end(self, error: SendmailError) -> None:
        """End the message, because of *error*."""
        if self._done is None:
            return
        cause = error.__cause__
        if isinstance(error, DeliveryInDoubt) and isinstance(cause, Cancelled):
            cause.remedy = error.remedy
            error = cause
        # One end of a connection is the error of every message on it, each with its report.
        shared = error.report is not None and not isinstance(error, Cancelled)
        self._error = error.copy() if shared else error
        if isinstance(error, ChunkingFailure) or isinstance(cause, ChunkingFailure):
            self._unsupported |= {"CHUNKING"}
            self._protocol.session.withhold("CHUNKING")
        # After a 421 the verdicts on other messages may still come.
        if not error.connection_usable and self._protocol.usable:
            self._protocol.abort(self._error)
        self._finish()

    def _failed(self, failure: Failure) -> None:
        """Take an error of the message's source, or an unexpected one."""
        error = failure.value
        if isinstance(error, CancelledError) and not isinstance(error, Cancelled):
            error = Cancelled("cancelled")
        if isinstance(error, SendmailError):
            self._end(error)
            return
        self._protocol.abort()
        done, self._done = self._done, None
        if done is not None:
            done(failure)

    def cancel(self) -> None:
        """Close the connection; ``done`` is called with a ``Cancelled``."""
        error = Cancelled("cancelled")
        if self._measuring is not None:
            self._measuring.cancel()
        self._protocol.abort(error)
        self._end(error)


class _CheckedContent:
    """A content of unknown size or kind, up to what the server cannot take.

    :param limit: octets the server takes; None if it did not say.
    :param seven_bit: the server takes 7-bit octets only.
    """

    def __init__(self, message: PreparedMessage, limit: int | None, *, seven_bit: bool) -> None:
        self._message = message
        self._limit = limit
        self._seven_bit = seven_bit
        #: Octets read.
        self.size = 0

    async def read(self) -> bytes:
        """Return the next octets.

        :raises MessageTooLarge: the server announced a smaller SIZE (RFC 1870).
        :raises ExtensionUnavailable: an 8-bit octet, and no 8BITMIME (RFC 6152).
        """
        octets = await self._message.read()
        self.size += len(octets)
        if self._limit is not None and self.size > self._limit:
            why = f"the message has more than the {self._limit} octets allowed"
            raise MessageTooLarge("message too large", phase="content", detail=why)
        if self._seven_bit and not octets.isascii():
            raise ExtensionUnavailable(
                "8BITMIME is needed and not offered",
                phase="content",
                detail="the message has 8-bit content",
                remedy="encode it as quoted-printable or base64",
            )
        return octets
