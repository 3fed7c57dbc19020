"""SCRAM: the password is proved and never sent, and the server proves it knows it too.

RFC 5802 (the mechanism, SCRAM-SHA-1), RFC 7677 (SCRAM-SHA-256); SCRAM-SHA-512 is the
same with another hash.  No channel binding (-PLUS): the GS2 flag is ``n``.

A 235 counts only once the server's signature was right.  The arithmetic is that of
`hashlib` and `hmac`; what is here is the exchange and its checks.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret
from twisted_sendmail.sasl.mechanism import Mechanism, one_too_many
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.smtp import (
    AuthenticationError,
    AuthenticationRejected,
    InvalidInput,
    ServerNotAuthentic,
)

__all__ = [
    "MAX_ITERATIONS",
    "MIN_ITERATIONS",
    "Scram",
    "ScramSha1",
    "ScramSha256",
    "ScramSha512",
    "escape_identity",
]

#: RFC 7677 section 4, RFC 5802 section 5.1: with fewer, whoever poses as the server
#: can try out passwords against our proof too cheaply.
MIN_ITERATIONS = 4_096
#: With more, a server could have us compute for as long as it likes; this is under
#: a second.
MAX_ITERATIONS = 1_000_000

# RFC 5802 section 7.  Extensions may follow; a mandatory one ("m=") may not be ignored.
_SERVER_FIRST = re.compile(
    r"r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)"
    r",s=(?P<salt>[A-Za-z0-9+/=]+)"
    r",i=(?P<iterations>[1-9][0-9]{0,18})"
    r"(?:,[A-Za-z]=[^,\x00]+)*"
)
_SERVER_FINAL = re.compile(r"v=(?P<signature>[A-Za-z0-9+/=]*)(?:,[A-Za-z]=[^,\x00]+)*")
# RFC 5802 section 7.  A server may write any other word: it could be a quotation.
_ERRORS = frozenset(
    {
        "channel-binding-not-supported",
        "channel-bindings-dont-match",
        "extensions-not-supported",
        "invalid-encoding",
        "invalid-proof",
        "invalid-username-encoding",
        "no-resources",
        "other-error",
        "server-does-support-channel-binding",
        "unknown-user",
        "unsupported-channel-binding-type",
    }
)
_SERVER_ERROR = re.compile(r"e=(?P<error>[^,\x00]+)(?:,.*)?", re.DOTALL)


class Scram(Mechanism):
    """The client of every SCRAM; a subclass says with which hash.

    :param nonce: the client's nonce, for tests; printable ASCII without a comma.
    :raises InvalidInput: the credentials have no password, or SASLprep (RFC 4013)
        does not allow it or the user name.
    """

    #: The hash, by the name `hashlib` has for it.
    hash_name: ClassVar[str]

    def __init__(self, credentials: ResolvedCredentials, *, nonce: str | None = None) -> None:
        if credentials.password is None:
            raise InvalidInput(f"{self.name} needs a password")
        self._password = _prepared(self.name, credentials.password)
        username = _prepared_name(self.name, credentials.username)
        self._nonce = nonce or secrets.token_urlsafe(24)
        authzid = credentials.authzid
        self._gs2_header = f"n,{f'a={escape_identity(authzid)}' if authzid else ''},"
        self._client_first_bare = f"n={escape_identity(username)},r={self._nonce}"
        self._server_signature: bytes | None = None
        self._proved = False
        self._refused = False
        self._explanation = ""
        self.expensive = True

    def start(self) -> bytes:
        """Return the client's first message."""
        return f"{self._gs2_header}{self._client_first_bare}".encode()

    def respond(self, challenge: bytes) -> bytes:
        """Return the proof, then, when the server's signature is right, an empty response.

        To an error of the server the response is empty as well; its reply follows.

        :raises AuthenticationRejected: the server does not speak SCRAM, or asks for
            more than ``MAX_ITERATIONS``.
        :raises ServerNotAuthentic: it is not the server that knows the password: the
            nonce is not ours with something added, there are fewer than
            ``MIN_ITERATIONS``, the signature is missing or wrong.
        """
        if self._proved or self._refused:
            raise one_too_many(self.name)
        message = challenge.decode("utf-8", "replace")
        error = _SERVER_ERROR.fullmatch(message)
        if error:
            self._refused = True
            self.expensive = False
            self._explanation = error["error"] if error["error"] in _ERRORS else "other-error"
            return b""
        if self._server_signature is None:
            return self._prove(message)
        self._verify(message, self._server_signature)
        return b""

    def succeeded(self) -> None:
        """Raise `ServerNotAuthentic` unless the server's signature was right."""
        if not self._proved:
            raise self._not_authentic("it said 235 without proving that it knows the password")

    @property
    def explanation(self) -> str:
        """The server's error, one of the words of RFC 5802 section 7 (``invalid-proof``)."""
        return self._explanation

    def _prove(self, server_first: str) -> bytes:
        match = _SERVER_FIRST.fullmatch(server_first)
        if match is None:
            raise self._rejected("the server's first message is malformed")
        nonce = match["nonce"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise self._not_authentic("its nonce is not ours with its own added")
        salt = _decoded(match["salt"])
        if not salt:
            raise self._rejected("the server's salt is not base64")
        iterations = int(match["iterations"])
        if iterations < MIN_ITERATIONS:
            raise self._not_authentic(
                f"it asks for {iterations} iterations, fewer than {MIN_ITERATIONS}"
            )
        if iterations > MAX_ITERATIONS:
            raise self._rejected(
                f"the server asks for {iterations} iterations, more than {MAX_ITERATIONS}"
            )

        gs2_header = b64encode(self._gs2_header.encode()).decode()
        without_proof = f"c={gs2_header},r={nonce}"
        proof, self._server_signature = _proof_and_signature(
            self.hash_name,
            self._password,
            (salt, iterations),
            f"{self._client_first_bare},{server_first},{without_proof}".encode(),
        )
        self.expensive = False
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def _verify(self, server_final: str, expected: bytes) -> None:
        match = _SERVER_FINAL.fullmatch(server_final)
        signature = _decoded(match["signature"]) if match else b""
        if not signature:
            raise self._not_authentic("its last message has no signature")
        if not hmac.compare_digest(signature, expected):
            raise self._not_authentic("its signature is wrong")
        self._proved = True

    def _rejected(self, why: str) -> AuthenticationError:
        return AuthenticationRejected(
            f"AUTH {self.name} broken off", detail=why, phase="AUTH", command=f"AUTH {self.name}"
        )

    def _not_authentic(self, why: str) -> AuthenticationError:
        return ServerNotAuthentic(
            f"AUTH {self.name}: this is not the server that knows the password",
            detail=why,
            phase="AUTH",
            command=f"AUTH {self.name}",
        )


class ScramSha1(Scram):
    """SCRAM-SHA-1 (RFC 5802)."""

    name: ClassVar[str] = "SCRAM-SHA-1"
    hash_name: ClassVar[str] = "sha1"


class ScramSha256(Scram):
    """SCRAM-SHA-256 (RFC 7677)."""

    name: ClassVar[str] = "SCRAM-SHA-256"
    hash_name: ClassVar[str] = "sha256"


class ScramSha512(Scram):
    """SCRAM-SHA-512, as registered with IANA."""

    name: ClassVar[str] = "SCRAM-SHA-512"
    hash_name: ClassVar[str] = "sha512"


def escape_identity(name: str) -> str:
    """Return *name* as a ``saslname`` (RFC 5801 section 4): no comma, no equals sign."""
    return name.replace("=", "=3D").replace(",", "=2C")


def _prepared(mechanism: str, password: Secret) -> Secret:
    try:
        return Secret(saslprep(password.reveal()))
    except ValueError as error:
        why = str(error)
    # Outside the except clause: the error must not drag saslprep's frame, and the
    # password in it, along as its context.
    raise InvalidInput(f"{mechanism} cannot use this password: {why} (RFC 4013)")


def _prepared_name(mechanism: str, username: str) -> str:
    try:
        return saslprep(username, unassigned=True)
    except ValueError as error:
        raise InvalidInput(
            f"{mechanism} cannot use the user name {username!r}: {error} (RFC 4013)"
        ) from None


def _decoded(text: str) -> bytes:
    """The octets of base64; none when it is not base64."""
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _proof_and_signature(
    hash_name: str, password: Secret, key: tuple[bytes, int], auth_message: bytes
) -> tuple[bytes, bytes]:
    """Return ClientProof and ServerSignature of RFC 5802 section 3; the slow part."""
    salt, iterations = key
    salted = hashlib.pbkdf2_hmac(hash_name, password.reveal().encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    client_signature = hmac.digest(stored_key, auth_message, hash_name)
    proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
    server_key = hmac.digest(salted, b"Server Key", hash_name)
    return proof, hmac.digest(server_key, auth_message, hash_name)
