"""The commands that nearly every message begins with, read together.

MAIL, RCPT for each recipient, and DATA, as they stand in what was read, one behind the other
(RFC 2920).  What is not plainly one of them ends the run; who reads on from there reads it
with ``command_parser``.  So a run is nothing but a short way to the same commands, and no
command is understood here in another way than there.

It knows no session: whether the commands are in order is ``server_prompt``'s to see.
RFC 5321 sections 4.1.1.2 to 4.1.1.4.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.address import ForwardPath
from twisted_sendmail.smtp.command import Mail, Rcpt
from twisted_sendmail.smtp.command_parser import MAX_COMMAND_LINE, parse_command
from twisted_sendmail.smtp.envelope import Recipient
from twisted_sendmail.smtp.mail_parameters import read_mail_parameters, read_recipient
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.root_error import InvalidAddress
from twisted_sendmail.smtp.transcript import Exchange

if TYPE_CHECKING:
    from twisted_sendmail.smtp.address import ReversePath
    from twisted_sendmail.smtp.mail_parameters import MailParameters

# A recipient of whom nothing but the address is said, in the spelling of programs.
_PLAIN = re.compile(rb"RCPT TO:<[!#-;=?-\[\]-~]*>\Z").match


@lru_cache(maxsize=256)
def sender_in(line: bytes, offered: frozenset[str]) -> tuple[ReversePath, MailParameters] | None:
    """Who sends, and what else MAIL says; None when *line* is no MAIL that can be obeyed.

    :param line: without CRLF.
    :param offered: the EHLO keywords that were said.
    """
    command = parse_command(line) if len(line) <= MAX_COMMAND_LINE else None
    if not isinstance(command, Mail):
        return None
    parameters = read_mail_parameters(command, offered)
    return None if isinstance(parameters, Reply) else (command.sender, parameters)


@lru_cache(maxsize=1024)
def recipient_in(line: bytes, offered: frozenset[str], smtputf8: bool) -> Recipient | None:  # noqa: FBT001 - a key
    """Who receives; None when *line* is no RCPT that can be obeyed.

    :param smtputf8: MAIL said so.
    """
    if len(line) > MAX_COMMAND_LINE:
        return None
    if _PLAIN(line) is not None:
        try:
            return Recipient.plain(ForwardPath.inside(line[9:-1].decode("ascii")))
        except InvalidAddress:
            return None
    command = parse_command(line)
    if not isinstance(command, Rcpt):
        return None
    recipient = read_recipient(command, offered, smtputf8=smtputf8)
    return None if isinstance(recipient, Reply) else recipient


class UsualCommands(Exchange):
    """Some of them, as they were read.

    :param lines: each without CRLF.
    :param sender: of the MAIL that is the first; None: there is none.
    :param recipients: of each RCPT.
    :param data: the last one is DATA.
    :param rest: what was read behind them.
    """

    __slots__ = ("data", "recipients", "rest", "sender")

    def __init__(
        self,
        lines: list[bytes],
        sender: tuple[ReversePath, MailParameters] | None,
        recipients: list[Recipient],
        rest: bytes,
        *,
        data: bool,
    ) -> None:
        super().__init__(lines, [])
        self.sender = sender
        self.recipients = recipients
        self.data = data
        self.rest = rest


class CommandReader:
    """Reads such a run from *data*, one kind after the other.

    :param offered: the EHLO keywords that were said.
    """

    __slots__ = ("_begin", "_data", "_offered", "lines", "recipients", "sender")

    def __init__(self, data: bytes, offered: frozenset[str]) -> None:
        self._data = data
        self._offered = offered
        self._begin = 0
        self.lines: list[bytes] = []
        self.recipients: list[Recipient] = []
        self.sender: tuple[ReversePath, MailParameters] | None = None

    def mail(self) -> MailParameters | None:
        """What the MAIL that comes next says; None when none comes."""
        end = self._data.find(b"\r\n")
        line = self._data[: max(end, 0)]
        self.sender = sender_in(line, self._offered)
        if self.sender is None:
            return None
        self.lines.append(line)
        self._begin = end + 2
        return self.sender[1]

    def rcpt(self, most: int, *, smtputf8: bool) -> None:
        """Each RCPT that comes next, *most* at the most."""
        data, begin = self._data, self._begin
        end = data.find(b"\r\n", begin)
        while end >= 0 and len(self.recipients) < most:
            line = data[begin:end]
            recipient = recipient_in(line, self._offered, smtputf8)
            if recipient is None:
                break
            self.recipients.append(recipient)
            self.lines.append(line)
            begin = end + 2
            end = data.find(b"\r\n", begin)
        self._begin = begin

    def ended(self, *, data: bool) -> UsualCommands | None:
        """The run; None where there is none.

        :param data: it may end with DATA.
        """
        data = data and self._data.startswith(b"DATA\r\n", self._begin)
        if data:
            self.lines.append(b"DATA")
            self._begin += 6
        if not self.lines:
            return None
        rest = self._data[self._begin :]
        return UsualCommands(self.lines, self.sender, self.recipients, rest, data=data)
