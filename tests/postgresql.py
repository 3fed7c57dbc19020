"""Private PostgreSQL servers: one for each test process with a database for each test, and pairs for failures.

A server owns one temporary directory and the processes it starts; it listens on a Unix socket there
and on a free port of the loopback interface. It never touches a server that runs as a system service.
As the superuser it runs as the user `postgres`, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest

from tests.ports import free_port, listens
from tests.scenarios.peers import require
from tests.waiting import PATIENCE, wait_until

#: An ordinary user, who owns the databases of the tests. The password is asked for by `SECRETIVE` alone.
USER = "relay"
#: As `USER`, but must log in with `PASSWORD`.
SECRETIVE, PASSWORD = "secretive", "a password of nobody"

_SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
autovacuum_naptime = 5s
log_line_prefix = '%m [%p] %a '
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
{more}
"""
_ACCESS = f"""\
local all {SECRETIVE} scram-sha-256
host all {SECRETIVE} 127.0.0.1/32 scram-sha-256
local all all trust
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""
# Ends the server when this process is gone without a word: then the pipe at its stdin is closed.
_GUARD = """
folder=$1; shift
"$@" </dev/null & server=$!
echo $server >"$folder/guarded"
read -r word
[ "$word" ] && exit
kill -QUIT $server 2>/dev/null; wait $server
rm -rf "$folder"
"""


def programs() -> Path | None:
    """The directory of the newest PostgreSQL of Debian; or of the one in PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


def _version(program: Path) -> float:
    return float(program.parent.parent.name)


def why_not() -> str | None:
    """Why PostgreSQL cannot be run here; None if it can."""
    if programs() is None:
        return "it is not installed; run tests/install-peers"
    if os.geteuid() == 0 and _owner() is None:
        return "there is no user postgres to run it as"
    return None


def _owner() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return None


def as_owner() -> dict[str, Any]:
    """Arguments of `Popen` for the user that the server runs as."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def new_folder() -> Path:
    """In memory where there is space: then fsync costs nothing, and need not be switched off."""
    memory = Path("/dev/shm")  # noqa: S108  # a directory of its own is made in it
    usable = memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=memory if usable else None))
    give_to_server(folder)
    # Relays of the tests that are other users reach the socket.
    folder.chmod(0o755)
    return folder


def give_to_server(folder: Path) -> None:
    """Let *folder* belong to the user that servers run as."""
    if (owner := _owner()) and os.geteuid() == 0:
        os.chown(folder, owner.pw_uid, owner.pw_gid)


@functools.cache
def _template() -> Path:
    """The files of a server that was never started; made once for a test process."""
    folder = new_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _run(
        folder,
        "initdb",
        "-D",
        f"{folder}/data",
        "-U",
        "postgres",
        "-A",
        "trust",
        "-N",
        "-E",
        "UTF8",
        "--locale=C",
    )
    (folder / "data/pg_hba.conf").write_text(_ACCESS)
    return folder


def _run(folder: Path, program: str, *arguments: str) -> None:
    where = programs()
    assert where is not None
    done = subprocess.run(
        [str(where / program), *arguments],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        text=True,
        **as_owner(),
    )
    assert done.returncode == 0, done.stderr


class PostgreSQL:
    """One server. It can be stopped, killed, suspended, promoted and started again on its port.

    :param settings: lines of postgresql.conf: `synchronous_standby_names = 'ANY 1 (*)'`.
    """

    def __init__(self, *settings: str) -> None:
        self.folder = new_folder()
        self.port = free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        self._copy(_template() / "data")
        self.configure(*settings)

    def _copy(self, data: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        subprocess.run(["cp", "-a", str(data), str(self.data)], check=True)

    def configure(self, *settings: str) -> None:
        """Replace the settings; they are in effect from the next start or `reload` on."""
        text = _SETTINGS.format(port=self.port, folder=self.folder, more="\n".join(settings))
        (self.data / "postgresql.conf").write_text(text)

    def reload(self) -> None:
        """Let the server read its settings again."""
        self.sql("SELECT pg_reload_conf()")

    @property
    def data(self) -> Path:
        """The directory of its files."""
        return self.folder / "data"

    @property
    def log(self) -> str:
        """Everything it has logged."""
        return (self.folder / "log").read_text("utf-8", "replace")

    @property
    def pid(self) -> int:
        """The process that is the parent of all others of the server."""
        return int((self.folder / "guarded").read_text())

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.launch()
        since = time.monotonic()
        while True:
            try:
                self.sql("SELECT 1")
            except psycopg.OperationalError:
                assert self.running(), self.log[-4000:]
                assert time.monotonic() - since < PATIENCE, self.log[-4000:]
                time.sleep(0.02)
            else:
                return

    def launch(self) -> None:
        """Start it; it does not take connections yet."""
        where = programs()
        assert where is not None
        (self.folder / "guarded").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    _GUARD,
                    "guard",
                    str(self.folder),
                    str(where / "postgres"),
                    "-D",
                    str(self.data),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **as_owner(),
            )
        wait_until(self._written)

    def _written(self) -> bool:
        file = self.folder / "guarded"
        return file.exists() and file.read_text().endswith("\n")

    def running(self) -> bool:
        """Is the process of the server there?"""
        return self._guard is not None and _exists(self.pid)

    def stop(self) -> None:
        """Stop it in order; connections are ended."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End each of its processes at once, as a machine that loses power."""
        if self._guard is None:
            return
        # Stopped first, so that none of them reacts to the end of another.
        processes = [self.pid, *_children(self.pid)]
        for pid in processes:
            _send(pid, signal.SIGSTOP)
        processes = [self.pid, *_children(self.pid)]
        for pid in processes:
            _send(pid, signal.SIGKILL)
        self._gone()

    def suspend(self) -> None:
        """Stop each of its processes: connections stay open, and nothing is answered."""
        for pid in (self.pid, *_children(self.pid)):
            _send(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `suspend`."""
        for pid in (self.pid, *_children(self.pid)):
            _send(pid, signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.running():
            _send(self.pid, number)
            self._gone()

    def _gone(self) -> None:
        since = time.monotonic()
        while self.running():
            if time.monotonic() - since > PATIENCE / 2:
                _send(self.pid, signal.SIGQUIT)
            assert time.monotonic() - since < PATIENCE, self.log[-4000:]
            time.sleep(0.01)
        guard, self._guard = self._guard, None
        assert guard is not None
        guard.communicate(b"ended\n", PATIENCE)

    def remove(self) -> None:
        """End it, and remove its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---------------------------------------------------------------------------------------------

    def connect(
        self, database: str = "postgres", user: str = "postgres"
    ) -> psycopg.Connection[Any]:
        """A connection, each statement of which is a transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=user,
            autocommit=True,
            connect_timeout=10,
        )

    def sql(self, statement: str, *values: object, database: str = "postgres") -> list[Any]:
        """The rows of one statement, run by the superuser of the server."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def create_users(self) -> None:
        """Make `USER` and `SECRETIVE`."""
        self.sql(f"CREATE ROLE {USER} LOGIN")
        self.sql(f"CREATE ROLE {SECRETIVE} LOGIN PASSWORD '{PASSWORD}' IN ROLE {USER}")

    def create_database(self, name: str) -> None:
        """An empty database of `USER`."""
        # By copies of files, which takes half the time of the default, by the write-ahead log.
        self.sql(f"CREATE DATABASE {name} OWNER {USER} STRATEGY file_copy")

    def drop_database(self, name: str) -> None:
        """Remove a database, also while connections to it are open."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def cancel_commit(self) -> None:
        """Wait for a COMMIT that waits for a standby, and cancel it: `pg_cancel_backend`."""
        cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: self.sql(cancel), lambda: "no commit waits for a standby")

    def wait_for_standby(self, log: Callable[[], object]) -> None:
        """Wait until a standby takes part in each commit.

        :param log: of the standby.
        """
        follows = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'"
        wait_until(lambda: self.sql(follows), log)

    def url(
        self, database: str, *, user: str = USER, port: int | None = None, **parameters: str
    ) -> str:
        """The place of a queue in one of its databases.

        :param port: of a proxy before the server.
        """
        return place([port or self.port], database, user=user, **parameters)


def place(ports: list[int], database: str, *, user: str = USER, **parameters: str) -> str:
    """The place of a queue on servers at several ports of the loopback interface."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"postgresql://{user}@{hosts}/{database}{query}"


class Pair:
    """A primary that waits for a standby at each commit, and this standby.

    :param through: the port of a proxy through which the standby reaches the primary.
    :param settings: lines of postgresql.conf for both.
    """

    def __init__(self, *settings: str, through: int | None = None) -> None:
        self.settings = ("synchronous_standby_names = 'ANY 1 (*)'", "hot_standby = on", *settings)
        self.primary = PostgreSQL(*self.settings)
        self.standby = PostgreSQL()
        # A copy of files that no server writes to is a base backup.
        self.standby._copy(self.primary.data)
        self.follow(self.standby, through or self.primary.port)

    def follow(self, standby: PostgreSQL, port: int) -> None:
        """Let *standby*, which does not run, replicate the server at *port*."""
        standby.configure(
            *self.settings,
            f"primary_conninfo = 'host=127.0.0.1 port={port} user=postgres application_name=p{standby.port}'",
        )
        (standby.data / "standby.signal").touch()

    def start(self) -> None:
        """Start both, and wait until each commit is on both."""
        self.primary.start()
        self.standby.start()
        self.primary.wait_for_standby(lambda: self.standby.log[-4000:])
        self.primary.create_users()

    def promote(self, *, alone: bool = True) -> None:
        """Make the standby a primary.

        :param alone: it commits without a standby of its own; otherwise it waits for one.
        """
        if alone:
            self.standby.configure()
            self.standby.reload()
        self.standby.sql("SELECT pg_promote()")

    def url(self, database: str, *, user: str = USER, **parameters: str) -> str:
        """The place of a queue that both hold."""
        return place([self.primary.port, self.standby.port], database, user=user, **parameters)

    def remove(self) -> None:
        """End both, and remove their files."""
        self.standby.remove()
        self.primary.remove()


class PgBouncer:
    """A PgBouncer in transaction mode before a server, which shares few connections."""

    def __init__(self, server: PostgreSQL) -> None:
        self.port = free_port()
        self._folder = new_folder()
        users = self._folder / "users"
        users.write_text(f'"{USER}" ""\n"postgres" ""\n')
        (self._folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            "default_pool_size = 4\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["pgbouncer", str(self._folder / "ini")], stdout=log, stderr=log, **as_owner()
            )
        wait_until(lambda: listens(self.port), (self._folder / "log").read_text)

    def url(self, database: str, **parameters: str) -> str:
        """The place of a queue that is reached through it."""
        return place([self.port], database, **parameters)

    def remove(self) -> None:
        """End it, and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name of the program may contain blanks and parentheses.
            if int(stat.read_text("ascii", "replace").rpartition(")")[2].split()[1]) == pid:
                children.append(int(stat.parent.name))
    return children


def _exists(pid: int) -> bool:
    try:
        state = (
            Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        )
    except OSError:
        return False
    return state != "Z"


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# -------------------------------------------------------------------------------------------------
# Fixtures; tests/conftest.py makes them known.


_numbers = itertools.count()


@contextlib.contextmanager
def _running() -> Iterator[PostgreSQL]:
    require("PostgreSQL", why_not())
    server = PostgreSQL()
    try:
        server.start()
        server.create_users()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running server; every test of this process uses the same one."""
    with _running() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """A running server for this test alone, with a database `mail`."""
    with _running() as server:
        server.create_database("mail")
        yield server


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    """The name of an empty database on `postgresql`."""
    name = f"mail{next(_numbers)}"
    postgresql.create_database(name)
    yield name
    postgresql.drop_database(name)


@pytest.fixture
def postgresql_pair() -> Iterator[Pair]:
    """A running primary with a running synchronous standby, for this test alone, and a database `mail`."""
    require("PostgreSQL", why_not())
    pair = Pair()
    try:
        pair.start()
        pair.primary.create_database("mail")
        yield pair
    finally:
        pair.remove()


@pytest.fixture
def pgbouncer(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A running PgBouncer in transaction mode before `postgresql`."""
    require("PgBouncer", None if shutil.which("pgbouncer") else "run tests/install-peers")
    made = PgBouncer(postgresql)
    try:
        made.start()
        yield made
    finally:
        made.remove()
