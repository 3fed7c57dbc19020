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
#: The fewest with SHA-512 (draft-melnikov-scram-sha-512).
MIN_ITERATIONS_SHA512 = 10_000
#: The most that a client accepts from a server and a password file may have; under a second.
MAX_ITERATIONS = 1_000_000
#: Iterations for new passwords.  Cyrus SASL, by which Postfix logs in, breaks SCRAM off at more.
ITERATIONS = 65_536
#: Octets of a new salt.
SALT_BYTES = 16

#: The names of the hashes in mechanisms and in the text form of keys, by the names of `hashlib`.
SCRAM_HASHES = {"sha256": "SHA-256", "sha1": "SHA-1", "sha512": "SHA-512"}
_HASH_NAMES = {text: name for name, text in SCRAM_HASHES.items()}

_KEYS = re.compile(
    r"SCRAM-(SHA-1|SHA-256|SHA-512)\$([0-9]{1,18}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)"
)


@frozen
class ScramKeys:
    """The keys that a server stores for a password, for one hash of SCRAM."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    #: The hash, as `hashlib` names it.
    hash_name: str = "sha256"

    @classmethod
    def of(
        cls,
        password: str,
        *,
        salt: bytes | None = None,
        iterations: int = ITERATIONS,
        hash_name: str = "sha256",
    ) -> ScramKeys:
        """Hash *password*; it takes long, so call it outside the reactor's thread."""
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        try:
            prepared = saslprep(password)
        except ValueError:
            prepared = password
        _, stored_key, server_key = derived_keys(hash_name, Secret(prepared), salt, iterations)
        return cls(salt, iterations, stored_key, server_key, hash_name)

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """Read ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``, or SHA-1 or SHA-512.

        :raises ValueError: *text* is something else, or no client could log in with these keys.
        """
        match = _KEYS.fullmatch(text)
        if match is None:
            raise ValueError("it is no SCRAM-SHA-256 entry")
        hash_name = _HASH_NAMES[match[1]]
        try:
            salt, stored, server = (b64decode(match[n], validate=True) for n in (3, 4, 5))
        except binascii.Error:
            raise ValueError("its salt and its keys have to be base64") from None
        size = hashlib.new(hash_name).digest_size
        if len(stored) != size or len(server) != size:
            raise ValueError(f"its keys have to be {size} octets each")
        iterations, least = int(match[2]), min_iterations(hash_name)
        if not least <= iterations <= MAX_ITERATIONS:
            raise ValueError(
                f"it has {iterations} iterations; clients accept {least:,} to {MAX_ITERATIONS:,}"
            )
        return cls(salt, iterations, stored, server, hash_name)

    def spelled(self) -> str:
        """Return the text that :meth:`parse` reads."""
        parts = (self.salt, self.stored_key, self.server_key)
        salt, stored, server = (b64encode(part).decode() for part in parts)
        return f"SCRAM-{SCRAM_HASHES[self.hash_name]}${self.iterations}:{salt}${stored}:{server}"

    def match(self, password: str) -> bool:
        """Return True if these are the keys of *password*.  Call it outside the reactor's thread."""
        other = ScramKeys.of(
            password, salt=self.salt, iterations=self.iterations, hash_name=self.hash_name
        )
        return hmac.compare_digest(other.stored_key, self.stored_key)


def min_iterations(hash_name: str) -> int:
    """Return the fewest iterations of PBKDF2 that are accepted with a hash of SCRAM."""
    return MIN_ITERATIONS_SHA512 if hash_name == "sha512" else MIN_ITERATIONS


def derived_keys(
    hash_name: str, password: Secret, salt: bytes, iterations: int
) -> tuple[bytes, bytes, bytes]:
    """Return ClientKey, StoredKey and ServerKey of RFC 5802 section 3; this takes long."""
    salted = hashlib.pbkdf2_hmac(hash_name, password.reveal().encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored_key = hashlib.new(hash_name, client_key).digest()
    return client_key, stored_key, hmac.digest(salted, b"Server Key", hash_name)
