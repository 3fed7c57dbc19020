"""A contact form in Klein, which keeps the connection to the mail server between messages.

TWISTED_SENDMAIL_PASSWORD=… python klein_form.py URL CA_FILE RECIPIENT
"""

from __future__ import annotations

import os
import sys
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.server import Site

from twisted_sendmail import MailerService, MailSender, SendmailError, SubmissionServer, TLSTrust


class ContactForm:
    """Sends the field ``text`` of a POST to *recipient*."""

    app = Klein()
    log = Logger()

    def __init__(self, mailer: MailSender, recipient: str) -> None:
        self._mailer = mailer
        self._recipient = recipient

    @app.route("/", methods=["POST"])
    async def contact(self, request: IRequest) -> str:
        """Send one message; the status says whether it may be sent again."""
        message = EmailMessage()
        message["From"] = "Web site <alice@example.test>"
        message["To"] = self._recipient
        message["Subject"] = "Contact form"
        message.set_content(request.args.get(b"text", [b""])[0].decode("utf-8", "replace"))
        try:
            _ = await self._mailer.send(message)
        except SendmailError as error:
            self.log.error("contact form: {error}", error=error)
            if error.in_doubt:
                # Not 502, 503 or 504: proxies repeat such requests, and the server may have the message.
                request.setResponseCode(HTTPStatus.ACCEPTED)
                return "Your message may have been sent. Please do not send it again.\n"
            if error.transient:
                request.setResponseCode(HTTPStatus.SERVICE_UNAVAILABLE)
                return "Your message was not sent. Please try again later.\n"
            request.setResponseCode(HTTPStatus.INTERNAL_SERVER_ERROR)
            return "Your message cannot be sent.\n"
        return "Your message was sent.\n"


def main(reactor: Any, url: str, ca_file: str, recipient: str) -> Deferred[None]:
    """Serve on a free port of 127.0.0.1."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    mailer = MailerService(reactor, server)
    mailer.startService()
    reactor.addSystemEventTrigger("before", "shutdown", mailer.stopService)
    site = Site(ContactForm(mailer, recipient).app.resource())
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(f"http://127.0.0.1:{port.getHost().port}/", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
