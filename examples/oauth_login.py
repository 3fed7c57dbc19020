"""Log in with OAuth: access tokens from a token endpoint, by a refresh token in a file.

CLIENT_SECRET=… python oauth_login.py smtp+starttls://mail.example.net https://login.example.net/token
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_sendmail import Credentials, SubmissionServer, submit
from twisted_sendmail.oauth import RefreshTokenFile, RefreshTokens, TokenEndpoint

MESSAGE = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: Hello\r\n\r\nHello.\r\n"


def credentials(reactor: Any, token_url: str) -> Credentials:
    """Return credentials whose tokens are refreshed; keep them for as long as the program runs."""
    endpoint = TokenEndpoint(
        reactor, token_url, "mailer", client_secret=os.environ["CLIENT_SECRET"]
    )
    tokens = RefreshTokens(endpoint, RefreshTokenFile(reactor, "refresh-token"))
    return Credentials("alice", token=tokens)


async def main(reactor: Any, url: str, token_url: str) -> None:
    """Send a message."""
    server = SubmissionServer.from_url(url, credentials=credentials(reactor, token_url))
    await submit(reactor, server, MESSAGE)


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
