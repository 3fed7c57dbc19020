"""Processes of a real Buildbot: a master in a folder of its own, and a worker.

The master runs a build for each scheduler that its configuration gets; each is due once, at its start.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from tests.ports import free_port
from tests.scenarios.peers import python_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds. Only a Buildbot that is broken takes so long.
PATIENCE = 120.0
_CONFIGURATION = """
from buildbot.plugins import reporters, schedulers, secrets, steps, util, worker
from twisted_sendmail import SubmissionServer, TLSTrust
from twisted_sendmail.buildbot import MailNotifier

step = steps.ShellCommand(command="echo 'Grüße aus dem Log'; echo .; exit 3", name="compile")
logs = reporters.BuildStatusGenerator(add_logs=True)
missing = reporters.WorkerMissingGenerator(workers="all")
BuildmasterConfig = {
    "title": "Zoo",
    "buildbotURL": "http://127.0.0.1:8010/",
    "buildbotNetUsageData": None,
    "multiMaster": True,
    "db": {"db_url": DATABASE},
    "protocols": PROTOCOLS,
    "workers": WORKERS,
    "builders": [
        util.BuilderConfig(name=BUILDER, workernames=[each.name for each in WORKERS], factory=util.BuildFactory([step]))
    ],
    "schedulers": [schedulers.Periodic(name=each, builderNames=[BUILDER], periodicBuildTimer=10**6) for each in BUILDS],
    "secretsProviders": [secrets.SecretInAFile(dirname="SECRETS")],
    "services": [REPORTERS],
}
"""


class BuildbotProcess:
    """A process of Buildbot that works in *folder*, with its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self._bin = python_of("buildbot").parent

    def command(self, program: str, *arguments: str) -> str:
        """Run a command to its end; its output."""
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout

    def start(self, **environment: str) -> None:
        """Start the process, and do not wait."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [self._bin / "twistd", "--nodaemon", "--pidfile=", "-y", "buildbot.tac"],
                cwd=self.folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        """All lines of the log so far."""
        path = self.folder / "twistd.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait(self, done: Callable[[], object]) -> None:
        """Wait until *done*, while the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until *text* is in the log."""
        self.wait(lambda: self.log.count(text) >= times)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None


class Master(BuildbotProcess):
    """A master.

    :param database: the folder with the database, which several masters may share.
    """

    def __init__(self, folder: Path, database: Path, secret: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._database = f"sqlite:///{database}/state.sqlite"
        created = self.command("buildbot", "create-master", f"--db={self._database}", str(folder))
        assert "buildmaster configured" in created, created
        secrets = folder / "secrets"
        secrets.mkdir(0o700)
        (secrets / "mail").write_text(secret)
        (secrets / "mail").chmod(0o600)

    def configure(
        self, *reporters: str, builds: tuple[str, ...] = (), local_worker: bool = False
    ) -> None:
        """Write the configuration.

        :param reporters: expressions in Python.
        :param builds: names of schedulers; each that is new runs one build.
        :param local_worker: with a worker inside the master's process, instead of its own process.
        """
        name = self.folder.name
        worker = (
            f"worker.LocalWorker('{name}')" if local_worker else f"worker.Worker('{name}', 'p')"
        )
        protocols = (
            {"null": {}}
            if local_worker
            else {"pb": {"port": f"tcp:{self.port}:interface=127.0.0.1"}}
        )
        values = {
            "DATABASE": repr(self._database),
            "PROTOCOLS": repr(protocols),
            "WORKERS": f"[{worker}]",
            "BUILDER": repr(f"{name}-builder"),
            "BUILDS": repr(builds),
            "SECRETS": str(self.folder / "secrets"),
            "REPORTERS": ", ".join(reporters),
        }
        text = _CONFIGURATION
        for key, value in values.items():
            text = text.replace(key, value)
        (self.folder / "master.cfg").write_text(text, "utf-8")

    def check_configuration(self) -> str:
        """Return what ``buildbot checkconfig`` prints."""
        return self.command("buildbot", "checkconfig", str(self.folder))


class Worker(BuildbotProcess):
    """The worker of *master*."""

    def __init__(self, folder: Path, master: Master) -> None:
        super().__init__(folder)
        address = f"127.0.0.1:{master.port}"
        self.command(
            "buildbot-worker", "create-worker", str(folder), address, master.folder.name, "p"
        )
