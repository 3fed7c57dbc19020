"""SCRAM-SHA-256 on the server's side, without channel binding.

The server keeps keys, not passwords: who steals them can pose as the server, and
not as the user.  :class:`ScramKeys` has the spelling PostgreSQL uses, so files can be
made with its tools.

RFC 5802, RFC 7677.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted_sendmail.ingress.sasl_failure import FAILED, AuthRefused
from twisted_sendmail.sasl.saslprep import saslprep
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Rounds of PBKDF2 for new passwords.
ITERATIONS = 100_000

_SPELLED = re.compile(
    r"SCRAM-SHA-256\$([0-9]{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z"
)
# gs2-header, then the client-first-message-bare; extensions may follow (and are kept).
_CLIENT_FIRST = re.compile(r"([ny]|p=[^,]*),(?:a=([^,]*))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)\Z")
_CLIENT_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)\Z")
_BAD = Reply(501, ("5.5.2 That is no SCRAM message",))


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


@dataclass(frozen=True)
class ScramKeys:
    """What is kept of a password."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(
        cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramKeys:
        """Hash *password*; takes its time, so call it off the reactor thread."""
        salt = secrets.token_bytes(16) if salt is None else salt
        try:
            prepared = saslprep(password)
        except ValueError:
            prepared = password
        salted = hashlib.pbkdf2_hmac("sha256", prepared.encode("utf-8"), salt, iterations)
        stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, stored, _hmac(salted, b"Server Key"))

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """Read :meth:`spelled`.

        :raises ValueError: when *text* is something else.
        """
        match = _SPELLED.match(text)
        if match is None:
            msg = "it is no SCRAM-SHA-256 entry"
            raise ValueError(msg)
        salt, stored, server = (b64decode(match[n], validate=True) for n in (2, 3, 4))
        if len(stored) != 32 or len(server) != 32 or not 4096 <= int(match[1]) <= 10_000_000:
            msg = "its keys or its iteration count cannot be"
            raise ValueError(msg)
        return cls(salt, int(match[1]), stored, server)

    def spelled(self) -> str:
        """``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``."""
        salt, stored, server = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def match(self, password: str) -> bool:
        """Is it the password?  Takes its time, so call it off the reactor thread."""
        other = ScramKeys.of(password, salt=self.salt, iterations=self.iterations)
        return hmac.compare_digest(other.stored_key, self.stored_key)


async def scram_sha_256(
    initial: bytes | None,
    ask: Callable[[bytes], Awaitable[bytes]],
    keys_of: Callable[[str], Awaitable[ScramKeys]],
) -> str:
    """The exchange of RFC 5802 section 3; returns the user name.

    :raises AuthRefused: when the client does not know the password, or the protocol.
    """
    first = _match(_CLIENT_FIRST, await ask(b"") if initial is None else initial)
    binding, authzid, bare, name, client_nonce = first.groups()
    if binding.startswith("p="):
        raise AuthRefused(_BAD)
    user = _name(name)
    if authzid is not None and _name(authzid) != user:
        raise AuthRefused(FAILED)
    keys = await keys_of(user)
    nonce = client_nonce + secrets.token_urlsafe(18)
    server_first = f"r={nonce},s={b64encode(keys.salt).decode()},i={keys.iterations}"
    final = _match(_CLIENT_FINAL, await ask(server_first.encode("ascii")))
    without_proof, channel, echoed, proof = final.groups()
    message = f"{bare},{server_first},{without_proof}".encode()
    header = f"{binding},{'' if authzid is None else f'a={authzid}'},"
    signature = _hmac(keys.stored_key, message)
    client_key = bytes(a ^ b for a, b in zip(signature, _b64(proof).ljust(32, b"\0"), strict=False))
    good = hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)
    if not (
        good and echoed == nonce and _b64(channel) == header.encode() and len(_b64(proof)) == 32
    ):
        raise AuthRefused(FAILED)
    # RFC 4954 has no additional data with success: the signature is a challenge of its own.
    if await ask(b"v=" + b64encode(_hmac(keys.server_key, message))):
        raise AuthRefused(_BAD)
    return user


def _match(pattern: re.Pattern[str], message: bytes) -> re.Match[str]:
    try:
        match = pattern.match(message.decode("utf-8"))
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise AuthRefused(_BAD)
    return match


def _name(escaped: str) -> str:
    """RFC 5802 section 5.1: ``=2C`` is a comma, ``=3D`` an equals sign, nothing else is."""
    if re.search(r"=(?!2C|3D)", escaped):
        raise AuthRefused(_BAD)
    return escaped.replace("=2C", ",").replace("=3D", "=")


def _b64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise AuthRefused(_BAD) from None
