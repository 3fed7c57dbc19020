"""SCRAM, both sides: a password is proved and not sent, and the server proves that it has its keys.

RFC 5802 (the mechanism, SCRAM-SHA-1), RFC 7677 (SCRAM-SHA-256); SCRAM-SHA-512 differs in the hash
only.  The exchange, RFC 5802 section 5::

    C: p=tls-exporter,,n=user,r=cnonce
    S: r=cnonce+snonce,s=salt,i=65536
    C: c=base64(p=tls-exporter,,data),r=cnonce+snonce,p=proof
    S: v=signature

**Channel binding.**  The mechanisms with ``-PLUS`` prove that both ends are on the same TLS
connection: the client adds data of its connection (``channel_binding``) to what it proves.  The
first message begins with a flag: ``p=type`` with -PLUS; ``n`` if the client does not bind; ``y`` if
it would, but no -PLUS was offered.  A server that did offer one refuses ``y``: somebody has removed
the offer on the way (section 6).

``scram_keys`` derives the keys that a server stores.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret
from twisted_sendmail.sasl.mechanism import Mechanism, broken_off, one_too_many
from twisted_sendmail.sasl.password import required_password
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.sasl.scram_keys import (
    MAX_ITERATIONS,
    SCRAM_HASHES,
    ScramKeys,
    derived_keys,
    min_iterations,
)
from twisted_sendmail.smtp import AuthenticationError, InvalidInput, ServerNotAuthentic

if TYPE_CHECKING:
    from collections.abc import Callable

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
_EXPLAINED = {
    "server-does-support-channel-binding": "server-does-support-channel-binding: its offer of "
    "-PLUS mechanisms was removed on the way to this client",
    "channel-bindings-dont-match": "channel-bindings-dont-match: the TLS connections of client and "
    "server differ; is there a proxy, or an attacker, between them?",
}


# -- the client's side ----------------------------------------------------------------------


class Scram(Mechanism):
    """The client of SCRAM; the name of a subclass tells the hash, and whether it binds the channel.

    :param nonce: the client's nonce, for tests; printable ASCII without a comma.
    :raises InvalidInput: the credentials have no password, or SASLprep (RFC 4013) does not allow
        the password or the user name, or the mechanism binds the channel and the connection has
        no data for it.
    """

    def __init__(self, credentials: ResolvedCredentials, *, nonce: str | None = None) -> None:
        self._password = _prepared(self.name, required_password(self.name, credentials))
        username = _prepared_name(self.name, credentials.username)
        self._nonce = nonce or secrets.token_urlsafe(24)
        authzid = credentials.authzid
        binding = credentials.channel_binding
        self._hash_name = hash_of(self.name)
        self._bound = b""
        flag = "y" if binding is not None and credentials.binding_not_offered else "n"
        if self.name.endswith(PLUS):
            if binding is None:
                raise InvalidInput(f"{self.name} needs TLS with channel binding")
            flag, self._bound = f"p={binding.kind}", binding.data
        self._gs2_header = f"{flag},{f'a={escape_identity(authzid)}' if authzid else ''},"
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
            does not extend the client's, it requires too few iterations, or its signature is
            missing or wrong.
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
        return _EXPLAINED.get(self._error, self._error)

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
        least = min_iterations(self._hash_name)
        if iterations < least:
            raise self._not_authentic(f"it asks for {iterations} iterations, fewer than {least}")
        if iterations > MAX_ITERATIONS:
            why = f"the server asks for {iterations} iterations, more than {MAX_ITERATIONS}"
            raise broken_off(self.name, why)

        channel = b64encode(self._gs2_header.encode() + self._bound).decode()
        without_proof = f"c={channel},r={nonce}"
        message = f"{self._client_first_bare},{server_first},{without_proof}".encode()
        client_key, stored_key, server_key = derived_keys(
            self._hash_name, self._password, salt, iterations
        )
        proof = _xor(client_key, hmac.digest(stored_key, message, self._hash_name))
        self._server_signature = hmac.digest(server_key, message, self._hash_name)
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


class ScramSha256(Scram):
    """SCRAM-SHA-256 (RFC 7677)."""

    name: ClassVar[str] = "SCRAM-SHA-256"


class ScramSha512(Scram):
    """SCRAM-SHA-512, as registered with IANA."""

    name: ClassVar[str] = "SCRAM-SHA-512"


class ScramSha1Plus(Scram):
    """SCRAM-SHA-1-PLUS (RFC 5802)."""

    name: ClassVar[str] = "SCRAM-SHA-1-PLUS"


class ScramSha256Plus(Scram):
    """SCRAM-SHA-256-PLUS (RFC 7677)."""

    name: ClassVar[str] = "SCRAM-SHA-256-PLUS"


class ScramSha512Plus(Scram):
    """SCRAM-SHA-512-PLUS, as registered with IANA."""

    name: ClassVar[str] = "SCRAM-SHA-512-PLUS"


# -- the server's side ----------------------------------------------------------------------


class BindingRefused(ValueError):
    """The channel binding is not the one of this connection; the text is the word of RFC 5802."""


class ScramServer:
    """One exchange of SCRAM, the server's side.

    :param client_first: the client's first message.
    :param mechanism: the name of the mechanism.
    :param binding: returns the data of a type of channel binding, None if there is none.
    :param offers_binding: a mechanism with channel binding is offered to the client.
    :raises BindingRefused: the client asks for a type of channel binding that does not exist here,
        or was not offered the mechanisms with channel binding that the server has.
    :raises ValueError: the message is malformed, or its flag does not fit the mechanism.
    """

    def __init__(
        self,
        client_first: bytes,
        mechanism: str = "SCRAM-SHA-256",
        binding: Callable[[str], bytes | None] = lambda _kind: None,
        *,
        offers_binding: bool = False,
    ) -> None:
        match = _CLIENT_FIRST.fullmatch(client_first.decode())
        if match is None:
            raise ValueError("no first message of SCRAM")
        flag, authzid, self._client_first_bare, name, self._client_nonce = match.groups()
        plus = mechanism.endswith(PLUS)
        if plus != flag.startswith("p="):
            raise ValueError("the flag of channel binding does not fit the mechanism")
        self.hash_name = hash_of(mechanism)
        self.username = unescape_identity(name)
        #: The authorization identity; None when none is given.
        self.authzid = None if authzid is None else unescape_identity(authzid)
        bound = binding(flag[2:]) if plus else b""
        if bound is None:
            raise BindingRefused("unsupported-channel-binding-type")
        if flag == "y" and offers_binding:
            raise BindingRefused("server-does-support-channel-binding")
        self._gs2_header = f"{flag},{'' if authzid is None else f'a={authzid}'},".encode()
        self._channel = self._gs2_header + bound

    def challenge(self, keys: ScramKeys) -> bytes:
        """Return the server's first message, for the user's *keys*."""
        self._keys = keys
        self._nonce = self._client_nonce + secrets.token_urlsafe(18)
        salt = b64encode(keys.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={keys.iterations}"
        return self._server_first.encode()

    def proves(self, client_final: bytes) -> bool:
        """Return True if the client's last message proves that it has the password.

        :raises BindingRefused: the client is on another TLS connection.
        :raises ValueError: the message is malformed.
        """
        match = _CLIENT_FINAL.fullmatch(client_final.decode())
        if match is None:
            raise ValueError("no last message of SCRAM")
        without_proof, channel_text, nonce, proof = match.groups()
        channel, client_proof = (b64decode(t, validate=True) for t in (channel_text, proof))
        message = f"{self._client_first_bare},{self._server_first},{without_proof}".encode()
        self._message = message
        client_signature = hmac.digest(self._keys.stored_key, message, self.hash_name)
        if len(client_proof) != len(client_signature):
            return False
        client_key = _xor(client_signature, client_proof)
        stored_key = hashlib.new(self.hash_name, client_key).digest()
        proved = hmac.compare_digest(stored_key, self._keys.stored_key) and nonce == self._nonce
        if channel == self._channel:
            return proved
        if proved and channel.startswith(self._gs2_header):
            raise BindingRefused("channel-bindings-dont-match")
        return False

    def signature(self) -> bytes:
        """Return the server's last message, which proves that it has the keys."""
        signature = hmac.digest(self._keys.server_key, self._message, self.hash_name)
        return b"v=" + b64encode(signature)


# -- both sides -----------------------------------------------------------------------------

#: The end of the names of the mechanisms with channel binding.
PLUS = "-PLUS"


def hash_of(mechanism: str) -> str:
    """Return the hash of a mechanism of SCRAM, as `hashlib` names it.

    :raises KeyError: *mechanism* is no mechanism of SCRAM.
    """
    return _HASHES[mechanism.removesuffix(PLUS)]


_HASHES = {f"SCRAM-{text}": name for name, text in SCRAM_HASHES.items()}


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
