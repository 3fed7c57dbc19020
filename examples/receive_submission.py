"""A submission server: STARTTLS and AUTH required, users in a password file, reloaded on SIGHUP.

python receive_submission.py CERTIFICATE_FILE PASSWORD_FILE tcp:587 tcp:465
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from twisted_sendmail import (
    PasswordFile,
    Receiver,
    ReversePath,
    SendmailError,
    ServerTLS,
    SMTPServerFactory,
)
from twisted_sendmail.smtp import MailParameters


class PrintSender(Receiver):
    """Prints user and sender, and discards the message."""

    def sender(self, sender: ReversePath, parameters: MailParameters) -> None:
        """Print the authenticated user and the sender, which is not verified."""
        print(f"{self.connection.user} sends as {sender}", flush=True)


async def main(
    reactor: Any, certificate: str, passwords: str, starttls: str, implicit: str
) -> None:
    """Listen until interrupted."""
    tls, accounts = ServerTLS(certificate), PasswordFile(passwords, reactor)
    factory = SMTPServerFactory(reactor, PrintSender, tls=tls, accounts=accounts)

    def reload() -> None:
        try:
            tls.reload()
            accounts.reload()
            print("reloaded", flush=True)
        except SendmailError as error:
            print(f"not reloaded: {error}", flush=True)

    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))
    one = await serverFromString(reactor, starttls).listen(factory)
    other = await serverFromString(reactor, implicit).listen(factory.implicit_tls())
    print("listening on", one.getHost().port, other.getHost().port, flush=True)
    await Deferred[None]()


if __name__ == "__main__":
    react(main, sys.argv[1:])
