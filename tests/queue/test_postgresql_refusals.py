"""A database that refuses a relay: mistakes of the configuration, which last, and outages, which pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
from twisted.internet.task import Clock

from tests.names import InlineWorker, QueueError, QueueUnusable
from tests.postgresql import PASSWORD, PostgreSQL, give_to_server, why_not
from tests.queue.test_postgresql import Node, _end_connections, _logged
from tests.scenarios.peers import require
from twisted_sendmail.admin.health import Health
from twisted_sendmail.exit_status import ExitStatus, status_of_error, status_of_start
from twisted_sendmail.queue import open_store
from twisted_sendmail.queue.postgresql import schema
from twisted_sendmail.queue.postgresql import store as store_module
from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue
from twisted_sendmail.testing import Authority, BackgroundServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ACCESS = """\
host all secretive 127.0.0.1/32 scram-sha-256
hostssl all over_tls 127.0.0.1/32 trust
host all rejected 127.0.0.1/32 reject
host all postgres 127.0.0.1/32 trust
host all relay 127.0.0.1/32 trust
host all disabled 127.0.0.1/32 trust
host all full 127.0.0.1/32 trust
host all outsider 127.0.0.1/32 trust
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server with TLS, users of several kinds, and a database that admits one of them."""
    require("PostgreSQL", why_not())
    made = PostgreSQL("ssl = on")
    try:
        # The certificate does not name the address that the tests connect to.
        authority = Authority()
        (made.folder / "ca").write_bytes(authority.pem)
        pem = authority.issue(["db.example"])
        for name in ("server.crt", "server.key"):
            file = made.data / name
            file.write_bytes(pem)
            file.chmod(0o600)
            give_to_server(file)
        (made.data / "pg_hba.conf").write_text(_ACCESS)
        made.start()
        made.create_users()
        made.create_database("mail")
        for user in ("over_tls", "rejected", "unlisted", "full", "outsider"):
            made.sql(f"CREATE ROLE {user} LOGIN")
        made.sql("CREATE ROLE disabled")
        made.sql("ALTER ROLE full CONNECTION LIMIT 0")
        made.create_database("closed")
        made.sql("REVOKE CONNECT ON DATABASE closed FROM public")
        made.sql("REVOKE CREATE ON DATABASE closed FROM public")
        yield made
    finally:
        made.remove()


def refused(place: str) -> QueueUnusable:
    with pytest.raises(QueueUnusable) as caught:
        open_store(place).open(create=True)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("place", "why", "remedy"),
    [
        ("secretive:geheim mail", "password authentication failed", "correct the user"),
        ("secretive mail", "no password supplied", "correct the user"),
        ("nobody mail", "no pg_hba.conf entry", "let pg_hba.conf"),
        ("disabled mail", "not permitted to log in", "create the role"),
        ("relay nowhere", 'database "nowhere" does not exist', "create the database"),
        ("unlisted mail", "no pg_hba.conf entry", "let pg_hba.conf"),
        ("rejected mail", "pg_hba.conf rejects", "let pg_hba.conf"),
        ("over_tls mail sslmode=disable", "no encryption", "sslmode=require"),
        ("outsider closed", "permission denied for database", "GRANT CONNECT"),
        ("relay mail sslmode=verify-ca&sslrootcert=/nowhere", "root certificate", "sslrootcert"),
        ("relay mail sslmode=verify-full&sslrootcert={ca}", "certificate", "name in its"),
        ("relay mail sslmode=verify-ca&sslrootcert={other}", "verify failed", "sslrootcert"),
        ("relay mail sslmode=bogus", "invalid sslmode value", "parameters of the URL"),
        ("relay mail keepalives_idle=x", "invalid integer value", "parameters of the URL"),
        ("relay mail options=-c%20no_such=1", "no_such", "parameters of the URL"),
        ("relay mail require_auth=md5", "method requirement", "what the URL requires"),
    ],
)
def test_a_refusal_that_lasts_is_a_mistake_of_the_configuration(
    server: PostgreSQL, tmp_path: Path, place: str, why: str, remedy: str
) -> None:
    (tmp_path / "other").write_bytes(Authority().pem)
    user, database, *query = place.format(ca=server.folder / "ca", other=tmp_path / "other").split()
    error = refused(f"postgresql://{user}@127.0.0.1:{server.port}/{database}?{''.join(query)}")
    assert error.what.endswith("cannot be used")
    assert why in (error.detail or "")
    assert remedy in (error.remedy or "")
    assert "geheim" not in str(error)
    assert not error.temporary
    assert status_of_start(error) is ExitStatus.CONFIG
    assert status_of_error(error) is ExitStatus.CONFIG


def test_rights_that_are_missing_are_a_mistake_of_the_configuration(server: PostgreSQL) -> None:
    error = refused(server.url("postgres"))
    assert (error.temporary, error.detail) == (False, "permission denied for database postgres")
    assert error.remedy == "let its user create the schema twisted_sendmail and use it"
    with closing(Node(server.url("mail"))):
        error = refused(server.url("mail", user="outsider"))
    assert not error.temporary
    assert error.detail == "permission denied for schema twisted_sendmail"


@pytest.mark.parametrize("made", [False, True])
def test_an_old_server_is_refused_whether_it_holds_a_queue_or_not(
    server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    name = f"old{int(made)}"
    server.create_database(name)
    if made:
        Node(server.url(name)).close()
    monkeypatch.setattr(schema, "OLDEST_SERVER", 990000)
    error = refused(server.url(name))
    assert (error.temporary, error.detail) == (False, "the server is older than PostgreSQL 13")


def test_what_answers_and_is_no_database_is_a_mistake_of_the_configuration() -> None:
    with BackgroundServer(tls=False) as other:
        error = refused(f"postgresql://relay@{other.host}:{other.port}/mail?connect_timeout=3")
    assert not error.temporary
    assert "PostgreSQL server" in (error.remedy or "")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("full@127.0.0.1:{port}/mail", "too many connections"),
        ("relay@127.0.0.1:1/mail", "Connection refused"),
        ("relay@127.0.0.1:{port}/mail?target_session_attrs=standby", "not in hot standby mode"),
        ("relay@/mail?host=/nowhere", "No such file or directory"),
        ("relay@certificate.invalid/mail", "failed to resolve host"),
        # The primary is down, and the standby is set up wrongly.
        ("rejected@127.0.0.1:1,127.0.0.1:{port}/mail", "pg_hba.conf rejects"),
    ],
)
def test_what_may_pass_is_an_outage(server: PostgreSQL, place: str, why: str) -> None:
    error = refused("postgresql://" + place.format(port=server.port))
    assert error.what.startswith("the database of the queue cannot be reached")
    assert why in (error.detail or "")
    assert error.temporary
    assert status_of_start(error) is ExitStatus.TEMPFAIL


def test_a_refusal_of_every_host_is_a_mistake_and_so_is_that_of_one_address(
    server: PostgreSQL,
) -> None:
    hosts = f"127.0.0.1:{server.port},127.0.0.1:{server.port}"
    assert not refused(f"postgresql://rejected@{hosts}/mail").temporary
    # The server does not listen on ::1, which localhost may have as well.
    assert not refused(f"postgresql://relay@localhost:{server.port}/nowhere").temporary


def test_a_password_that_changes_under_a_relay_is_an_outage(
    server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once, in one line, shown in the health, and the relay goes on when it is right again."""
    monkeypatch.setattr(store_module, "FIRST_DELAY", 0.01)
    server.create_database("changing")
    place = server.url("changing").replace("relay@", f"secretive:{quote(PASSWORD)}@")
    clock = Clock()
    queue = PostgreSQLQueue(clock, place, worker=InlineWorker())
    results: list[Any] = []
    _ = queue.open().addBoth(results.append)
    assert results[0].messages == 0
    health = Health(clock, queue.probe, cast("Any", Running()))

    def problem() -> str | None:
        clock.advance(6)
        _ = health.problem().addBoth(results.append)
        problem: str | None = results[-1]
        return problem

    assert problem() is None
    server.sql("ALTER ROLE secretive PASSWORD 'another'")
    _end_connections(server, "changing")
    with _logged() as texts:
        problems = [problem() for _ in range(3)]
    assert all("password authentication failed" in (each or "") for each in problems)
    (line,) = texts
    assert line.endswith(
        "correct the user in the URL and the password in its passfile; trying again"
    )
    assert "\n" not in line
    server.sql(f"ALTER ROLE secretive PASSWORD '{PASSWORD}'")
    time.sleep(0.1)
    assert problem() is None
    _ = queue.close().addBoth(results.append)


class Running:
    """A relay that runs."""

    stopping = False


def test_a_server_that_takes_over_with_weaker_settings_gets_no_mail(
    own_postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_DELAY", 0.01)
    made = own_postgresql
    with closing(Node(made.url("mail"))) as relay:
        relay.put()
        made.stop()
        made.configure("fsync = off")
        made.start()
        with pytest.raises(QueueError, match="fsync = off") as caught:
            relay.put()
        assert caught.value.temporary
        made.configure("full_page_writes = off")
        made.reload()
        time.sleep(0.1)
        with _logged() as texts:
            relay.put()
            _end_connections(made, "mail")
            relay.put()
        # Once, and the missing standby was logged before.
        assert 1 == len([text for text in texts if "full_page_writes = off" in text])
        assert not any("no synchronous standby" in text for text in texts)
        assert len(relay.list()) == 3


def test_the_reason_to_end_a_connection_is_named_while_the_server_is_away(
    own_postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_DELAY", 0.01)
    made = own_postgresql
    with closing(Node(made.url("mail"))) as relay, _logged() as texts:
        made.stop()
        for _ in range(2):
            with pytest.raises(QueueError, match="administrator command") as caught:
                relay.put()
            assert caught.value.temporary
        (line,) = texts
        assert "Connection refused; the last connection ended: the database at 127.0.0.1: " in line
        made.start()
        time.sleep(0.1)
        relay.put()
        made.kill()
        with pytest.raises(QueueError) as caught:
            relay.put()
        # A reason that is over is not named again.
        assert "administrator command" not in str(caught.value)


def test_a_full_disk_of_the_write_ahead_log_is_named_after_it_ended_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(store_module, "RESOLVE_TIME", 0.5)
    require("PostgreSQL", why_not())
    made = PostgreSQL("max_wal_size = 32MB", "min_wal_size = 32MB")
    small = made.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=0755", "tmpfs", str(small)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    try:
        require("file system of its own", done.stderr if done.returncode else None)
        log = made.data / "pg_wal"
        subprocess.run(["cp", "-a", str(log), str(small)], check=True)
        shutil.rmtree(log)
        log.symlink_to(small / "pg_wal")
        made.start()
        made.create_users()
        made.create_database("mail")
        with closing(Node(made.url("mail"))) as relay:
            errors: list[QueueError] = []
            accepted = 0
            while len(errors) < 2:
                try:
                    relay.put(os.urandom(200_000))
                    accepted += 1
                except QueueError as e:
                    errors.append(e)
            assert all(error.temporary for error in errors)
            reason = "No space left on device; free space on the disk of the database"
            # A server that crashes may close the connection before its reason is read.
            if "closed the connection unexpectedly" not in str(errors[0]):
                assert [reason in str(error) for error in errors] == [True, True]
            subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
            # It has ended by itself, because it cannot recover either.
            made.kill()
            made.start()
            time.sleep(0.1)
            relay.put()
            assert accepted + 1 <= len(relay.list()) <= accepted + 2
    finally:
        made.kill()
        subprocess.run(["umount", "-l", str(small)], capture_output=True, check=False)
        made.remove()
