"""``twistd sendmail``: for now a loopback submission server, for trying clients.

STARTTLS and AUTH, with an authority and a password made at the start.  Each message
becomes a file; nothing is delivered.  The relay that will be here is not built yet.

It owns the service's directory and nothing else of the machine.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python import usage

from twisted_sendmail.ingress.accounts import HashedAccounts
from twisted_sendmail.ingress.factory import SMTPServerFactory
from twisted_sendmail.ingress.tls import ServerTLS
from twisted_sendmail.testkit.authority import Authority
from twisted_sendmail.testkit.mailbox import KeepingReceiver, ReceivedMessage

#: The only interface it listens on: what it takes, it does not deliver.
INTERFACE = "127.0.0.1"
#: The user who may send.
USER = "alice"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise ValueError("give a number from 0 to 65535")
    return int(text)


class Options(usage.Options):
    """What may be said behind ``twistd sendmail``."""

    optParameters = [  # noqa: RUF012 - usage.Options wants a list of the class
        ["port", "p", 2525, "Listen here, with STARTTLS; 0 for any port.", _port],
        ["tls-port", None, None, "Listen here too, with implicit TLS.", _port],
        ["directory", "d", None, "Keep CA, password and messages here; else in a temporary one."],
    ]
    longdesc = (
        "A submission server on the loopback interface, with STARTTLS and AUTH, for trying mail "
        "clients. It keeps each message as a file and delivers nothing. The relay is not built yet."
    )


class LoopbackService(Service):
    """The server, from start to stop.

    :param reactor: where to listen; the installed one if None.
    """

    name = "sendmail-loopback"
    log = Logger(namespace="twisted_sendmail.tap")

    def __init__(
        self,
        port: int = 2525,
        tls_port: int | None = None,
        directory: str | None = None,
        reactor: Any = None,
    ) -> None:
        self._port = port
        self._tls_port = tls_port
        self._given = directory
        self._reactor = reactor
        self._listening: list[IListeningPort] = []
        #: Where the files are, while it runs.
        self.directory: Path | None = None
        #: The ports it listens on: STARTTLS, and implicit TLS if asked for.
        self.ports: list[int] = []

    def startService(self) -> None:
        """See ``IService``."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self.directory = place = self._place()
        password = secrets.token_urlsafe(12)
        authority = Authority()
        _write(place / "password", password.encode() + b"\n")
        _write(place / "ca.pem", authority.pem)
        _write(place / "server.pem", authority.issue())
        tls = ServerTLS(place / "server.pem")
        factory = SMTPServerFactory(
            self._reactor,
            lambda connection: KeepingReceiver(connection, self._keep),
            tls=tls,
            accounts=HashedAccounts.of_passwords({USER: password}),
        )
        self._listen(self._port, factory)
        if self._tls_port is not None:
            implicit = TLSMemoryBIOFactory(tls, False, factory, clock=self._reactor)
            self._listen(self._tls_port, implicit)
        self.log.info(
            "try: twisted-sendmail send --server smtp+starttls://{user}@{host}:{port} "
            "--ca-file {place}/ca.pem --password-file {place}/password FILE "
            "(loopback only; nothing is delivered; the certificate is good for a day)",
            user=USER,
            host=INTERFACE,
            port=self.ports[0],
            place=place,
        )

    def stopService(self) -> Deferred[Any]:
        """See ``IService``; fires when the ports are closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        closing = [port.stopListening() for port in self._listening]
        self._listening, self.ports = [], []
        directory, self.directory = self.directory, None

        def tidy(result: object) -> object:
            if self._given is None and directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
            return result

        return DeferredList([d for d in closing if d is not None]).addBoth(tidy)

    def _place(self) -> Path:
        if self._given is None:
            return Path(tempfile.mkdtemp(prefix="twisted_sendmail-"))
        place = Path(self._given).absolute()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return place

    def _listen(self, number: int, factory: Any) -> None:
        port: IListeningPort = self._reactor.listenTCP(number, factory, interface=INTERFACE)
        self._listening.append(port)
        address: Any = port.getHost()
        self.ports.append(address.port)

    def _keep(self, message: ReceivedMessage) -> None:
        assert self.directory is not None  # noqa: S101 - for mypy: it runs
        file = self.directory / f"{message.id}.eml"
        _write(file, message.content)
        self.log.info("{message}, kept as {file}", message=str(message), file=str(file))


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


def makeService(options: Options) -> LoopbackService:
    """See ``IServiceMaker``."""
    return LoopbackService(options["port"], options["tls-port"], options["directory"])
