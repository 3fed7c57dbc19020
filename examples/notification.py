"""A notifier for a long-running application: it logs errors, and never raises them.

TWISTED_SENDMAIL_PASSWORD=… python notification.py smtps://ci@mail.example.net CA_FILE RECIPIENT...
"""

from __future__ import annotations

import os
import sys
from email.message import EmailMessage
from typing import Any

from twisted.internet.task import react
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from twisted_sendmail import SendmailError, SubmissionServer, Timeouts, TLSTrust, submit


class MailNotifier:
    """Sends notifications to *recipients*, within a minute or not at all."""

    log = Logger()

    def __init__(self, reactor: Any, server: SubmissionServer, *recipients: str) -> None:
        self._reactor = reactor
        self._server = server.with_timeouts(Timeouts(total=60))
        self._recipients = recipients

    async def notify(self, subject: str, text: str) -> bool:
        """Send one message once; log and return False if no recipient is known to get it."""
        message = EmailMessage()
        message["From"] = "Build Bot <ci@example.test>"
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = subject
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            report = await submit(self._reactor, self._server, message)
        except SendmailError as error:
            # In doubt: a recipient may have it, and another call would send a second copy.
            word = "perhaps no" if error.in_doubt else "no"
            self.log.error(
                "{no} mail about {subject!r}: {error}", no=word, subject=subject, error=error
            )
            return False
        for outcome in report.refused:
            self.log.warn("{outcome}", outcome=outcome)
        return True


async def main(reactor: Any, url: str, ca_file: str, *recipients: str) -> None:
    """Send one notification."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    notifier = MailNotifier(reactor, server, *recipients)
    print("told:", await notifier.notify("build 42 failed", "See the log of step 3.\n"))


if __name__ == "__main__":
    react(main, sys.argv[1:])
