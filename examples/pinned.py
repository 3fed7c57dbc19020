"""Submit to a server with a self-signed certificate, verified by its fingerprint.

TWISTED_SENDMAIL_PASSWORD=… python pinned.py smtp+starttls://alice@mail.example.net FINGERPRINT
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.task import react

from twisted_sendmail import CertificateRejected, SubmissionServer, TLSTrust, submit

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\n\r\nHello\r\n"


async def main(reactor: Any, url: str, fingerprint: str) -> None:
    """Submit if the certificate has the fingerprint; otherwise exit with the error."""
    password = os.environ["TWISTED_SENDMAIL_PASSWORD"]
    trust = TLSTrust(fingerprint=fingerprint)
    server = SubmissionServer.from_url(url, password=password, trust=trust)
    try:
        report = await submit(reactor, server, MESSAGE)
    except CertificateRejected as error:
        sys.exit(str(error))
    print(report.tls)


if __name__ == "__main__":
    react(main, sys.argv[1:])
