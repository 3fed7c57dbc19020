"""PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and CRAM-MD5 (RFC 2195).

The server receives the password in PLAIN and LOGIN, which ``client/auth`` sends inside TLS only,
unless clear text is asked for by name.  CRAM-MD5 sends a digest from which the password can be
guessed, and the server has to store the password.
"""

from __future__ import annotations

import hmac
from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret
from twisted_sendmail.sasl.mechanism import Mechanism, OneMessage, broken_off, one_too_many
from twisted_sendmail.smtp import InvalidInput


class Plain(OneMessage):
    """The client of PLAIN; the authorization identity is the caller's, never the server's.

    :raises InvalidInput: the credentials have no password.
    """

    name: ClassVar[str] = "PLAIN"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self._password = required_password(self.name, credentials)
        self._authzid = credentials.authzid
        self._username = credentials.username

    def start(self) -> bytes:
        """Return the only message."""
        return f"{self._authzid}\0{self._username}\0{self._password.reveal()}".encode()


class Login(Mechanism):
    """The client of LOGIN: user name, then password, each after a prompt.

    Servers differ in the text of the prompts, so it is ignored.  The server sends first; RFC 4954
    section 4 has it refuse an initial response.

    :raises InvalidInput: the credentials have no password, or have an authorization identity,
        which LOGIN cannot transmit.
    """

    name: ClassVar[str] = "LOGIN"
    prompted = True

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self._password = required_password(self.name, credentials)
        if credentials.authzid:
            raise InvalidInput(f"{self.name} has no place for an authorization identity")
        self._username = credentials.username
        self._prompts = 0

    def start(self) -> None:
        """Return None: the server sends first."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, then the password.

        :raises AuthenticationRejected: at a third prompt.
        """
        self._prompts += 1
        if self._prompts == 1:
            return self._username.encode()
        if self._prompts == 2:
            return self._password.reveal().encode()
        raise one_too_many(self.name)


class CramMd5(Mechanism):
    """The client of CRAM-MD5, for servers that have nothing better; used only if it is named.

    :raises InvalidInput: the credentials have no password, do not name CRAM-MD5, or have an
        authorization identity, which CRAM-MD5 cannot transmit.
    """

    name: ClassVar[str] = "CRAM-MD5"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        self._password = required_password(self.name, credentials)
        if self.name not in (credentials.mechanisms or ()):
            raise InvalidInput(f"{self.name} is used only if mechanisms names it")
        if credentials.authzid:
            raise InvalidInput(f"{self.name} has no place for an authorization identity")
        self._username = credentials.username
        self._digested = False

    def start(self) -> None:
        """Return None: the server sends first."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name and the digest.

        :raises AuthenticationRejected: at an empty challenge, which would give the digest of the
            password alone, and at a second one.
        """
        if self._digested:
            raise one_too_many(self.name)
        if not challenge:
            raise broken_off(self.name, "the server's challenge is empty")
        self._digested = True
        digest = hmac.new(self._password.reveal().encode(), challenge, "md5").hexdigest()
        return f"{self._username} {digest}".encode()


def required_password(name: str, credentials: ResolvedCredentials) -> Secret:
    """Return the password of *credentials*, for mechanism *name*.

    :raises InvalidInput: there is none.
    """
    if credentials.password is None:
        raise InvalidInput(f"{name} needs a password")
    return credentials.password
