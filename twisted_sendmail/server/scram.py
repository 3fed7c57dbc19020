"""The keys that SCRAM-SHA-256 keeps of a password; without channel binding.

A server keeps keys and not passwords: with stolen keys one can pose as the server, and not as
the user.  :class:`ScramKeys` are written as PostgreSQL writes them, so that its tools can make
password files.

RFC 5802, RFC 7677.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

from twisted_sendmail.sasl import saslprep

#: Iterations of PBKDF2 for new passwords, and the most with which every client can log in:
#: Cyrus SASL, by which Postfix logs in, breaks SCRAM off at more and tries nothing else.
ITERATIONS = 65_536
#: Bounds of what is read: RFC 7677 section 4, and some seconds of a processor.
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 10_000_000
#: Octets of a new salt.
SALT_BYTES = 16

_SPELLED = re.compile(
    r"SCRAM-SHA-256\$([0-9]{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z"
)


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
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
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
        possible = MIN_ITERATIONS <= int(match[1]) <= MAX_ITERATIONS
        if len(stored) != 32 or len(server) != 32 or not possible:
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

    def proved(self, message: bytes, proof: bytes) -> bool:
        """Does *proof* show, for this AuthMessage, that the client knows the password?"""
        if len(proof) != 32:
            return False
        signature = _hmac(self.stored_key, message)
        client_key = bytes(a ^ b for a, b in zip(signature, proof, strict=True))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)

    def signature(self, message: bytes) -> bytes:
        """The proof of the server for this AuthMessage."""
        return _hmac(self.server_key, message)
