"""A connection to PostgreSQL that finds out in time that it is lost, and never cancels a commit.

Every statement goes through :meth:`PostgreSQLConnection.execute`, ``rows`` or ``run``.  Nothing depends on the
session: settings are of the transaction, and with a pooler no statement is prepared, so that
PgBouncer may pool transactions.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.errors import QueueError, QueueFull, QueueUnusable
from twisted_sendmail.queue.postgresql.driver import psycopg
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from twisted_sendmail.queue.postgresql.address import DatabaseAddress

    #: By position, or by name.
    Parameters = Sequence[Any] | Mapping[str, Any]

#: Seconds to wait for the answer to a statement, and to a COMMIT, which may wait for a standby.
ANSWER_TIMEOUT, COMMIT_TIMEOUT = 20.0, 60.0
# Seconds between two looks at the clock while it waits.
_INTERVAL = 0.2
# Executions of a statement after which it is prepared, over a connection without a pooler.
_PREPARE_AFTER = 5
# Classes of SQLSTATE that are no fault of the statement: another one would fail as well.
_OF_SERVER = ("08", "25", "40", "53", "55", "57", "58", "XX")
# Classes that are a fault of the data, and last.  A table that is missing, or a right, may come back.
_OF_DATA = ("21", "22", "23", "54")
_READ_ONLY, _DISK_FULL = "25006", "53100"
# An error of the driver, and a line of its list of the addresses that it tried.
_ERROR = r"(?:connection (?:failed|is bad): )?(?:connection to server .*? failed: )?(.*)$"
_REFUSED = re.compile(_ERROR, re.MULTILINE)
_REFUSED_BY_HOST = re.compile(
    rf"^ *- host: '?([^',]*)'?, port: '?(?:None|([^',]*))'?, hostaddr: \S+: {_ERROR}", re.MULTILINE
)
# Refusals that a later attempt does not change, by their remedies.  The driver has no SQLSTATE of a
# connection that was refused, so they are recognized by the texts of libpq, and of a server whose
# lc_messages is English; other refusals count as an outage.
_REFUSALS = {
    "correct the user in the URL and the password in its passfile": (
        "(password|Peer|Ident|certificate) authentication failed",
        "no password supplied",
    ),
    "create the role, or give another user in the URL": (
        'role ".*" (does not exist|is not permitted to log in)',
    ),
    "create the database, or give another one in the URL": (
        'database ".*" does not exist',
        "no such database",
    ),
    "let the user connect: GRANT CONNECT ON DATABASE": ("permission denied for database",),
    "let pg_hba.conf of the server admit this user; if it wants encryption: sslmode=require": (
        "no pg_hba.conf entry",
        "pg_hba.conf rejects",
    ),
    "let the server offer what the URL requires, or give other parameters": (
        "server does not support SSL",
        "(GSSAPI encryption|channel binding) required",
        "authentication method requirement",
    ),
    "give the CA of the server in sslrootcert, and the name in its certificate as the host": (
        "(root |server )?certificate ",
        "could not .* certificate",
    ),
    "give a certificate that the server accepts in sslcert, and its key in sslkey": (
        "connection requires a valid client certificate",
        "private key file ",
        ".* alert ",
    ),
    "correct the parameters of the URL": (
        "invalid .*(value|port number|command-line argument)",
        "(unrecognized configuration|unsupported startup) parameter",
        "definition of service",
    ),
    "give the host and the port of a PostgreSQL server": (
        "received invalid response",
        "expected authentication request",
    ),
}
_REMEDIES = [
    (re.compile(rf"(?:[A-Za-z_ ]+: +)?(?:{'|'.join(texts)})"), remedy)
    for remedy, texts in _REFUSALS.items()
]


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed when an answer takes too long; what runs is not cancelled."""

    patience = ANSWER_TIMEOUT

    def wait(self, gen: Any, interval: float = _INTERVAL, timeout: float | None = None) -> Any:
        limit = time.monotonic() + (self.patience if timeout is None else timeout)
        try:
            return psycopg.waiting.wait(_limited(gen, limit), self.pgconn.socket, interval=interval)
        except psycopg.Error:
            raise
        except BaseException:
            # Even KeyboardInterrupt must not cancel a COMMIT.
            self.pgconn.finish()
            raise


def _limited(gen: Any, limit: float) -> Generator[Any, Any, Any]:
    """Run the generator of a statement until *limit*."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > limit:
                raise TimeoutError("the database does not answer")
            wanted = gen.send(ready)
    except StopIteration as e:
        return e.value


def connect(address: DatabaseAddress, first: bytes) -> tuple[_Connection, Any]:
    """Return a connection to *address*, and the row that the statement *first* returns, or ``(0,)``.

    No answer is waited for without end: a thread that waits keeps the relay from stopping.
    """
    connection = _Connection.connect(
        **{**address.parameters, "client_encoding": "utf8"},  # type: ignore[arg-type]
        autocommit=True,
        prepare_threshold=None,
    )
    try:
        cursor = connection.execute(first)
        return connection, (cursor.fetchone() if cursor.description else None) or (0,)
    except BaseException:
        connection.close()
        raise


class PostgreSQLConnection:
    """An open connection to the database at *address*; an error leaves it closed if it is lost.

    :raises QueueUnusable: no host can be reached, which is ``temporary``, or takes the login.
    """

    def __init__(self, address: DatabaseAddress) -> None:
        self._address = address
        #: Grows with each statement that changes something.
        self.changes = 0
        #: Warnings of the server since the last COMMIT began.
        self.warnings: list[str] = []
        try:
            # A pooler such as PgBouncer has numbers of its own for its sessions, and gives each
            # transaction another one of the server: statements prepared in one are unknown in the next.
            self._psycopg, (pid,) = connect(address, b"SELECT pg_backend_pid()")
        except psycopg.Error as e:
            raise cannot_connect(address, e) from None
        self._psycopg.add_notice_handler(self._noticed)
        if pid == self._psycopg.info.backend_pid:
            self._psycopg.prepare_threshold = _PREPARE_AFTER
        self._cursor = self._psycopg.cursor(binary=True)
        self._commands = self._psycopg.cursor()

    def _noticed(self, diagnostic: Any) -> None:
        # Not the text, which the server translates.
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warnings.append(diagnostic.message_primary or "")

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run one statement that changes something; return the number of rows it concerns."""
        self.changes += 1
        return int(self._cursor.execute(_statement(sql), parameters).rowcount)

    def rows(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        changes: bool = False,
        prepare: bool | None = None,
    ) -> list[Any]:
        """Return all rows of a query.

        :param changes: it changes something.
        :param prepare: False: plan it each time, for its parameters.
        """
        self.changes += changes
        return self._cursor.execute(_statement(sql), parameters, prepare=prepare).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the first row of a query, or None."""
        return self._cursor.execute(_statement(sql), parameters).fetchone()

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the first column of the first row of a query, or None."""
        row = self.row(sql, parameters)
        return None if row is None else row[0]

    def run(self, sql: str) -> Any:
        """Run statements without parameters in one round trip; return a row of the last."""
        cursor = self._commands
        cursor.execute(sql.encode())
        while cursor.nextset():
            pass
        return cursor.fetchone() if cursor.description else None

    def commit(self) -> bool:
        """Commit; return whether it is durable as far as ``synchronous_commit`` requires.

        A server that ends its wait for a standby, because an operator cancelled it, has committed on
        its own disk only, and sends a warning. An error of the driver (``ERRORS``) is raised when the
        commit failed, or the connection was lost: then its result is unknown.  The server answers the
        COMMIT of a transaction that failed with ROLLBACK, and not with an error.
        """
        self.warnings.clear()
        self._psycopg.patience = COMMIT_TIMEOUT
        try:
            self._commands.execute(b"COMMIT")
        finally:
            self._psycopg.patience = ANSWER_TIMEOUT
        if self._commands.statusmessage != "COMMIT":
            raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")
        return not self.warnings

    @property
    def in_transaction(self) -> bool:
        """A transaction is open."""
        status = self._psycopg.info.transaction_status
        return status in {
            psycopg.pq.TransactionStatus.INTRANS,
            psycopg.pq.TransactionStatus.INERROR,
        }

    @property
    def host(self) -> str:
        """The host and the port of the server that was chosen."""
        return f"{self._psycopg.info.host}:{self._psycopg.info.port}"

    @property
    def server_version(self) -> int:
        """The version of the server, as in ``server_version_num``."""
        return self._psycopg.info.server_version

    @property
    def lost(self) -> bool:
        """The connection cannot be used any more."""
        return bool(self._psycopg.closed)

    def close(self) -> None:
        """Close the connection; uncommitted changes are lost."""
        self._psycopg.close()


def _statement(sql: str) -> bytes:
    """Return *sql* as the driver takes it: statements of ``sql_store`` have ``?`` for a parameter."""
    return sql.replace("?", "%s").encode()


#: Errors of the driver.
ERRORS = (psycopg.Error, OSError, UnicodeError)


def is_lost(error: Exception) -> bool:
    """Return whether *error* means that another host has to be found."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


def ends_connection(error: Exception) -> bool:
    """Return whether *error* is the server's reason to end the connection, as when it shuts down or crashes."""
    diagnostic = getattr(error, "diag", None)
    return getattr(diagnostic, "severity_nonlocalized", None) in {"FATAL", "PANIC"}


def is_of_server(error: Exception) -> bool:
    """Return whether *error* is no fault of a statement, and another one would fail as well.

    Among them are a lock that cannot be obtained and a disk that is full, but no deadlock.
    """
    state = getattr(error, "sqlstate", None)
    return state is not None and state[:2] in _OF_SERVER and state[:2] != "40"


def unusable(address: DatabaseAddress, why: str, remedy: str) -> QueueUnusable:
    """Return the error for a database that cannot hold the queue until somebody changes something."""
    return QueueUnusable(f"the queue {address} cannot be used", detail=why, remedy=remedy)


def cannot_connect(address: DatabaseAddress, error: Exception) -> QueueUnusable:
    """Return the error for a database that cannot be reached, or that refuses the connection.

    It is an outage unless every host refuses for a reason that lasts: a standby may be set up wrongly
    while the primary is down.
    """
    refused = _hosts(error)
    detail = printable(", ".join(f"{host}{' '.join(why.split())}" for host, why in refused), 400)
    remedies: dict[str, str] = {}
    for host, why in refused:
        # One address of a host is enough: the server may not listen on the others.
        remedy = next((remedy for refusal, remedy in _REMEDIES if refusal.match(why)), "")
        remedies[host] = remedies.get(host) or remedy
    if all(remedies.values()):
        return unusable(address, detail, next(iter(remedies.values())))
    found = QueueUnusable(
        f"the database of the queue cannot be reached at {address}",
        detail=detail,
        remedy="see that the server runs, takes writes, and admits this user",
    )
    found.temporary = True
    return found


def database_error(address: DatabaseAddress, error: Exception, doing: str) -> QueueError:
    """Return the error of the queue for *error*.

    :param doing: what failed, following "the queue could not".
    """
    if isinstance(error, QueueError):
        return error
    what = f"the queue could not {doing}"
    state = getattr(error, "sqlstate", None)
    detail = f"the database at {address.hosts}: {_text(error)}"
    if state == _DISK_FULL:
        return QueueFull(what, detail=detail, remedy="free space on the disk of the database")
    found = QueueError(what, detail=detail)
    if isinstance(error, psycopg.Error):
        # A fault of the connection or of the server may pass; a fault of the data does not.
        lost = state is None and isinstance(error, psycopg.OperationalError)
        found.temporary = lost or (state is not None and state[:2] not in _OF_DATA)
    else:
        found.temporary = isinstance(error, OSError)
    return found


def _text(error: Exception) -> str:
    """Return the server's text in one line."""
    diagnostic = getattr(error, "diag", None)
    text = (diagnostic.message_primary if diagnostic is not None else None) or str(error)
    return printable(" ".join(text.split()) or type(error).__name__, 400)


def _hosts(error: Exception) -> list[tuple[str, str]]:
    """Return each address that was tried, ``host:port: ``, and its error; of one host only the error."""
    text = str(error)
    # The driver repeats the last error before the list of all.
    found = _REFUSED_BY_HOST.findall(text)
    return [(f"{host}:{port or 5432}: ", why) for host, port, why in found] or [
        ("", why) for why in _REFUSED.findall(text)[:1]
    ]
