"""The stand-in for ``sendmail(8)``, ``mailq`` and ``newaliases``.

Cron, PHP, ``git send-email`` and ten thousand scripts hand in their mail by calling
``/usr/sbin/sendmail``.  It goes to the running relay, and where none runs into the queue;
exit status 0 says that it is safe, and nothing else does.

It is called often and lives shortly: what it does not need it does not import.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import NoReturn

from twisted_sendmail.cli.local_letter import caller, envelope_of, finished, sender_of
from twisted_sendmail.cli.relay_place import Place, place_of
from twisted_sendmail.cli.sendmail_options import Invocation, Misuse, Mode, parse
from twisted_sendmail.cli.standard_message import StandardMessage, read_message
from twisted_sendmail.cli.terminal import fault, note, prepare_streams, settled
from twisted_sendmail.smtp import Envelope, SendmailError, printable

_STDIN = 0
#: Seconds in which who calls shall know, beside a relay that is silent and a queue that somebody
#: has locked; and how many of them are for the queue in any case.
_ANSWER, _LEAST = 30.0, 10.0


class _Program:
    """One call.

    :param name: what it was called.
    """

    def __init__(self, name: str) -> None:
        self._name = printable(PurePath(name).name, 60) or "sendmail"

    def complain(self, text: str) -> None:
        note(f"{self._name}: {printable(text, 2048)}")

    def do(self, asked: Invocation) -> int:
        if asked.mode is Mode.ALIASES:
            return os.EX_OK  # there are none
        where = place_of(asked.config, asked.queue)
        if asked.mode is Mode.DELIVER:
            return self._deliver(asked, where)
        if asked.mode is Mode.SMTP:
            from twisted_sendmail.cli.local_session import serve

            return serve(where)
        from twisted_sendmail.cli.local_operation import flush, print_queue

        if asked.mode is Mode.FLUSH:
            return flush(where.queue, asked.flush)
        return print_queue(where.queue, asked.flush)

    # -- a message ----------------------------------------------------------------

    def _deliver(self, asked: Invocation, where: Place) -> int:
        who = caller()
        sender = sender_of(asked, who, where.sender_domain)
        try:
            message = read_message(_STDIN, dot_ends=not asked.ignore_dots)
        except OSError as e:
            self.complain(f"the message cannot be read: {e.strerror}; nothing was sent")
            return os.EX_IOERR
        try:
            envelope = envelope_of(asked, message.header, sender, where.recipient_domain)
            name = who.full_name if asked.full_name is None else asked.full_name
            now = datetime.now().astimezone()
            message.header = finished(message.header, sender, name, now, where.sender_domain)
            return self._hand_in(asked, where, message, envelope, (who.uid, who.name))
        finally:
            message.close()

    def _hand_in(
        self,
        asked: Invocation,
        where: Place,
        message: StandardMessage,
        envelope: Envelope,
        who: tuple[int, str],
    ) -> int:
        """To the relay, and what it does not take into its queue."""
        status, why, left = os.EX_OK, "no relay is running", envelope.recipients
        untaken, advice = os.EX_TEMPFAIL, "try again later"
        begun = time.monotonic()
        if _is_socket(where.socket):
            from twisted_sendmail.cli.local_submission import hand_over

            handed = hand_over(
                where.socket, message.content(), envelope, note if asked.verbose else None
            )
            if handed.interrupted:
                self.complain(f"interrupted: {handed.error or 'nothing was sent'}")
                return handed.interrupted
            left = handed.left(envelope)
            if handed.error is not None:
                why = str(handed.error)
            if handed.taken:
                from twisted_sendmail.cli.exit_status import status_of

                untaken = int(status_of(handed.report, handed.error))
                advice = "some have it or may have it: the same again may make second copies"
            if handed.refused or (handed.error is not None and not left):
                status = self._refused(handed)
        if not left:
            return status
        if asked.verbose:
            note(f"-- {why}; into the queue {printable(str(where.queue), 300)}")
        where.check_size(message.octets)
        from twisted_sendmail.cli.local_queue import enqueue
        from twisted_sendmail.queue import QueueError

        patience = max(_LEAST, _ANSWER - (time.monotonic() - begun))
        policy = where.policy()
        try:
            name = enqueue(
                where.queue, policy, envelope.to(left), message.pieces(), who, patience=patience
            )
        except (QueueError, OSError) as e:
            self.complain(f"the message was not taken, {advice}: {why}; {e}")
            return untaken
        if asked.verbose:
            note(f"-- queued as {name}")
        return status

    def _refused(self, handed: object) -> int:
        """The relay says never: name whom, and why."""
        from twisted_sendmail.cli.exit_status import status_of
        from twisted_sendmail.cli.local_submission import Handed
        from twisted_sendmail.cli.result import trouble_lines

        assert isinstance(handed, Handed)  # noqa: S101 - imported only here
        lines = [str(outcome) for outcome in handed.refused]
        if handed.error is not None and not handed.error.temporary:
            lines = trouble_lines(handed.report, handed.error)
        for line in lines:
            self.complain(line)
        final = handed.error if handed.error is None or not handed.error.temporary else None
        return int(status_of(handed.report, final))


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def main(words: Sequence[str]) -> int:
    """Run it.

    :param words: the command line, the program's name first.
    :returns: the exit status.
    """
    prepare_streams()
    program = _Program(words[0] if words else "sendmail")
    try:
        return program.do(parse(words[0] if words else "", words[1:]))
    except Misuse as e:
        program.complain(str(e))
        return os.EX_USAGE
    except SendmailError as e:
        from twisted_sendmail.cli.exit_status import status_of_error

        program.complain(str(e))
        return int(status_of_error(e))
    except KeyboardInterrupt:
        program.complain("interrupted; it is not certain that the message was taken")
        return 130
    except Exception as e:  # noqa: BLE001 - never a traceback
        program.complain(fault(e))
        return os.EX_SOFTWARE


def console() -> NoReturn:
    """The entry point of the script.

    It collects no garbage, for it ends before there is much, and it does not tidy up what
    ends with the process.
    """
    gc.disable()
    os._exit(settled(main(sys.argv)))
