"""SCRAM, both sides: a password is proved and not sent, and the server proves that it has its keys.

RFC 5802 (the mechanism, SCRAM-SHA-1), RFC 7677 (SCRAM-SHA-256); SCRAM-SHA-512 differs in the hash
only.  No channel binding (-PLUS): the GS2 flag is ``n``.  The exchange, RFC 5802 section 5::

    C: n,,n=user,r=cnonce
    S: r=cnonce+snonce,s=salt,i=65536
    C: c=biws,r=cnonce+snonce,p=proof
    S: v=signature

``scram_keys`` derives the keys that a server stores.
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
from twisted_sendmail.sasl.mechanism import Mechanism, broken_off, one_too_many
from twisted_sendmail.sasl.password import required_password
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.sasl.scram_keys import MAX_ITERATIONS, MIN_ITERATIONS, ScramKeys, derived_keys
from twisted_sendmail.smtp import AuthenticationError, InvalidInput, ServerNotAuthentic

# RFC 5802 section 7.  Extensions may follow; a mandatory one ("m=") may not be ignored.
_CLIENT_FIRST = re.compile(r"([ny]|p=[^,]*),(?:a=([^,]*))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)")
_CLIENT_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)")
_SERVER_FIRST = re.compile(
    r"r=(?P<nonce>[!-+\--~]+)"
    r",s=(?P<salt>[A-Za-z0-9+/=]+)"
    r",i=(?P<iterations>[1-9][0-9]{0,18})"
    r"(?:,[A-Za-z]=[^,\x00]+)*"
)
_SERVER_FINAL = re.compile(r"v=(?P<signature>[A-Za-z0-9+/=]*)(?:,[A-Za-z]=[^,\x00]+)*")
_SERVER_ERROR = re.compile(r"e=(?P<error>[^,\x00]+)(?:,.*)?", re.DOTALL)
# RFC 5802 section 7.  Any other word of a server may quote the exchange.
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


# -- the client's side ----------------------------------------------------------------------


class Scram(Mechanism):
    """The client of SCRAM; a subclass has the name and the hash.

    :param nonce: the client's nonce, for tests; printable ASCII without a comma.
    :raises InvalidInput: the credentials have no password, or SASLprep (RFC 4013) does not allow
        the password or the user name.
    """

    #: The hash, as `hashlib` names it.
    hash_name: ClassVar[str]

    def __init__(self, credentials: ResolvedCredentials, *, nonce: str | None = None) -> None:
        self._password = _prepared(self.name, required_password(self.name, credentials))
        username = _prepared_name(self.name, credentials.username)
        self._nonce = nonce or secrets.token_urlsafe(24)
        authzid = credentials.authzid
        self._gs2_header = f"n,{f'a={escape_identity(authzid)}' if authzid else ''},"
        self._client_first_bare = f"n={escape_identity(username)},r={self._nonce}"
        self._server_signature: bytes | None = None
        self._proved = False
        self._error = ""
        self.expensive = True

    def start(self) -> bytes:
        """Return the client's first message."""
        return f"{self._gs2_header}{self._client_first_bare}".encode()

    def respond(self, challenge: bytes) -> bytes:
        """Return the proof, then, when the server's signature is right, an empty response.

        An error of the server also gets an empty response; its reply follows.

        :raises AuthenticationRejected: the server's message is no SCRAM, or requires more than
            ``MAX_ITERATIONS``.
        :raises ServerNotAuthentic: the server does not have the keys of the password: its nonce
            does not extend the client's, it requires fewer than ``MIN_ITERATIONS``, or its
            signature is missing or wrong.
        """
        if self._proved or self._error:
            raise one_too_many(self.name)
        message = challenge.decode("utf-8", "replace")
        error = _SERVER_ERROR.fullmatch(message)
        if error:
            self.expensive = False
            self._error = error["error"] if error["error"] in _ERRORS else "other-error"
            return b""
        if self._server_signature is None:
            return self._prove(message)
        self._verify(message, self._server_signature)
        return b""

    def succeeded(self) -> None:
        """Raise `ServerNotAuthentic` unless the server's signature was right."""
        if not self._proved:
            raise self._not_authentic("the server replied 235 without a valid signature")

    @property
    def explanation(self) -> str:
        """The server's error, one of the words of RFC 5802 section 7 (``invalid-proof``)."""
        return self._error

    def _prove(self, server_first: str) -> bytes:
        match = _SERVER_FIRST.fullmatch(server_first)
        if match is None:
            raise broken_off(self.name, "the server's first message is malformed")
        nonce = match["nonce"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise self._not_authentic("its nonce is not ours with its own added")
        try:
            salt = b64decode(match["salt"], validate=True)
        except binascii.Error:
            salt = b""
        if not salt:
            raise broken_off(self.name, "the server's salt is not base64")
        iterations = int(match["iterations"])
        if iterations < MIN_ITERATIONS:
            raise self._not_authentic(
                f"it asks for {iterations} iterations, fewer than {MIN_ITERATIONS}"
            )
        if iterations > MAX_ITERATIONS:
            why = f"the server asks for {iterations} iterations, more than {MAX_ITERATIONS}"
            raise broken_off(self.name, why)

        gs2_header = b64encode(self._gs2_header.encode()).decode()
        without_proof = f"c={gs2_header},r={nonce}"
        message = f"{self._client_first_bare},{server_first},{without_proof}".encode()
        client_key, stored_key, server_key = derived_keys(
            self.hash_name, self._password, salt, iterations
        )
        proof = _xor(client_key, hmac.digest(stored_key, message, self.hash_name))
        self._server_signature = hmac.digest(server_key, message, self.hash_name)
        self.expensive = False
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def _verify(self, server_final: str, expected: bytes) -> None:
        match = _SERVER_FINAL.fullmatch(server_final)
        try:
            signature = b64decode(match["signature"], validate=True) if match else b""
        except binascii.Error:
            signature = b""
        if not signature:
            raise self._not_authentic("its last message has no signature")
        if not hmac.compare_digest(signature, expected):
            raise self._not_authentic("its signature is wrong")
        self._proved = True

    def _not_authentic(self, why: str) -> AuthenticationError:
        return ServerNotAuthentic(
            f"AUTH {self.name}: the server does not have the keys of the password",
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


# -- the server's side ----------------------------------------------------------------------


class ScramServer:
    """One exchange of SCRAM-SHA-256, the server's side.

    :param client_first: the client's first message.
    :raises ValueError: the message is malformed, or requires channel binding.
    """

    def __init__(self, client_first: bytes) -> None:
        match = _CLIENT_FIRST.fullmatch(client_first.decode())
        if match is None or match[1].startswith("p="):
            raise ValueError("no first message of SCRAM without channel binding")
        binding, authzid, self._client_first_bare, name, self._client_nonce = match.groups()
        self.username = unescape_identity(name)
        #: The authorization identity; None when none is given.
        self.authzid = None if authzid is None else unescape_identity(authzid)
        self._gs2_header = f"{binding},{'' if authzid is None else f'a={authzid}'},"

    def challenge(self, keys: ScramKeys) -> bytes:
        """Return the server's first message, for the user's *keys*."""
        self._keys = keys
        self._nonce = self._client_nonce + secrets.token_urlsafe(18)
        salt = b64encode(keys.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={keys.iterations}"
        return self._server_first.encode()

    def proves(self, client_final: bytes) -> bool:
        """Does the client's last message prove that it has the password?

        :raises ValueError: the message is malformed.
        """
        match = _CLIENT_FINAL.fullmatch(client_final.decode())
        if match is None:
            raise ValueError("no last message of SCRAM")
        without_proof, channel, nonce, proof = match.groups()
        channel_binding, client_proof = (b64decode(t, validate=True) for t in (channel, proof))
        message = f"{self._client_first_bare},{self._server_first},{without_proof}".encode()
        self._message = message
        client_signature = hmac.digest(self._keys.stored_key, message, "sha256")
        if len(client_proof) != len(client_signature):
            return False
        stored_key = hashlib.sha256(_xor(client_signature, client_proof)).digest()
        return (
            hmac.compare_digest(stored_key, self._keys.stored_key)
            and nonce == self._nonce
            and channel_binding == self._gs2_header.encode()
        )

    def signature(self) -> bytes:
        """Return the server's last message, which proves that it has the keys."""
        return b"v=" + b64encode(hmac.digest(self._keys.server_key, self._message, "sha256"))


# -- both sides -----------------------------------------------------------------------------


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def escape_identity(name: str) -> str:
    """Return *name* as a ``saslname`` (RFC 5801 section 4): no comma, no equals sign."""
    return name.replace("=", "=3D").replace(",", "=2C")


def unescape_identity(name: str) -> str:
    """Return the name of a ``saslname``.

    :raises ValueError: *name* is none.
    """
    if re.search(r"=(?!2C|3D)", name):
        raise ValueError("no saslname")
    return name.replace("=2C", ",").replace("=3D", "=")


def _prepared(mechanism: str, password: Secret) -> Secret:
    try:
        return Secret(saslprep(password.reveal()))
    except ValueError as error:
        why = str(error)
    # Raised outside the except clause: the context of the error would hold the frame of saslprep,
    # and the password in it.
    raise InvalidInput(f"{mechanism} cannot use this password: {why} (RFC 4013)")


def _prepared_name(mechanism: str, username: str) -> str:
    try:
        return saslprep(username, unassigned=True)
    except ValueError as error:
        raise InvalidInput(
            f"{mechanism} cannot use the user name {username!r}: {error} (RFC 4013)"
        ) from None
