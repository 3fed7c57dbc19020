"""A message that is said in one go: what nearly all of them are.

Its content is small and in memory, and it asks for nothing but SIZE and 8BITMIME.  Over
a connection with PIPELINING such a message is one group, MAIL, RCPT and BDAT, or one and
its content with DATA.  As long as every reply is a success, nothing has to be decided and
nobody waits: there is no coroutine, and the report is made of the last reply.

Everything else is ``transaction``'s: it takes over with the answers that came, at the
first one that is not the success of the group or of the content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_sendmail.client.transaction import EAGER, Transaction
from twisted_sendmail.smtp import (
    Bdat,
    Command,
    CommandGroup,
    Data,
    DeliveryReport,
    RecipientResult,
    RecipientStatus,
    Reply,
    Rset,
    mail_command,
    plain_lines,
    rcpt_command,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.client.exchange import Answer
    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage

    Heard = Callable[[DeliveryReport | Failure], object]

_BDAT = b"BDAT %d LAST\r\n"
_RSET = b"RSET\r\n"
_DATA = b"DATA\r\n"


class WholeMessage(CommandGroup):
    """One message under way; its group, and what takes the answers to it.

    Make it with :func:`say_whole`.
    """

    __slots__ = (
        "_answers",
        "_commands",
        "_heard",
        "_letter",
        "_one_by_one",
        "_protocol",
        "_said",
        "_verdict_owed",
    )

    #: As a Deferred has it: what is heard is always wanted.
    called = False

    def __init__(
        self,
        protocol: SubmissionProtocol,
        letter: PreparedMessage,
        heard: Heard,
        said: Callable[[], None],
        lines: bytes,
    ) -> None:
        size = 2 + len(letter.envelope.recipients)
        content = letter.small or b""
        if protocol.session.capabilities.chunking:
            lines += _BDAT % len(content)
            if protocol.session.idle:
                super().__init__(lines, size, content)
            else:
                # See ``Transaction``: what was said before may leave its sender to us.
                super().__init__(_RSET + lines, size + 1, content, behind=True)
        else:
            super().__init__(lines + _DATA, size, None)
        self._protocol = protocol
        self._letter = letter
        self._heard = heard
        self._said = said
        self._answers: list[Answer] = []
        # Made when the group, or a part of it, is taken apart.
        self._commands: list[Command] = []
        self._verdict_owed = False
        # Of a large group at least a part did not simply succeed.
        self._one_by_one = False

    def commands(self) -> Sequence[Command]:
        """See ``CommandGroup``."""
        if self._commands:
            return self._commands
        letter, offered = self._letter, self._protocol.session.capabilities
        envelope = letter.envelope
        mail = mail_command(
            envelope, offered, size=letter.size, eight_bit=letter.eight_bit, smtputf8=False
        )
        reset = [Rset()] if self.payload is not None and self.wire.startswith(_RSET) else []
        end = Data() if self.payload is None else Bdat(len(self.payload), last=True)
        recipients = [rcpt_command(each, offered) for each in envelope.recipients]
        self._commands = [*reset, mail, *recipients, end]
        return self._commands

    def callback(self, answer: Answer | list[Reply]) -> None:
        """Take the replies to the whole group, or to a command of it, or to the content."""
        if isinstance(answer, list):
            self._success(answer)
        elif self._verdict_owed:
            if isinstance(answer, Reply) and answer.positive:
                self._accepted(answer)
            else:
                self._answers.append(answer)
                self._go_on(lambda transaction: transaction.verdict_heard(self._answers[-1]))
        else:
            self._one_by_one = True
            self._answers.append(answer)
            if len(self._answers) == self.size:
                self._go_on(self._look_closer)

    errback = callback

    def _success(self, replies: list[Reply]) -> None:
        """Take the replies to the content, to the group, or to the next part of a large one."""
        if self._verdict_owed:
            self._accepted(replies[-1])
            return
        if len(replies) < self.size:
            self._answers += replies
            if len(self._answers) < self.size:
                return
        if self._one_by_one:
            self._go_on(self._look_closer)
        elif self.payload is not None:
            self._accepted(replies[-1])
        else:
            self._content()

    def _content(self) -> None:
        """Everybody was accepted, and the server waits for the content."""
        protocol, content = self._protocol, self._letter.small or b""
        # What comes next can only be the answer to the content; or that has to be seen to.
        if not protocol.quiet or not protocol.usable:
            self._go_on(lambda transaction: transaction.content())
            return
        self._verdict_owed = True
        with protocol.group():
            protocol.session.send_content(content, self)
            self._said()

    def _accepted(self, reply: Reply) -> None:
        protocol, letter = self._protocol, self._letter
        envelope = letter.envelope
        accepted = RecipientStatus.ACCEPTED
        self._heard(
            DeliveryReport(
                envelope,
                tuple([RecipientResult(each, accepted, reply) for each in envelope.recipients]),
                reply,
                "content",
                letter.size or 0,
                protocol.host,
                protocol.tls,
                protocol.session.transcript,
                None,
                letter.message_id,
                "DSN" in protocol.session.capabilities,
            )
        )

    def _look_closer(self, transaction: Transaction) -> Coroutine[Any, Any, None]:
        if self.payload is None:
            return transaction.data_heard(self._answers)
        behind = len(self._answers) - len(self._letter.envelope.recipients) - 2
        return transaction.chunk_heard(self._answers[behind:])

    def _go_on(self, program: Callable[[Transaction], Coroutine[Any, Any, None]]) -> None:
        """Not everything is well: let the general program go on from here."""
        transaction = Transaction(self._protocol, self._letter, said=self._said, voice=self)
        _ = Deferred.fromCoroutine(transaction.run(program(transaction))).addBoth(self._heard)


def say_whole(
    protocol: SubmissionProtocol, letter: PreparedMessage, heard: Heard, said: Callable[[], None]
) -> bool:
    """Say *letter* if it is one that can be said in one go; False if that is not so, or not now.

    :param heard: called with the report, or a failure.
    :param said: called when the message has said all, if that is not said now: with
        DATA it has still to send its content.
    """
    session, content = protocol.session, letter.small
    if (
        content is None
        or len(content) > EAGER
        or letter.smtputf8
        or letter.binary
        or not session.promising
        or session.capabilities.limits
        or not session.capabilities.pipelining
        or (session.idle and not protocol.quiet)
    ):
        return False
    eight_bit = not content.isascii()
    lines = plain_lines(letter.envelope, session.capabilities, len(content), eight_bit=eight_bit)
    if lines is None:
        return False
    message = WholeMessage(protocol, letter, heard, said, lines)
    protocol.speaker = message
    session.send_group(message)
    return True
