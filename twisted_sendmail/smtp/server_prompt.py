"""A server session that can be told of a usual message in a few words.

What nearly every client says of nearly every message is MAIL, RCPT and DATA, and then a
content that is read whole.  :meth:`PromptSession.usual_commands` and
:meth:`PromptSession.whole_content` see whether that is what was just read, and change nothing
by looking.  Who holds the session then asks whom it has to ask, and says at once how far all
was well: :meth:`PromptSession.agreed` and :meth:`PromptSession.content_taken`.

At whatever is not as usual the session stands where it would stand if every octet had come
by ``receive`` and every question by ``next_event``; from there on they are the way.  A test
holds the two ways to be the same.

RFC 5321 section 4.1.1, RFC 2920 (command groups), RFC 1870 and section 6.3 (what is counted).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.command import Verb
from twisted_sendmail.smtp.server_content import ContentIntake
from twisted_sendmail.smtp.server_conversation import octets_of
from twisted_sendmail.smtp.server_event import (
    ContentEnded,
    ContentOffered,
    RecipientGiven,
    SenderGiven,
)
from twisted_sendmail.smtp.server_session import ServerSession
from twisted_sendmail.smtp.server_table import ServerState
from twisted_sendmail.smtp.transparency import unstuffed
from twisted_sendmail.smtp.usual_commands import CommandReader

if TYPE_CHECKING:
    from twisted_sendmail.smtp.mail_parameters import MailParameters
    from twisted_sendmail.smtp.server_event import Question
    from twisted_sendmail.smtp.usual_commands import UsualCommands

_READY, _MAIL, _RCPT = ServerState.READY, ServerState.MAIL, ServerState.RCPT
_DATA = ServerState.DATA
_END = b"\r\n.\r\n"
#: A Received field that says nothing.
_SHORTEST_FIELD = len(b"Received:\r\n")


class PromptSession(ServerSession):
    """One connection's conversation.

    :param tls: the connection is in TLS already (port 465).
    """

    _words_said: frozenset[str] | None = None

    @property
    def idle(self) -> bool:
        """Is nothing of what was read still to be looked at, and nothing to be done or decided?"""
        if self._question is not None or self._complete or self._events:
            return False
        return not self._buffer.octets

    @property
    def output_waits(self) -> bool:
        """Is there something to be said?"""
        return bool(self._output)

    # -- the commands ---------------------------------------------------------

    def usual_commands(self, data: bytes) -> UsualCommands | None:
        """The usual commands that *data* begins with; None where it begins with something else.

        To be asked of a session that is ``idle``.
        """
        state = self.state
        settings = self.settings
        if self._words is None or self._words_said is None:
            self._words_said = frozenset(self._offered())
        reader = CommandReader(data, self._words_said)
        parameters: MailParameters | None = self._parameters
        if state is _READY:
            parameters = reader.mail() if self._may_send() else None
            if parameters is None or (parameters.size or 0) > settings.max_size:
                return None
        elif (state is not _MAIL and state is not _RCPT) or parameters is None:
            return None
        reader.rcpt(settings.max_recipients - self._recipients, smtputf8=parameters.smtputf8)
        to_somebody = bool(reader.recipients) or state is _RCPT
        return reader.ended(data=to_somebody and parameters.body != "BINARYMIME")

    def _may_send(self) -> bool:
        """Would MAIL be in order, without more ado?"""
        settings = self.settings
        if settings.max_messages is not None and self._messages >= settings.max_messages:
            return False
        return (self.tls or not settings.require_tls) and (
            self.authenticated or not settings.require_auth
        )

    def agreed(self, commands: UsualCommands) -> None:
        """Say the replies to the first of *commands*: successes all, with status codes."""
        count = len(commands.replies)
        if not count:
            return
        self.lines += count
        self._output += b"".join(map(octets_of, commands.replies))
        asked = count
        if commands.sender is not None:
            self._verb, self.state = Verb.MAIL, _MAIL
            self._parameters = commands.sender[1]
            asked -= 1
        if commands.data and count == len(commands.lines):
            asked -= 1
        if asked:
            self._recipients += asked
            self._verb, self.state = Verb.RCPT, _RCPT
        if commands.data and count == len(commands.lines):
            self._verb, self.state = Verb.DATA, _DATA

    def end_of(self, commands: UsualCommands) -> None:
        """What is behind those that were heard is read on as ever."""
        self.transcript.leave()
        behind = commands.lines[commands.heard :]
        if behind:
            self._buffer.octets += b"\r\n".join([*behind, b""])
        if commands.rest:
            self._buffer.octets += commands.rest

    def ask(self, commands: UsualCommands) -> Question:
        """The question of the one that was heard last is open."""
        self.lines += 1
        number = commands.heard - 1
        recipient = number - (commands.sender is not None)
        question: Question
        if number == 0 and commands.sender is not None:
            self._verb, self._parameters = Verb.MAIL, commands.sender[1]
            question = SenderGiven(*commands.sender)
        elif recipient < len(commands.recipients):
            self._verb = Verb.RCPT
            question = RecipientGiven(commands.recipients[recipient])
        else:
            self._verb = Verb.DATA
            question = ContentOffered()
        self._question = question
        return question

    # -- the content ----------------------------------------------------------

    def _read_data(self) -> bool:
        if self._intake is None:
            self._intake = ContentIntake(self.settings, chunked=False, binary=False)
        return super()._read_data()

    def whole_content(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The content that *data* is, unstuffed, and what is behind it.

        None where it is not all there, was begun before, or is not beyond doubt.  To be asked
        of a session that is ``idle``, behind DATA.
        """
        settings = self.settings
        end = data.find(_END)
        if self._intake is not None or end < 0 or data[:3] == b".\r\n":
            return None
        if end + 2 > settings.max_size:
            return None
        content = unstuffed(data[: end + 2])
        if content[:1] == b".":
            content = content[1:]
        if b"\0" in content or content.replace(b"\r", b"").replace(b"\n", b"\r\n") != content:
            return None
        header = content.find(b"\r\n\r\n")
        if (end if header < 0 else header) + 2 > settings.max_header:
            return None
        # There may be fewer Received fields, but not more.
        most = (len(content) if header < 0 else header) // _SHORTEST_FIELD
        if most >= settings.max_hops:
            most = content[:header].lower().count(b"received")
            if most > settings.max_hops:
                return None
        return content, data[end + 5 :]

    def content_heard(self, data: bytes) -> None:
        """*data*, up to the end of the content, was handed on; more is asked about it later."""
        intake = self._intake = ContentIntake(self.settings, chunked=False, binary=False)
        _ = intake.feed(data)
        _ = intake.finish()
        self._complete = True

    def content_taken(self, size: int) -> None:
        """A content of *size* octets was handed on, and its verdict is asked for."""
        self._verb = Verb.CONTENT
        self.transcript.add("--", f"content of {size} octets")
        self._question = ContentEnded(size)

    def accepted(self, text: str) -> bool:
        """Answer the question for the verdict with 250 and *text*; False where it is not so easy.

        :param text: with a status code.
        """
        if type(self._question) is not ContentEnded or self.state is ServerState.CLOSED:
            return False
        if self.settings.lmtp or not (text.isascii() and text.isprintable()):
            return False
        self._question = None
        said = "250 " + text
        self.transcript.add("S", said)
        self._output += said.encode("ascii") + b"\r\n"
        self.state = _READY
        self._forget()
        self._messages += 1
        self._idle = 0
        return True
