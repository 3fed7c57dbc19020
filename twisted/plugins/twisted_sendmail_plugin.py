"""The `sendmail` plugin of `twistd`.

It names the service for `twistd --help` and imports nothing of the package: `twisted_sendmail.daemon.tap` is
loaded only when the service is asked for. There is no `__init__.py` beside this file or above it,
because this folder is a portion of Twisted's own `twisted.plugins`.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

sendmail = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted leaves this one untyped
    "twisted_sendmail",
    "twisted_sendmail.daemon.tap",
    "A mail relay: takes mail in, keeps it safe on disk, delivers it to a smarthost",
    "sendmail",
)
