"""Every kind of trust in a server, with the servers that it accepts and refuses.

Another kind is one more entry of :data:`KINDS`: every test of ``test_every_trust`` then runs with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509

from tests.client.certificates import NAME, Authority, authority, context_of
from tests.client.test_dane import Names, record
from tests.client.test_trust import fingerprint_of, public_key_of
from twisted_sendmail import Credentials, TLSTrust

OTHER_NAME = "mail.internal.example"
SERVICE = "_submissions.example.org"
NO_PIN = "00" * 32


@lru_cache
def trusted_server(name: str) -> tuple[Any, SSL.Context]:
    """Return the certificate of the server that is *name*, and its context."""
    certificate, key = authority().server(name)
    return certificate, context_of(certificate, key)


@dataclass
class TrustKind:
    """One kind of trust.

    :param settings: of the client's SubmissionServer; ``trust`` at least.
    :param verified_by: of the facts.
    :param name: the name that the server's certificate has to have.
    :param impostors: servers that this kind refuses besides :data:`IMPOSTORS`.
    :param secure: keywords inside TLS.
    :param answers: of the server that is trusted.
    :param good: the context of the server that is trusted, if not the usual one for *name*.
    """

    settings: dict[str, Any]
    verified_by: str = "name"
    name: str = NAME
    impostors: dict[str, Callable[[], SSL.Context]] = field(default_factory=dict)
    secure: tuple[str, ...] = ("PIPELINING", "AUTH PLAIN")
    answers: dict[str, Any] = field(default_factory=dict)
    good: Callable[[], SSL.Context] = lambda: trusted_server(NAME)[1]

    @property
    def refused(self) -> dict[str, Callable[[], SSL.Context]]:
        """Contexts of servers that are refused, by what is wrong with them."""
        common = {what: lambda made=made: made(self.name) for what, made in IMPOSTORS.items()}
        return {**common, **self.impostors}


@lru_cache
def _impostor(what: str, name: str) -> SSL.Context:
    return {
        "another name": lambda: authority().context("other.example.net"),
        "an unknown CA": lambda: Authority("Evil CA").context(name),
        "a CA of the same name": lambda: Authority().context(name),
        "expired": lambda: authority().context(name, ends=-1),
        "a common name only": lambda: authority().context(common_name=name),
        "an address": lambda: authority().context("192.0.2.1"),
        "a wildcard too high": lambda: authority().context(f"*.{name.rpartition('.')[2]}"),
        "a longer name": lambda: authority().context(f"{name}.evil.example"),
    }[what]()


#: Servers that every kind refuses; each is made with the name that is trusted.
IMPOSTORS: dict[str, Callable[[str], SSL.Context]] = {
    what: lambda name, what=what: _impostor(what, name)  # type: ignore[misc]  # bound now
    for what in (
        "another name", "an unknown CA", "a CA of the same name", "expired", "a common name only",
        "an address", "a wildcard too high", "a longer name",
    )
}  # fmt: skip


@lru_cache
def _another_server() -> SSL.Context:
    """Return a server with a good certificate for the host, and a key of its own."""
    return authority().context(NAME)


# -- the kinds; each function gets a directory for its files


def _system(folder: Path) -> TrustKind:
    return TrustKind({"trust": TLSTrust()})


def _ca_file(folder: Path) -> TrustKind:
    return TrustKind({"trust": TLSTrust(folder / "ca.pem")})


def _ca_directory(folder: Path) -> TrustKind:
    return TrustKind({"trust": TLSTrust(ca_directory=folder / "hashed")})


def _certificate_pin(folder: Path) -> TrustKind:
    pin = fingerprint_of(trusted_server(NAME)[0])
    return TrustKind(
        {"trust": TLSTrust(fingerprint=pin)},
        "fingerprint",
        impostors={"a good certificate that is not pinned": _another_server},
    )


def _public_key_pin(folder: Path) -> TrustKind:
    pin = public_key_of(trusted_server(NAME)[0])
    return TrustKind(
        {"trust": TLSTrust(public_key=pin)},
        "public-key",
        impostors={"a good certificate with another key": _another_server},
    )


def _several_pins(folder: Path) -> TrustKind:
    pins = [NO_PIN, public_key_of(trusted_server(NAME)[0])]
    return TrustKind(
        {"trust": TLSTrust(fingerprint=[NO_PIN, "11" * 32], public_key=pins)},
        "public-key",
        impostors={"a good certificate that is not pinned": _another_server},
    )


def _verified_name(folder: Path) -> TrustKind:
    return TrustKind(
        {"trust": TLSTrust(folder / "ca.pem", name=OTHER_NAME)},
        name=OTHER_NAME,
        good=lambda: trusted_server(OTHER_NAME)[1],
        impostors={"the name of the host": _another_server},
    )


def _other_name(folder: Path) -> TrustKind:
    return TrustKind(
        {"trust": TLSTrust(folder / "ca.pem", other_names=(SERVICE, OTHER_NAME))},
        name=OTHER_NAME,
        good=lambda: trusted_server(OTHER_NAME)[1],
    )


def _minimum_version(folder: Path) -> TrustKind:
    return TrustKind({"trust": TLSTrust(folder / "ca.pem", minimum_version="TLSv1.3")})


def _client_pem(folder: Path) -> TrustKind:
    trust = TLSTrust(
        folder / "ca.pem",
        client_certificate=folder / "client.pem",
        client_key=folder / "client.key",
        client_key_password_file=folder / "password",
    )
    return TrustKind({"trust": trust})


def _client_pkcs12(folder: Path) -> TrustKind:
    trust = TLSTrust(
        folder / "ca.pem",
        client_certificate=folder / "client.p12",
        client_key_password_file=folder / "password",
    )
    return TrustKind({"trust": trust})


def _external(folder: Path) -> TrustKind:
    trust = TLSTrust(folder / "ca.pem", client_certificate=folder / "client-without-password.p12")
    credentials = Credentials("tester", mechanisms=["EXTERNAL"])
    return TrustKind(
        {"trust": trust, "credentials": credentials},
        secure=("PIPELINING", "AUTH EXTERNAL"),
        answers={"AUTH": "235 2.7.0 welcome"},
    )


def _dane(*records: str) -> dict[str, Any]:
    names = Names()
    for port in (465, 587):
        _ = names.tlsa(*records, name=f"_{port}._tcp.{NAME}")
    return {"trust": TLSTrust(dane=True), "resolver": names}


def _dane_ee(folder: Path) -> TrustKind:
    return TrustKind(
        _dane(record(3, 1, 1, trusted_server(NAME)[0])),
        "dane-ee",
        impostors={"a good certificate of a good CA": _another_server},
    )


def _dane_ta(folder: Path) -> TrustKind:
    return TrustKind(
        _dane(record(2, 0, 1, authority().certificate)), "dane-ta", good=_server_with_its_ca
    )


@lru_cache
def _server_with_its_ca() -> SSL.Context:
    context = context_of(*authority().server(NAME))
    context.add_extra_chain_cert(authority().certificate)
    return context


KINDS: dict[str, Callable[[Path], TrustKind]] = {
    "system CAs": _system,
    "CA file": _ca_file,
    "CA directory": _ca_directory,
    "certificate pin": _certificate_pin,
    "public-key pin": _public_key_pin,
    "several pins": _several_pins,
    "name to verify": _verified_name,
    "other names": _other_name,
    "minimum version": _minimum_version,
    "client certificate in PEM": _client_pem,
    "client certificate in PKCS#12": _client_pkcs12,
    "EXTERNAL": _external,
    "DANE-EE": _dane_ee,
    "DANE-TA": _dane_ta,
}


def write_files(folder: Path) -> None:
    """Write the files that the kinds name: CAs, and a client's certificate in each form."""
    pem = authority().write(folder / "ca.pem").read_bytes()
    (folder / "hashed").mkdir()
    hashed = X509.from_cryptography(authority().certificate).subject_name_hash()
    (folder / "hashed" / f"{hashed:08x}.0").write_bytes(pem)
    certificate, key = authority().server("client.example.org")
    secret = BestAvailableEncryption(b"correct horse")
    bundle = (b"", key, certificate, None)
    contents = {
        "client.pem": certificate.public_bytes(Encoding.PEM),
        "client.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret),
        "client.p12": pkcs12.serialize_key_and_certificates(*bundle, secret),
        "client-without-password.p12": pkcs12.serialize_key_and_certificates(
            *bundle, NoEncryption()
        ),
        "password": b"correct horse\n",
    }
    for name, octets in contents.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(octets)
