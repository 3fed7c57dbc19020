"""A submission server on the standard library, in a thread, that records the SASL exchange.

It knows each piece of the SASL exchange that may appear nowhere: every line of base64, and
what is in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted_sendmail.testing import Authority

USER = "tester@example.org"
PASSWORD = "kein-Wort-davon-42"
TOKEN = "ya29.a0Ab-kein_Wort+davon/42=="
SALT = b"sixteen octets !"
#: More than any port number, which may be shown.
ITERATIONS = 70_001

#: Takes the lines of the client after AUTH, yields replies.
Script = Callable[["Peer", bytes], Iterator[bytes]]
_YES = {b"EHLO": b"", b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}


def encoded(octets: bytes | str) -> bytes:
    """In base64."""
    return b64encode(octets.encode() if isinstance(octets, str) else octets)


class Peer:
    """One server.

    :param folder: for its certificate.
    :param mechanism: the only one it offers.
    :param script: answers AUTH and what follows.
    :param then: what it replies to verbs of the message instead of 250.
    :param cut: writes replies in pieces of so many octets.
    """

    def __init__(
        self,
        folder: Path,
        mechanism: str,
        script: Script,
        *,
        then: dict[bytes, bytes] | None = None,
        cut: int = 0,
    ) -> None:
        authority = Authority()
        self.ca_file = str(folder / "ca.pem")
        Path(self.ca_file).write_bytes(authority.pem)
        pem = folder / "server.pem"
        pem.touch(0o600)
        pem.write_bytes(authority.issue())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self.mechanism, self._script = mechanism, script
        self._then, self._cut = then or {}, cut
        #: What may appear nowhere.
        self.secrets: set[str] = {PASSWORD, TOKEN}
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    @property
    def url(self) -> str:
        """Where it is; without user."""
        return f"smtps://localhost:{self.port}"

    def challenge(self, octets: bytes) -> bytes:
        """A 334, whose content is remembered."""
        self.keep(encoded(octets), octets)
        return b"334 " + encoded(octets) + b"\r\n"

    def keep(self, *pieces: bytes) -> None:
        """Remember what may appear nowhere."""
        self.secrets |= {piece.decode("utf-8", "replace") for piece in pieces if len(piece) > 2}

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listening.accept()
            except OSError:
                return
            raw.settimeout(30)
            try:
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    self._talk(connection)
            except (OSError, ValueError):
                continue

    def _talk(self, connection: ssl.SSLSocket) -> None:  # noqa: C901 - a session in one piece
        def write(data: bytes) -> None:
            step = self._cut or len(data)
            for start in range(0, len(data), step):
                connection.sendall(data[start : start + step])

        lines = connection.makefile("rb")
        running: Any = None
        write(b"220 mx.example.net ESMTP\r\n")
        content = False
        for line in lines:
            word = line[:4].upper().rstrip()
            if content:
                content = line != b".\r\n"
                if not content:
                    write(self._then.get(b".", b"250 2.0.0 queued as 4711X\r\n"))
            elif running is not None or word == b"AUTH":
                self._look(line)
                if running is None:
                    self._heard: list[bytes] = []
                    running = self._script(self, line.rstrip(b"\r\n").split(b" ")[-1])
                self._heard.append(line.rstrip(b"\r\n"))
                reply = next(running)
                write(reply)
                if not reply.startswith(b"334"):
                    running = None
            elif word == b"EHLO":
                write(f"250-mx.example.net\r\n250 AUTH {self.mechanism}\r\n".encode())
            else:
                write(self._then.get(word, _YES.get(word, b"250 2.0.0 Ok\r\n")))
                content = word == b"DATA"
                if word == b"QUIT":
                    return

    @property
    def last(self) -> bytes:
        """The last line of the client, decoded."""
        return b64decode(self._heard[-1].split(b" ")[-1])

    def _look(self, line: bytes) -> None:
        text = line.rstrip(b"\r\n").split(b" ")[-1]
        try:
            decoded = b64decode(text, validate=True)
        except ValueError:
            return
        # The user name is no secret, but in base64 it is a piece of the exchange.
        self.keep(text)
        for part in re.split(rb"[\0\1,]", decoded):
            value = part[2:] if part[1:2] == b"=" else part
            if USER.encode() not in value and value not in {b"n", b"biws"}:
                self.keep(value, encoded(value))


# -- scripts ------------------------------------------------------------------


def plain(peer: Peer, first: bytes) -> Iterator[bytes]:
    """PLAIN, accepted."""
    peer.keep(first)
    yield b"235 2.7.0 ok " + encoded("data of a success") + b"\r\n"


def login(peer: Peer, first: bytes) -> Iterator[bytes]:
    """LOGIN, accepted."""
    yield peer.challenge(b"Username:")
    yield peer.challenge(b"Password:")
    yield b"235 2.7.0 ok\r\n"


def bearer(peer: Peer, first: bytes) -> Iterator[bytes]:
    """XOAUTH2 and OAUTHBEARER, accepted."""
    yield b"235 2.7.0 ok\r\n"


def cram(peer: Peer, first: bytes) -> Iterator[bytes]:
    """CRAM-MD5, accepted, with a quotation of the digest."""
    yield peer.challenge(b"<1896.697170952@mx.example.net>")
    digest = peer.last.rpartition(b" ")[2]
    peer.keep(digest)
    yield b"235 2.7.0 ok " + digest + b"\r\n"


def external(peer: Peer, first: bytes) -> Iterator[bytes]:
    """EXTERNAL, accepted."""
    yield b"235 2.7.0 ok\r\n"


def scram(peer: Peer, first: bytes, *, final: bytes = b"") -> Iterator[bytes]:
    """SCRAM-SHA-256, as RFC 5802 has it; *final* instead of the 235."""
    bare = b64decode(first)[3:]
    nonce = bare.rpartition(b"r=")[2] + b"rOprNGfwEbeRWgbN"
    count = str(ITERATIONS).encode()
    server_first = b"r=" + nonce + b",s=" + encoded(SALT) + b",i=" + count
    peer.keep(nonce, encoded(SALT), SALT, count)
    yield peer.challenge(server_first)
    client_final = peer.last
    without_proof = client_final.rpartition(b",p=")[0]
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, ITERATIONS)
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    message = b",".join((bare, server_first, without_proof))
    signature = encoded(hmac.digest(server_key, message, "sha256"))
    peer.keep(signature)
    yield peer.challenge(b"v=" + signature)
    yield final or b"235 2.7.0 " + encoded(b"v=" + signature) + b"\r\n"
