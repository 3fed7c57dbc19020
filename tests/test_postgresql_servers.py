"""The servers of tests/postgresql.py do in failures what the tests of the queue rely on."""

from __future__ import annotations

from threading import Thread

import psycopg

from tests.postgresql import Pair, PgBouncer, PostgreSQL
from tests.waiting import PATIENCE


def test_each_test_has_an_empty_database(postgresql: PostgreSQL, database: str) -> None:
    assert (
        postgresql.sql("SELECT 1 FROM pg_class WHERE relname = 'message'", database=database) == []
    )
    with psycopg.connect(postgresql.url(database)) as connection:
        connection.execute("CREATE TABLE message ()")


def test_a_committed_row_survives_the_end_of_the_primary(postgresql_pair: Pair) -> None:
    pair = postgresql_pair
    with psycopg.connect(pair.url("mail", target_session_attrs="read-write")) as connection:
        connection.execute("CREATE TABLE row AS SELECT 7 AS number")
    pair.primary.kill()
    pair.promote()
    with psycopg.connect(pair.url("mail", target_session_attrs="read-write")) as connection:
        assert connection.execute("SELECT number FROM row").fetchall() == [(7,)]
    # It also starts again on its old port and files.
    pair.primary.start()


def test_a_primary_without_its_standby_confirms_nothing(postgresql_pair: Pair) -> None:
    pair = postgresql_pair
    pair.standby.kill()
    warnings: list[str] = []
    with pair.primary.connect("mail") as waiting:
        waiting.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
        committing = Thread(target=waiting.execute, args=("CREATE TABLE row ()",), daemon=True)
        committing.start()
        pair.primary.cancel_commit()
        committing.join(PATIENCE)
    assert warnings == ["canceling wait for synchronous replication due to user request"]


def test_connections_through_pgbouncer_share_those_of_the_server(
    pgbouncer: PgBouncer, database: str
) -> None:
    urls = [pgbouncer.url(database)] * 6
    connections = [psycopg.connect(url, prepare_threshold=None, autocommit=True) for url in urls]
    pids = {c.execute("SELECT pg_backend_pid()").fetchall()[0][0] for c in connections}
    assert len(pids) < 6
    for connection in connections:
        connection.close()
