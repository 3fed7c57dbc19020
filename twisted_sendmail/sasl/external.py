"""EXTERNAL: the certificate of the TLS client is the proof; nothing secret is sent.

RFC 4422 appendix A.
"""

from __future__ import annotations

from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials
from twisted_sendmail.sasl.mechanism import OneMessage
from twisted_sendmail.smtp import InvalidInput


class External(OneMessage):
    """The client of EXTERNAL: the server finds the user by the certificate.

    It is used with credentials that have no secret, or that name it.

    :raises InvalidInput: the client has no certificate, or the credentials have a secret and do not
        name EXTERNAL.
    """

    name: ClassVar[str] = "EXTERNAL"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        if not credentials.certificate:
            raise InvalidInput(
                f"{self.name} needs a client certificate (TLSTrust, client_certificate)"
            )
        if self.name not in (credentials.mechanisms or ()):
            raise InvalidInput(f"{self.name} is used only if mechanisms names it")
        self._authzid = credentials.authzid or credentials.username

    def start(self) -> bytes:
        """Return the user to act as; empty for the owner of the certificate."""
        return self._authzid.encode()
