"""An application with its own relay: messages are on disk at once, and are delivered in the background.

TWISTED_SENDMAIL_PASSWORD=… python relay_in_an_application.py smtps://ci@mail.example.net QUEUE CA_FILE RECIPIENT...
"""

from __future__ import annotations

import os
import sys
from email.message import EmailMessage
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import react
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from twisted_sendmail import (
    FinalReport,
    Queued,
    RelayService,
    SendmailError,
    SubmissionServer,
    TLSTrust,
)


class MailNotifier:
    """Sends notifications to *recipients*."""

    log = Logger()

    def __init__(self, relay: RelayService, *recipients: str) -> None:
        self._relay = relay
        self._recipients = recipients

    async def notify(self, subject: str, text: str) -> Queued | None:
        """Queue a message; it is durably on disk when this returns. None: it could not be queued."""
        message = EmailMessage()
        message["From"] = "Build Bot <ci@example.test>"
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = subject
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            queued = await self._relay.send(message)
        except SendmailError as error:
            self.log.error("no mail about {subject!r}: {error}", subject=subject, error=error)
            return None
        # Do not wait for the delivery: it may take days.
        _ = queued.delivered().addCallbacks(self._ended, self._stopped)
        return queued

    def _ended(self, report: FinalReport) -> None:
        for outcome in report.failed:
            self.log.warn("{who} gets no mail: {why}", who=outcome.recipient, why=outcome.reply)

    def _stopped(self, failure: Any) -> None:
        self.log.info("{why}", why=failure.value)


async def main(reactor: Any, url: str, queue: str, ca_file: str, *recipients: str) -> None:
    """Start the relay, send one notification, wait until it is delivered, stop."""
    observers = [textFileLogObserver(sys.stdout)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    # Or service.Application("ci"), or the parent service of your application.
    application: Any = MultiService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    relay = RelayService.to(reactor, queue, server)
    application.addService(relay)
    mail = MailNotifier(relay, *recipients)
    application.startService()
    queued = await mail.notify("build 42 failed", "See the log of step 3.\n")
    if queued is not None:
        print("queued as", queued.id, flush=True)
        report = await queued.delivered()
        for outcome in report.outcomes:
            print(outcome.recipient, outcome.state.value, outcome.reply)
    await application.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
