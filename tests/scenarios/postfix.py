"""A private Postfix with its own configuration, queue, ports and processes, removed after the test run.

It owns the processes it starts and one temporary directory. It never touches `/etc/postfix`, nor
a Postfix that runs as a system service. What was delivered is read back from its mailbox.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.task import deferLater

from tests.ports import free_ports
from tests.scenarios.postfix_configuration import (
    ACCESS,
    DOMAIN,
    HOST,
    MAIN,
    PASSWORD,
    SASL,
    SERVICES,
    USER,
    master,
)
from twisted_sendmail import Credentials, SubmissionServer, Timeouts, TLSTrust
from twisted_sendmail.received import ReceivedField
from twisted_sendmail.testing import Authority

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Seconds. Only a Postfix that is broken takes so long.
PATIENCE = 60
_MASTER = Path("/usr/lib/postfix/sbin/master")
# Ends Postfix when we are gone, however that came about: then nobody holds its stdin open.
# Postfix leads a group of its own, in which nobody else is.
GUARD = """
directory=$1; shift
setsid "$@" </dev/null & master=$!
read -r _
kill $master; wait $master
kill -KILL -$master 2>/dev/null
rm -rf "$directory"
"""


def why_not() -> str | None:
    """Why Postfix cannot be run here; None if it can."""
    if os.geteuid() != 0:
        return "Postfix has to be started by root"
    missing = [tool for tool in ("postfix", "saslpasswd2", "setsid") if _found(tool) is None]
    if missing or not _MASTER.is_file():
        return f"not installed: {', '.join(missing) or _MASTER}; run tests/install-peers"
    return None


def _found(tool: str) -> str | None:
    # Where root's tools are, in a shell of anybody else.
    return shutil.which(tool, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


@dataclass(frozen=True)
class Delivered:
    """One copy, as it lies in the mailbox."""

    #: The reverse-path, `""` for the null one.
    sender: str
    recipient: str
    queue_id: str
    #: Postfix's own trace.
    received: ReceivedField
    #: The octets that were submitted: without Postfix's own trace, line ends as on the wire.
    content: bytes


_TRACE = re.compile(
    rb"Return-Path: <(?P<sender>.*)>\n"
    rb"(?:X-Original-To: .*\n)?"
    rb"Delivered-To: (?P<recipient>.*)\n"
    rb"(?P<received>Received: .*\n(?:[ \t].*\n)*)"
)


def _read(path: Path) -> Delivered:
    raw = path.read_bytes()
    trace = _TRACE.match(raw)
    assert trace, f"{path} does not begin with a trace: {raw[:400]!r}"
    received = ReceivedField.parse(trace["received"])
    return Delivered(
        trace["sender"].decode(),
        trace["recipient"].decode(),
        received.id or "",
        received,
        raw[trace.end() :].replace(b"\n", b"\r\n"),
    )


class Postfix:
    """One running Postfix; `with Postfix() as postfix`."""

    def __init__(self) -> None:
        self.authority = Authority()
        self._directory: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        # Lines and copies that were read: there are thousands, and many tests ask for them.
        self._log: list[str] = []
        self._log_size = 0
        self._copies: dict[Path, Delivered] = {}
        #: The port of each service of `postfix_configuration.SERVICES`.
        self.ports: dict[str, int] = {}

    # -- what a client needs ---------------------------------------------------------

    @property
    def trust(self) -> TLSTrust:
        """The authority of its certificates, and the name they bear."""
        return TLSTrust(ca_file=self.directory / "ca.pem", name=HOST)

    def url(self, service: str = "submission") -> str:
        """`smtp+starttls://` or `smtps://`, by the service's port."""
        scheme = "smtps" if service == "submissions" else "smtp+starttls"
        return f"{scheme}://127.0.0.1:{self.ports[service]}"

    def server(self, service: str = "submission", **settings: Any) -> SubmissionServer:
        """Where the service is; with the right trust and user, unless *settings* say otherwise."""
        defaults = {"trust": self.trust, "timeouts": Timeouts(total=PATIENCE)}
        if "tls" not in settings and service not in {"no_auth", "no_tls"}:
            defaults["credentials"] = self.credentials()
        if "tls" in settings:
            return SubmissionServer("127.0.0.1", self.ports[service], **{**defaults, **settings})
        return SubmissionServer.from_url(self.url(service), **{**defaults, **settings})

    @staticmethod
    def credentials(*mechanisms: str, password: str = PASSWORD) -> Credentials:
        """The one user there is."""
        return Credentials(USER, password, mechanisms=mechanisms or None)

    @property
    def socket(self) -> str:
        """The path of the Unix socket of the service `local`."""
        return str(self.directory / "queue/public/local-submission")

    # -- what it has seen -------------------------------------------------------------

    @property
    def log(self) -> list[str]:
        """What it logged, line by line."""
        with (self.directory / "maillog").open("rb") as file:
            file.seek(self._log_size)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._log_size += len(whole) + 1
            self._log += whole.decode("utf-8", "replace").split("\n")
        return self._log

    def logged(self, *words: str, since: int = 0) -> list[str]:
        """The lines of the log that hold all of *words*, from line *since* on."""
        return [line for line in self.log[since:] if all(word in line for word in words)]

    async def lines(self, reactor: Any, count: int, *words: str, since: int = 0) -> list[str]:
        """The lines of the log that hold all of *words*, once there are *count* of them."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.logged(*words, since=since)) < count:
            missing = f"not {count} lines with {words}:\n" + "\n".join(self.log[since:])
            assert time.monotonic() < deadline, missing
            await deferLater(reactor, 0.02)
        return found

    async def line(self, reactor: Any, *words: str, since: int = 0) -> str:
        """The first line of the log that holds all of *words*, once it is there."""
        return (await self.lines(reactor, 1, *words, since=since))[0]

    async def quiet(self, reactor: Any) -> None:
        """Nobody is connected any more, and nothing is in the queue."""
        deadline = time.monotonic() + PATIENCE
        queue = self.directory / "queue"
        while True:
            come, gone = self.logged(": connect from"), self.logged(": disconnect from")
            queues = [queue / name for name in ("incoming", "active", "deferred")]
            left = [path for each in queues for path in each.rglob("*") if path.is_file()]
            if len(come) == len(gone) and not left:
                return
            assert time.monotonic() < deadline, f"{len(come)} came, {len(gone)} went, left: {left}"
            await deferLater(reactor, 0.02)

    async def delivered(self, reactor: Any, *queue_ids: str | None) -> list[Delivered]:
        """Every copy of these messages, once Postfix is done with them, by recipient."""
        deadline = time.monotonic() + PATIENCE
        while missing := set(queue_ids) - self._removed():
            assert time.monotonic() < deadline, f"not delivered: {missing}"
            await deferLater(reactor, 0.02)
        copies = [copy for copy in self.mailbox() if copy.queue_id in queue_ids]
        return sorted(copies, key=lambda copy: (copy.recipient, copy.queue_id))

    def _removed(self) -> set[str]:
        """The queue ids of the messages that Postfix is done with."""
        return {line.split()[-2].rstrip(":") for line in self.logged(": removed")}

    def mailbox(self) -> list[Delivered]:
        """Every copy that was ever delivered."""
        for path in sorted((self.directory / "mail/all/new").glob("*")):
            if path not in self._copies:
                self._copies[path] = _read(path)
        return list(self._copies.values())

    # -- life ---------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Everything of it, the processes aside."""
        assert self._directory, "Postfix was not started"
        return self._directory

    def __enter__(self) -> Postfix:
        # Not pytest's tmp_path: Postfix's own user may not enter that one.
        self._directory = Path(tempfile.mkdtemp(prefix="postfix-"))
        try:
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            with guard:  # closes its stdin, which is the sign, and waits
                pass
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _configure(self) -> None:
        at = self.directory
        at.chmod(0o755)
        owner = pwd.getpwnam("postfix")
        for name in ("conf", "conf/sasl", "data", "queue", "mail", "mail/all"):
            (at / name).mkdir()
        for name in ("data", "mail", "mail/all"):
            os.chown(at / name, owner.pw_uid, owner.pw_gid)
        (at / "maillog").touch()
        (at / "ca.pem").write_bytes(self.authority.pem)
        an_hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
        certificates = {
            "server": self.authority.issue([HOST]),
            "expired": self.authority.issue([HOST], not_after=an_hour_ago),
        }
        for name, pem in certificates.items():
            # Postfix wants the key first.
            certificate, begin, key = pem.partition(b"-----BEGIN PRIVATE KEY-----")
            (at / f"{name}.pem").write_bytes(begin + key + certificate)
            (at / f"{name}.pem").chmod(0o600)
        for name, text in ACCESS.items():
            (at / "conf" / name).write_text(text, "ascii")
        for name, text in SASL.items():
            (at / "conf/sasl" / f"{name}.conf").write_text(text.format(directory=at), "ascii")
        database = at / "sasldb2"
        _run("saslpasswd2", "-p", "-c", "-f", str(database), "-u", DOMAIN, USER, given=PASSWORD)
        os.chown(database, owner.pw_uid, owner.pw_gid)
        settings = MAIN.format(directory=at, uid=owner.pw_uid, gid=owner.pw_gid)
        (at / "conf/main.cf").write_text(settings, "ascii")
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        (at / "conf/master.cf").write_text(master(self.ports, at), "ascii")

    def _start(self) -> None:
        configuration = str(self.directory / "conf")
        _run("postfix", "-c", configuration, "check")
        self._guard = subprocess.Popen(
            [
                "sh",
                "-c",
                GUARD,
                "sh",
                str(self.directory),
                str(_MASTER),
                "-c",
                configuration,
                "-d",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        # Then it listens at every port; a connection to see that would start a process for each service.
        while not self.logged("/master[", "daemon started"):
            log = "\n".join(self.log)
            assert not self.logged("/master[", "fatal:"), f"Postfix ended at once:\n{log}"
            assert time.monotonic() < deadline, f"Postfix does not answer:\n{log}"
            time.sleep(0.02)


def _run(tool: str, *arguments: str, given: str = "") -> None:
    command: Sequence[str] = [_found(tool) or tool, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{tool} failed: {done.stdout}{done.stderr}"
