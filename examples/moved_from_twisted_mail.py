"""Submit one message as with twisted.mail.smtp: only the import is another.

TWISTED_SENDMAIL_PASSWORD=… python moved_from_twisted_mail.py mail.example.net 587 alice

The server's certificate has to be signed by an authority of the system. OpenSSL takes another
authority from SSL_CERT_FILE.
"""

from __future__ import annotations

import os
import sys
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_sendmail.compat import ESMTPSenderFactory, SMTPClientError

MESSAGE = b"""\
From: alice@example.test
To: bob@example.test, gone@example.test
Subject: Greetings

Hello Bob.
"""


async def main(reactor: Any, host: str, port: str, user: str) -> None:
    """Submit one message to two recipients; print the result for each."""
    result: Deferred[Any] = Deferred()
    factory = ESMTPSenderFactory(
        user.encode(),
        os.environ["TWISTED_SENDMAIL_PASSWORD"].encode(),
        "alice@example.test",
        ["bob@example.test", "gone@example.test"],
        BytesIO(MESSAGE),
        result,
        hostname=host,
    )
    factory.noisy = False
    reactor.connectTCP(host, int(port), factory)
    try:
        accepted, addresses = await result
    except SMTPClientError as error:
        again = "it may be sent again" if error.retry else "do not send it again"
        sys.exit(f"not sent, {again}: {error}")
    print(f"{accepted} accepted")
    for address, code, text in addresses:
        print(f"{address.decode()}: {code} {text.decode()}")


if __name__ == "__main__":
    react(lambda *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
