"""DKIM signatures: keys, the body hash of a stream, and the signature field.

A signature is ``relaxed/relaxed`` and covers the whole body: no ``l=``, and no ``i=`` or ``z=``.
:class:`SigningInput` reads a message once, in pieces, and keeps only its header; then
:meth:`DKIMSigner.sign` returns the fields to be sent before the message, one for each key. The octets
are those that go out, before dot-stuffing.

RFC 6376, RFC 8301 (sizes of keys), RFC 8463 (Ed25519).
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from twisted_sendmail.message.addresses import mailboxes
from twisted_sendmail.message.header import FOLD_WIDTH, Header
from twisted_sendmail.secret_file import read_file
from twisted_sendmail.smtp import (
    MAX_HEADER,
    InvalidAddress,
    InvalidInput,
    InvalidMessage,
    InvalidServer,
    SendmailError,
    check_type,
    domain_name,
    printable,
    section_end,
)

if TYPE_CHECKING:
    from twisted_sendmail.message.header import Field

#: Bits of an RSA key. RFC 8301 requires 1,024, and recommends these.
MIN_RSA_BITS = 2048
#: Octets of a From field whose addresses are read.
MAX_FROM_SIZE = 4096

# Fields that are listed once more than the header has them, so that nobody can add another one.
_OVERSIGNED = ("from", "subject", "date", "to")
_SIGNED = frozenset(
    {
        *("cc", "in-reply-to", "message-id", "mime-version", "references", "reply-to"),
        *("resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc"),
        "resent-message-id",
    }
)
_SIGNED_PREFIXES = ("content-", "list-")
# Servers remove this field, because it is only true in a mailbox file.
_NOT_SIGNED = "content-length"
_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


class SigningUnavailable(SendmailError):
    """The message cannot be signed now: a key cannot be read, or the message cannot be kept meanwhile."""

    temporary = True
    connection_usable = True


class UnsignableMessage(InvalidMessage):
    """The message cannot be signed with the keys that there are; it was not sent."""

    connection_usable = True


def _domain(given: str) -> str:
    check_type("a DKIM domain", given, str, "a domain name, such as example.org")
    name = domain_name(given).lower()
    if name.startswith("["):
        shown = printable(given, 100)
        raise InvalidInput(f"'{shown}' cannot be a DKIM domain", remedy="give the name of a domain")
    return name


def dkim_selector(given: str) -> str:
    """Check a selector: names, joined by dots (RFC 6376 section 3.1).

    :raises InvalidInput: it is something else.
    """
    check_type("a DKIM selector", given, str, "a name, such as 2026a")
    if not _SELECTOR.fullmatch(given):
        raise InvalidInput(
            f"'{printable(given, 80)}' cannot be a DKIM selector",
            remedy="give letters and digits, such as 2026a: the first label of the record's name",
        )
    return given


def _private_key(
    given: bytes | str | RSAPrivateKey | Ed25519PrivateKey,
) -> RSAPrivateKey | Ed25519PrivateKey:
    key: object = given
    if isinstance(given, str):
        given = given.encode("utf-8", "replace")
    if isinstance(given, bytes):
        try:
            key = load_pem_private_key(given, None)
        except TypeError:
            raise _unusable("it is encrypted", "remove the passphrase with openssl pkey") from None
        except (ValueError, UnsupportedAlgorithm):
            # The error of the library is not shown: it may quote the key.
            raise _unusable("it is not a private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        raise _unusable("it is neither an RSA nor an Ed25519 key")
    if key.key_size < MIN_RSA_BITS:
        raise _unusable(f"it has {key.key_size} bits, and an RSA key needs {MIN_RSA_BITS} or more")
    return key


def _unusable(why: str, remedy: str = "make one with openssl genrsa 2048") -> InvalidInput:
    return InvalidInput("the DKIM key cannot be used", detail=why, remedy=remedy)


@frozen(eq=False)
class DKIMKey:
    """A private key that signs mail of a domain.

    :param domain: the domain of the addresses in ``From``; names below it are other domains.
    :param selector: the name of the key: its public half is in the TXT record
        ``SELECTOR._domainkey.DOMAIN`` (RFC 6376 section 3.6.2).
    :param private: the key in PEM, not encrypted: RSA of :data:`MIN_RSA_BITS` bits or more, or
        Ed25519; or such a key of ``cryptography``.
    :raises InvalidInput: it cannot be used.
    """

    domain: str = field(converter=_domain)
    selector: str = field(converter=dkim_selector)
    private: RSAPrivateKey | Ed25519PrivateKey = field(converter=_private_key, repr=False)

    @classmethod
    def from_file(
        cls,
        domain: str,
        selector: str,
        path: str | os.PathLike[str],
        *,
        world_readable: bool = False,
    ) -> DKIMKey:
        """Read a key from a file in PEM. Blocks.

        :param world_readable: accept a file that everybody may read.
        :raises InvalidInput: the file cannot be read, others may read or change it, or the key cannot
            be used.
        """
        shown = printable(os.fsencode(path), 200)
        try:
            pem = read_file(Path(path), world_readable=world_readable)
        except InvalidServer as e:
            raise _unusable(e.detail or e.what, e.remedy or "") from None
        except ValueError:
            raise _unusable(f"{shown} is no file name") from None
        try:
            key = _private_key(pem)
        except InvalidInput as e:
            e.detail = f"{shown}: {e.detail}"
            raise
        return cls(domain, selector, key)

    @property
    def algorithm(self) -> str:
        """The value of ``a=``."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def record_name(self) -> str:
        """The name of the TXT record with the public key."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The text of the TXT record: RFC 6376 section 3.6.1, RFC 8463 section 4."""
        if isinstance(self.private, RSAPrivateKey):
            public = self.private.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
            return f"v=DKIM1; k=rsa; p={b64encode(public).decode('ascii')}"
        public = self.private.public_key().public_bytes_raw()
        return f"v=DKIM1; k=ed25519; p={b64encode(public).decode('ascii')}"

    def signature(self, data: bytes) -> bytes:
        """Return the signature of *data*: RFC 6376 section 3.3.1, RFC 8463 section 3."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())


#: Returns a key, or None to sign without it; called for each message, may block.
#: It raises :class:`SigningUnavailable`.
KeyProvider = Callable[[], "DKIMKey | None"]


class DKIMSigner:
    """Signs with all of its keys that are of the domain in ``From``.

    :param keys: keys, or functions that return one.
    :raises InvalidInput: there is none.
    """

    def __init__(self, keys: Iterable[DKIMKey | KeyProvider]) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise InvalidInput("there is no DKIM key", remedy="give one, or dkim=None")

    @classmethod
    def of(cls, given: DKIMKey | Iterable[DKIMKey] | None) -> DKIMSigner | None:
        """Return the signer for an argument ``dkim``; None: mail is not signed.

        :raises InvalidInput: *given* is something else.
        """
        if given is None:
            return None
        keys = (given,) if isinstance(given, DKIMKey) else given
        keys = tuple(keys) if isinstance(keys, Iterable) else (keys,)
        for key in keys:
            check_type("dkim", key, DKIMKey, "a DKIMKey, or a list of them")
        return cls(keys)

    def read_keys(self) -> list[DKIMKey]:
        """Return the keys that are there now. May block.

        :raises SigningUnavailable: one cannot be read.
        """
        found = [key if isinstance(key, DKIMKey) else key() for key in self._keys]
        return [key for key in found if key is not None]

    def sign(self, message: SigningInput, now: float) -> bytes:
        """Return the DKIM-Signature fields for *message*, which was read to its end. May block.

        :param now: for ``t=``, in seconds since the epoch.
        :raises UnsignableMessage: ``From`` has no domain, or more than one, or there is no key for it.
        :raises SigningUnavailable: a key cannot be read.
        """
        header = Header.parse(message.header)
        domain = from_domain(header)
        if domain is None:
            raise UnsignableMessage(
                "the message cannot be signed",
                detail="its header has no From field with one domain",
                remedy="give it one From field, or send it without dkim",
            )
        keys = self.read_keys()
        used = [key for key in keys if key.domain == domain]
        if keys and not used:
            raise UnsignableMessage(
                "the message cannot be signed",
                detail=f"there is no DKIM key for {printable(domain, 100)}",
                remedy="give one for the domain in From, or send it without dkim",
            )
        body_hash = message.body_hash
        return b"".join(_signature_field(key, header, body_hash, now) for key in used)


class SigningInput:
    """A message as it is read to be signed: canonical octets, not dot-stuffed.

    Only the header is kept. Any cutting of the octets gives the same result.
    """

    def __init__(self) -> None:
        self._held: bytes | None = b""
        self._body = _BodyHash()
        self._octets = hashlib.sha256()
        #: The header section, without the empty line after it; valid when the message has ended.
        self.header = b""
        #: Octets so far.
        self.size = 0
        #: There was an octet above 127 so far.
        self.eight_bit = False

    def feed(self, data: bytes) -> None:
        """Read the next octets.

        :raises UnsignableMessage: the header does not end.
        """
        self.size += len(data)
        self.eight_bit = self.eight_bit or not data.isascii()
        self._octets.update(data)
        if self._held is None:
            self._body.feed(data)
            return
        held = self._held = self._held + data
        end = section_end(held)
        if end < 0:
            if len(held) > 2 * MAX_HEADER:
                raise UnsignableMessage(
                    "the message cannot be signed",
                    detail=f"its header is longer than {2 * MAX_HEADER} octets",
                    remedy="put an empty line between header and body",
                )
            return
        self.header, self._held = held[:end], None
        self._body.feed(held[end + 2 :])

    def finish(self) -> None:
        """End the message."""
        if self._held is not None:
            self.header, self._held = self._held, None

    @property
    def body_hash(self) -> bytes:
        """The hash of the body, for ``bh=``."""
        return self._body.digest()

    @property
    def octets_hash(self) -> bytes:
        """The hash of all octets, to compare with those that are sent."""
        return self._octets.digest()


class _BodyHash:
    """SHA-256 of a body in the canonical form ``relaxed`` (RFC 6376 section 3.4.4).

    White space at the end of a line, and empty lines at the end of the body, are held back until it is
    known what follows: one octet, and a number.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held = b""
        # Line ends after the last octet that was hashed.
        self._line_ends = 0
        self._empty = True

    def feed(self, data: bytes) -> None:
        data = self._held + data
        cr = data[-1:] if data.endswith(b"\r") else b""
        data = _collapsed(data[: len(data) - len(cr)])
        if data.endswith(b" "):
            data, cr = data[:-1], b" " + cr
        self._held = cr
        self._hash_lines(data)

    def _hash_lines(self, data: bytes) -> None:
        data = data.replace(b" \r\n", b"\r\n")
        end, line_ends = len(data), 0
        while data.endswith(b"\r\n", 0, end):
            end -= 2
            line_ends += 1
        if end:
            while self._line_ends:
                count = min(self._line_ends, 4096)
                self._hash.update(b"\r\n" * count)
                self._line_ends -= count
            self._hash.update(data[:end])
            self._empty = False
        self._line_ends += line_ends

    def digest(self) -> bytes:
        if self._held:
            held, self._held = self._held, b""
            # A blank alone ends the last line.
            self._hash_lines(b"" if held == b" " else held)
        ended = self._hash.copy()
        if not self._empty:
            ended.update(b"\r\n")
        return ended.digest()


def _collapsed(data: bytes) -> bytes:
    """Return *data* with one blank for each run of blanks and tabs."""
    data = data.replace(b"\t", b" ")
    # Each pass halves the longest run, in C; a regular expression stops at every blank.
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def _relaxed(octets: bytes) -> bytes:
    """Return a field in the canonical form ``relaxed``, without its line end (section 3.4.2)."""
    name, _, value = octets.partition(b":")
    value = _collapsed(value.replace(b"\r\n", b""))
    return name.strip(b" \t").lower() + b":" + value.strip(b" ")


def _signed_names(header: Header) -> list[str]:
    """Return the names for ``h=``."""
    names = [field.name for field in header.fields]
    listed = []
    for name in _OVERSIGNED:
        listed += [name] * (names.count(name) + 1)
    for name in names:
        usual = name in _SIGNED or name.startswith(_SIGNED_PREFIXES)
        # In h=, a semicolon would end the tag, and begin another one.
        if usual and name != _NOT_SIGNED and ";" not in name:
            listed.append(name)
    return listed


def _signature_field(key: DKIMKey, header: Header, body_hash: bytes, now: float) -> bytes:
    names = _signed_names(header)
    lines = [
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;",
        f"d={key.domain}; s={key.selector}; t={int(now)};",
        *_folded([f"{name}:" for name in names], "h="),
        f"bh={b64encode(body_hash).decode('ascii')};",
        "b=",
    ]
    lines[-3] = lines[-3].removesuffix(":") + ";"
    unsigned = "\r\n ".join(lines).encode("ascii")
    left: dict[str, list[Field]] = {}
    for each in header.fields:
        left.setdefault(each.name, []).append(each)
    # The last one of a name is signed first; one that is not there is nothing (section 5.4.2).
    signed = [left[name].pop().octets for name in names if left.get(name)]
    data = b"".join(_relaxed(octets) + b"\r\n" for octets in signed) + _relaxed(unsigned)
    signature = b64encode(key.signature(data)).decode("ascii")
    width = FOLD_WIDTH - 4
    pieces = [signature[at : at + width] for at in range(0, len(signature), width)]
    return unsigned + "\r\n ".join(pieces).encode("ascii") + b"\r\n"


def _folded(words: list[str], begin: str) -> list[str]:
    """Return *words* in lines, the first of which begins with *begin*."""
    lines = [begin]
    for word in words:
        if len(lines[-1]) + len(word) < FOLD_WIDTH:
            lines[-1] += word
        else:
            lines.append(word)
    return lines


def from_domain(header: Header) -> str | None:
    """Return the domain of the addresses in ``From``, in A-labels and lower case.

    :returns: None if there is no such field, or more than one, or it has several domains or cannot be
        read, or a line of the header is not a field: readers may take other addresses for the author.
    """
    fields = [each for each in header.fields if each.name == "from"]
    if len(fields) != 1 or len(fields[0].octets) > MAX_FROM_SIZE or header.broken is not None:
        return None
    try:
        boxes = mailboxes("From", fields[0].value)
    except InvalidAddress:
        return None
    domains = {box.ascii_domain.lower() for box in boxes}
    return domains.pop() if len(domains) == 1 else None


def is_signed_by(header: Header, domain: str) -> bool:
    """Return True if a DKIM-Signature of *domain* is there, whether it is valid or not."""
    return any(_signing_domain(value) == domain for value in header.values("dkim-signature"))


def _signing_domain(value: str) -> str:
    """Return the tag ``d=`` of a signature as an A-label; it may be folded, and a U-label (RFC 8616)."""
    for tag in value.split(";"):
        name, _, text = tag.partition("=")
        if name.strip() == "d":
            domain = "".join(text.split()).rstrip(".").lower()
            try:
                return domain_name(domain).lower()
            except InvalidAddress:
                return domain
    return ""
