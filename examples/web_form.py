"""A contact form with answers that keep browsers and proxies from sending the message twice.

TWISTED_SENDMAIL_PASSWORD=… python web_form.py URL CA_FILE RECIPIENT
"""

from __future__ import annotations

import os
import sys
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_sendmail import SendmailError, SubmissionServer, TLSTrust, submit


class ContactForm(Resource):
    """Sends the field ``text`` of a POST to *recipient*."""

    log = Logger()
    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, reactor: Any, server: SubmissionServer, recipient: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._reactor = reactor
        self._server = server
        self._recipient = recipient

    def render_POST(self, request: Request) -> int:  # noqa: N802 - Twisted's
        """Send the message, even if the browser disconnects."""
        _ = Deferred.fromCoroutine(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        left: list[Any] = []
        _ = request.notifyFinish().addErrback(left.append)
        args: dict[bytes, list[bytes]] = request.args or {}
        status = await self._send(args.get(b"text", [b""])[0].decode("utf-8", "replace"))
        if not left:
            request.setResponseCode(status)
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            request.write(TEXTS[status])
            request.finish()

    async def _send(self, text: str) -> HTTPStatus:
        message = EmailMessage()
        message["From"] = "Web site <alice@example.test>"
        message["To"] = self._recipient
        message["Subject"] = "Contact form"
        message.set_content(text)
        try:
            _ = await submit(self._reactor, self._server, message)
        except SendmailError as error:
            self.log.error("contact form: {error}", error=error)
            if error.in_doubt:
                # Not 502, 503 or 504: proxies repeat such requests, and the server may have the message.
                return HTTPStatus.ACCEPTED
            if error.transient:
                return HTTPStatus.SERVICE_UNAVAILABLE
            return HTTPStatus.INTERNAL_SERVER_ERROR
        return HTTPStatus.OK


TEXTS = {
    HTTPStatus.OK: b"Your message was sent.\n",
    HTTPStatus.ACCEPTED: b"Your message may have been sent. Please do not send it again.\n",
    HTTPStatus.SERVICE_UNAVAILABLE: b"Your message was not sent. Please try again later.\n",
    HTTPStatus.INTERNAL_SERVER_ERROR: b"Your message cannot be sent.\n",
}


def main(reactor: Any, url: str, ca_file: str, recipient: str) -> Deferred[None]:
    """Serve on a free port of 127.0.0.1."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    site = Site(ContactForm(reactor, server, recipient))
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(f"http://127.0.0.1:{port.getHost().port}/", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
