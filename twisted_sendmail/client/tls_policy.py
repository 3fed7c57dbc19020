"""When TLS is used, whom it has to prove, and what went wrong.

The server's certificate is judged inside the handshake, so that a server that is
not the one asked for sees an alert and nothing else.  There is no way to switch the
judging off: a server outside the public CAs is trusted by its own CA file or by the
fingerprint of its certificate.

RFC 3207, RFC 8314, RFC 9525 (names in certificates).
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass
from functools import lru_cache

from OpenSSL import SSL

from twisted_sendmail.client.judged_connection import judging
from twisted_sendmail.smtp import InvalidServer


class TLSPolicy(enum.Enum):
    """When TLS begins, and whether there may be none."""

    #: With the first octet (RFC 8314), usually port 465.
    IMPLICIT = "implicit"
    #: After STARTTLS, or not at all (RFC 3207), usually port 587.
    STARTTLS = "starttls"
    #: After STARTTLS where it is offered, else in clear; never with credentials.
    OPPORTUNISTIC = "opportunistic"
    #: In clear; never with credentials.
    NONE = "none"

    @property
    def required(self) -> bool:
        """Is there TLS or no mail?"""
        return self in {TLSPolicy.IMPLICIT, TLSPolicy.STARTTLS}


def _fingerprint(text: str) -> str:
    plain = re.sub(
        r"[:\s-]", "", re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE)
    ).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        msg = "the certificate fingerprint cannot be used"
        raise InvalidServer(
            msg, remedy="give the SHA-256 of the certificate as 64 hexadecimal digits"
        )
    return plain


@dataclass(frozen=True)
class TLSTrust:
    """What proves that a server is the one asked for.

    :param ca_file: PEM file of the CAs to trust instead of the system's.
    :param fingerprint: SHA-256 of the server's certificate, hexadecimal, with or without
        colons.  It alone decides then: neither CA nor name nor dates are looked at.
    :param name: the name the certificate must bear, when it is not the host's.
    :param client_certificate: PEM file with our certificate chain (and key, unless apart).
    :param client_key: PEM file of its key.
    :raises InvalidServer: for a fingerprint that is none.
    """

    ca_file: str | os.PathLike[str] | None = None
    fingerprint: str | None = None
    name: str | None = None
    client_certificate: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.fingerprint is not None:
            object.__setattr__(self, "fingerprint", _fingerprint(self.fingerprint))
            if self.ca_file is not None or self.name is not None:
                msg = "a certificate fingerprint goes alone"
                raise InvalidServer(
                    msg, remedy="leave out the CA file and the name, or the fingerprint"
                )

    def context(self) -> SSL.Context:
        """A context with these CAs and keys, TLS 1.2 or later, for a ``JudgedConnection``.

        The same one each time, until one of the files changes.

        :raises InvalidServer: when a file cannot be read or used.
        """
        return _context(
            _identity(self.ca_file), _identity(self.client_certificate), _identity(self.client_key)
        )


_File = tuple[str, int, int]


def _identity(path: str | os.PathLike[str] | None) -> _File | None:
    """Path, change time and size: a file that was replaced is read again."""
    if path is None:
        return None
    try:
        stat = os.stat(path)  # noqa: PTH116 - asked for each connection, and a Path costs more
    except OSError as e:
        raise _unusable(str(path), e) from None
    return os.fspath(path), stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _context(ca_file: _File | None, certificate: _File | None, key: _File | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # SSL_MODE_RELEASE_BUFFERS saves 34 KB on each idle connection.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ca_file is None:
        context.set_default_verify_paths()
    else:
        try:
            context.load_verify_locations(ca_file[0])
        except SSL.Error as e:
            raise _unusable(ca_file[0], e) from None
    if certificate is not None:
        try:
            context.use_certificate_chain_file(certificate[0])
            context.use_privatekey_file((key or certificate)[0])
            context.check_privatekey()
        except SSL.Error as e:
            raise _unusable((key or certificate)[0], e) from None
    return judging(context)


def _unusable(path: str, e: Exception) -> InvalidServer:
    if isinstance(e, OSError):
        why = e.strerror or type(e).__name__
    else:
        why = "it holds no usable PEM data"
    return InvalidServer(f"file '{path}' cannot be used for TLS", detail=why)
