"""Keys for DKIM, and two verifiers that others wrote: dkimpy, and Mail::DKIM, which asks a DNS server."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING
from unittest.mock import patch

import dkim  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_sendmail import DKIMKey

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A time after that of any test, in seconds since 1970.
AFTER_ALL = 4_000_000_000
#: Reads messages, separated by NUL, and prints a line for each with the results of its signatures.
_PERL = """
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(
    nameservers => ['127.0.0.1'], port => $ARGV[0], recurse => 1, udp_timeout => 5, retry => 2));
local $/ = "\\0";
while (my $message = <STDIN>) {
    chomp $message;
    my $verifier = Mail::DKIM::Verifier->new();
    $verifier->PRINT($message); $verifier->CLOSE;
    print join("; ", map { $_->algorithm . ' ' . $_->result } $verifier->signatures), "\\n";
}
"""


@lru_cache
def keys(domain: str = "example.org") -> tuple[DKIMKey, DKIMKey]:
    """An RSA key and an Ed25519 key; the same ones for the whole test run."""
    return (
        DKIMKey(domain, "rsa2026", generate_private_key(65537, 2048)),
        DKIMKey(domain, "ed2026", Ed25519PrivateKey.generate()),
    )


def pem(key: DKIMKey) -> bytes:
    """The private key as it is in a file."""
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def verify(message: bytes, *published: DKIMKey) -> list[bool]:
    """Whether each signature of *message* is valid, as dkimpy sees it.

    :param published: the keys whose records are in the DNS; by default those of :func:`keys`.
    """
    records = {f"{key.record_name}.": key.record for key in published or keys()}

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:
        found = records.get(name.decode("ascii"))
        return None if found is None else found.encode("ascii")

    def valid(number: int) -> bool:
        try:
            return bool(dkim.DKIM(message).verify(idx=number, dnsfunc=lookup))
        except dkim.ValidationError:
            return False

    header = message.partition(b"\r\n\r\n")[0]
    count = len(re.findall(rb"^dkim-signature:", header, re.IGNORECASE | re.MULTILINE))
    # The clock of a test may be ahead of that of the machine.
    with patch("dkim.time.time", return_value=AFTER_ALL):
        return [valid(number) for number in range(count)]


def why_no_perl() -> str | None:
    """Why Mail::DKIM cannot be run here; None if it can."""
    probe = ["perl", "-MMail::DKIM::Verifier", "-MNet::DNS", "-e", "1"]
    try:
        found = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    return None if found else "Mail::DKIM is missing; run tests/install-peers"


def verify_by_perl(messages: Iterable[bytes], port: int) -> list[dict[str, str]]:
    """The results of Mail::DKIM for each message, by algorithm, with the DNS server at *port*.

    Not every version of it supports Ed25519.
    """
    command = ["perl", "-e", _PERL, str(port)]
    given = b"\0".join(messages)
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    results = []
    for line in done.stdout.decode().splitlines():
        pairs = [each.partition(" ") for each in line.split("; ")]
        results.append({algorithm: result for algorithm, _, result in pairs})
    return results
