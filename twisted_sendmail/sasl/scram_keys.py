"""Keys that a server stores instead of a password, and the hash that makes them of it.

With stolen keys one can pose as the server, not as the user. The text form is that of PostgreSQL.

RFC 5802 section 3 (StoredKey, ServerKey), RFC 7677.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode

from attrs import field, frozen

from twisted_sendmail.sasl.credentials import Secret
from twisted_sendmail.sasl.saslprep import saslprep

#: The fewest iterations of PBKDF2 that are accepted (RFC 7677 section 4): with fewer, a false
#: server can guess the password from the proof too cheaply.
MIN_ITERATIONS = 4_096
#: The most that a client accepts from a server and a password file may have; under a second.
MAX_ITERATIONS = 1_000_000
#: Iterations for new passwords.  Cyrus SASL, by which Postfix logs in, breaks SCRAM off at more.
ITERATIONS = 65_536
#: Octets of a new salt.
SALT_BYTES = 16

_KEYS = re.compile(
    r"SCRAM-SHA-256\$([0-9]{1,18}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)


@frozen
class ScramKeys:
    """The keys that a server stores for a password for SCRAM-SHA-256, in the format of PostgreSQL."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(
        cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramKeys:
        """Hash *password*; it takes long, so call it outside the reactor's thread."""
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        try:
            prepared = saslprep(password)
        except ValueError:
            prepared = password
        _, stored_key, server_key = derived_keys("sha256", Secret(prepared), salt, iterations)
        return cls(salt, iterations, stored_key, server_key)

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """Read ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``.

        :raises ValueError: *text* is something else, or no client could log in with these keys.
        """
        match = _KEYS.fullmatch(text)
        if match is None:
            raise ValueError("it is no SCRAM-SHA-256 entry")
        try:
            salt, stored, server = (b64decode(match[n], validate=True) for n in (2, 3, 4))
        except binascii.Error:
            raise ValueError("its salt and its keys have to be base64") from None
        if len(stored) != 32 or len(server) != 32:
            raise ValueError("its keys have to be 32 octets each")
        iterations = int(match[1])
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise ValueError(
                f"it has {iterations} iterations; clients accept "
                f"{MIN_ITERATIONS:,} to {MAX_ITERATIONS:,}"
            )
        return cls(salt, iterations, stored, server)

    def spelled(self) -> str:
        """Return the text that :meth:`parse` reads."""
        parts = (self.salt, self.stored_key, self.server_key)
        salt, stored, server = (b64encode(part).decode() for part in parts)
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def match(self, password: str) -> bool:
        """Are these the keys of *password*?  Call it outside the reactor's thread."""
        other = ScramKeys.of(password, salt=self.salt, iterations=self.iterations)
        return hmac.compare_digest(other.stored_key, self.stored_key)


def derived_keys(
    hash_name: str, password: Secret, salt: bytes, iterations: int
) -> tuple[bytes, bytes, bytes]:
    """Return ClientKey, StoredKey and ServerKey of RFC 5802 section 3; this takes long."""
    salted = hashlib.pbkdf2_hmac(hash_name, password.reveal().encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    return client_key, stored_key, hmac.digest(salted, b"Server Key", hash_name)
