"""Submit one message with `await`.

TWISTED_SENDMAIL_PASSWORD=… python awaiting.py smtp+starttls://alice@mail.example.net [CA_FILE]
"""

from __future__ import annotations

import os
import sys
from email.message import EmailMessage
from typing import Any

from twisted.internet.task import react

from twisted_sendmail import SubmissionServer, TLSTrust, submit


async def main(reactor: Any, url: str, ca_file: str | None = None) -> None:
    """Compose a message, submit it, and print the result for each recipient."""
    message = EmailMessage()
    message["From"] = "Alice <alice@example.test>"
    message["To"] = "Bob <bob@example.test>, carol@example.test"
    message["Subject"] = "Greetings"
    message.set_content("Grüße!\n.This line begins with a dot.\n")

    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    report = await submit(reactor, server, message)
    for outcome in report.outcomes:
        print(outcome)
    print("queued as", report.queue_id, "over", report.tls)


if __name__ == "__main__":
    react(main, sys.argv[1:])
