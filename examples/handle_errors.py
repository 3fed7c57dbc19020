"""Tell apart what can become of a message, and leave with an exit status that says so.

TWISTED_SENDMAIL_PASSWORD=… python handle_errors.py URL CA_FILE RECIPIENT...
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.task import react

from twisted_sendmail import DeliveryInDoubt, SendmailError, SubmissionServer, TLSTrust, submit


async def main(reactor: Any, url: str, ca_file: str, *recipients: str) -> None:
    """Submit; say who has it, who will not, and whether to try again."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    server = SubmissionServer.from_url(url, password=password, trust=TLSTrust(ca_file=ca_file))
    message = b"From: alice@example.test\r\nSubject: Greetings\r\n\r\nHello\r\n"
    try:
        report = await submit(
            reactor, server, message, sender="alice@example.test", recipients=recipients
        )
    except DeliveryInDoubt as error:
        # The server may have it or not: a person, or a policy, has to decide.
        print("in doubt:", error)
        sys.exit(os.EX_TEMPFAIL)
    except SendmailError as error:
        # Nobody has it. `transient`: the same may work later.
        print("try again later:" if error.transient else "give up:", error)
        sys.exit(os.EX_TEMPFAIL if error.transient else os.EX_UNAVAILABLE)
    # Somebody has it; that is a result even if others were refused.
    print("accepted:", *(outcome.recipient for outcome in report.accepted))
    for outcome in report.refused:
        print("later:" if outcome.transient else "never:", outcome)


if __name__ == "__main__":
    react(main, sys.argv[1:])
