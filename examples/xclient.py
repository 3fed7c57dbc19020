"""Tell Postfix the address of the client that a message comes from: XCLIENT, added to our client.

python xclient.py HOST PORT CLIENT_ADDRESS SENDER RECIPIENT

Postfix accepts this from the hosts in smtpd_authorized_xclient_hosts.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_sendmail import (
    Extension,
    ExtensionCommand,
    ExtensionUnavailable,
    SubmissionServer,
    TLSPolicy,
    open_session,
)

# After the 220 to XCLIENT the session is reset, as after the greeting.
XCLIENT = Extension("XCLIENT", commands=(ExtensionCommand("XCLIENT", restarts=True),))


async def main(reactor: Any, host: str, port: str, address: str, *envelope: str) -> None:
    """Send one message as if it came from *address*."""
    sender, recipient = envelope
    server = SubmissionServer(host, int(port), TLSPolicy.NONE, extensions=(XCLIENT,))
    protocol = await open_session(reactor, server)
    if "XCLIENT" not in protocol.session.capabilities:
        raise ExtensionUnavailable("the server does not offer XCLIENT to this host")
    prefix = "IPV6:" if ":" in address else ""
    for reply in (
        await protocol.command("XCLIENT", f"ADDR={prefix}{address} NAME=[UNAVAILABLE]"),
        await protocol.ehlo("client.example.test"),
        await protocol.mail(sender),
        await protocol.rcpt(recipient),
        await protocol.data(),
    ):
        if reply.code >= 400:
            raise SystemExit(str(reply))
    content = f"From: {sender}\r\nTo: {recipient}\r\nSubject: XCLIENT\r\n\r\nfrom {address}\r\n"
    print(await protocol.content(content.encode()))
    await protocol.quit()


if __name__ == "__main__":
    react(main, sys.argv[1:])
