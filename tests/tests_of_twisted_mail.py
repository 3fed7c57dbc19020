"""Twisted's own tests of its senders, of the installed Twisted, against `twisted_sendmail.compat`.

`tests/test_compat.py` runs them: `python -m twisted.trial tests.tests_of_twisted_mail`.  Of `test_smtp`,
the other classes test the server, `SMTPClient` and `ESMTPClient` and functions, which are no part of
`compat`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.mail import smtp
from twisted.mail.test import test_smtp

from twisted_sendmail import compat

#: Test, and why it cannot hold.
LEFT_OUT = {
    "SendmailTests.test_defaultReactorIsGlobalReactor": (
        "the default of an argument is the global reactor, which has to be installed at import then"
    ),
    "SMTPSenderFactoryRetryTests.test_retryAfterDisconnect": (
        "a message whose end was not answered is sent again, and may arrive twice"
    ),
    "TLSTests.testTLS": "it tests ESMTPClient",
    "TimeoutTests.test_ESMTPClient": (
        "TLS is required, and there is no name to verify: the client is to wait for a greeting first"
    ),
    "TimeoutTests.test_resetTimeoutWhileSending": (
        "it expects HELO, and Twisted's FileSender to be the producer of the transport"
    ),
}
_CLASSES = (
    "SMTPSenderFactoryRetryTests",
    "SMTPSenderFactoryTests",
    "SenderMixinSentMailTests",
    "SendmailTests",
    "TLSTests",
    "TimeoutTests",
)


def _run() -> None:
    replaced = {name: getattr(compat, name) for name in compat.__all__ if hasattr(smtp, name)}
    module: Any = test_smtp
    module.smtp = SimpleNamespace(**{**vars(smtp), **replaced})
    for name in _CLASSES:
        theirs = getattr(test_smtp, name)
        globals()[name] = theirs
    for left_out in LEFT_OUT:
        name, _, test = left_out.partition(".")
        delattr(getattr(test_smtp, name), test)


_run()
