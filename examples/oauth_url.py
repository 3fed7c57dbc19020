"""Log in with OAuth at the server of a URL, which has the settings of OAuth too.

python oauth_url.py 'smtps://alice@mail.example.net?oauth-provider=google&oauth-client-id=…&oauth-refresh-token-file=…'
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_sendmail import SubmissionServer, submit
from twisted_sendmail.oauth import url_tokens

MESSAGE = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: Hello\r\n\r\nHello.\r\n"


async def main(reactor: Any, url: str) -> None:
    """Send a message; the server and its tokens can be used for many."""
    server = SubmissionServer.from_url(url, tokens=url_tokens(reactor))
    await submit(reactor, server, MESSAGE)


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
