"""Faults between a relay and its database: settings of others, rights, and what a URL may hold."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from tests.names import MessageDamaged, QueueError, QueueUnusable, RecipientState, Selection
from tests.postgresql import PostgreSQL
from tests.queue.test_postgresql import Node, _end_connections, _logged, _meanwhile, url
from tests.waiting import until
from twisted_sendmail.queue import (
    LeaseLost,
    Pieces,
    models,
    open_store,
    prepare_queue_place,
    shown_place,
)
from twisted_sendmail.queue.postgresql import connection as connection_module
from twisted_sendmail.queue.postgresql import process as process_module
from twisted_sendmail.queue.postgresql.address import DatabaseAddress
from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue

if TYPE_CHECKING:
    from tests.postgresql import Pair

__all__ = ["url"]


def test_a_commit_that_was_not_replicated_is_noticed_whatever_messages_are_wanted(
    postgresql_pair: Pair,
) -> None:
    """The server sends no warning where `client_min_messages` is `error`; each transaction sets it."""
    pair = postgresql_pair
    place = pair.url("mail", options="-c client_min_messages=error -c synchronous_commit=off")
    pair.primary.sql("ALTER ROLE relay SET client_min_messages TO error")
    with closing(Node(place)) as a:
        pair.standby.suspend()

        def cancel() -> None:
            for _ in range(4):
                pair.primary.cancel_commit()

        with _meanwhile(cancel), pytest.raises(QueueError, match="was not replicated") as caught:
            a.put()
        assert caught.value.temporary
        pair.standby.resume()


def test_a_stricter_default_of_the_database_changes_nothing(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    postgresql.sql(f"ALTER DATABASE {database} SET default_transaction_isolation TO 'serializable'")
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        id_ = a.put()
        # Begins before the other relay's change, and changes the same row after it.
        with a.store.transaction():
            a.store.count()
            b.put()
            with b.store.transaction():
                b.store.hold_unrecorded(id_, None)
            a.store.count_running(1.0)
            assert a.store.count() == 2


def test_a_transaction_that_failed_is_not_taken_for_committed(url: str) -> None:
    with closing(Node(url)) as a:

        def put() -> None:
            with a.store.transaction(doing="take the message in"):
                a.store.put(a.info(), b"x")
                with suppress(*a.store.errors):
                    a.store.connection.execute("SELECT 1 / 0")

        with pytest.raises(QueueError, match="rolled back") as caught:
            put()
        assert caught.value.temporary
        assert a.list() == []


def test_a_right_that_was_withdrawn_is_no_fault_of_the_message(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    """A client must not get a permanent refusal, nor may a record be given up."""
    with closing(Node(url)) as a:
        for statement in (
            "ALTER TABLE content RENAME TO other",
            "ALTER TABLE other RENAME TO content; ALTER TABLE content OWNER TO postgres",
        ):
            postgresql.sql(f"SET search_path TO twisted_sendmail; {statement}", database=database)
            with pytest.raises(QueueError) as caught:
                a.put()
            assert caught.value.temporary
            assert "\n" not in str(caught.value)


def test_an_encoding_in_the_url_is_passed_over(url: str) -> None:
    with closing(Node(f"{url}?client_encoding=latin1")) as a:
        id_ = a.put(origin="Grüße, Ελλάδα")
        assert [(m.id, m.info.origin) for m in a.list()] == [(id_, "Grüße, Ελλάδα")]


def test_controls_in_a_url_are_escaped() -> None:
    place = "postgresql://me@127.0.0.1:1/mail%0a%1b[2J?application_name=a%0db"
    assert shown_place(place).isprintable()
    with pytest.raises(QueueUnusable) as caught, open_store(place):
        pass
    assert str(caught.value).isprintable()


# -- leases -------------------------------------------------------------------------------------


def _ended(server: PostgreSQL, database: str, name: str) -> None:
    """Let the leases of the relay *name* end as if it had not renewed them."""
    server.sql(
        "UPDATE twisted_sendmail.node SET alive_until = now() - interval '1 second' WHERE name = %s",
        name,
        database=database,
    )


@pytest.mark.parametrize("jump", [100.0, -100.0])
def test_the_first_relay_after_an_outage_leaves_the_others_time_to_renew(
    postgresql: PostgreSQL,
    database: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
) -> None:
    """No relay could renew, or the database's clock was set: what one delivered is not sent again."""
    passed = [0.0]
    clock = models._boot_time
    monkeypatch.setattr(models, "_boot_time", lambda: clock() + passed[0])
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        id_ = a.put()
        (leased,) = a.lease()
        assert (a.renew(), b.renew()) == ([], [])
        passed[0] += jump
        _ended(postgresql, database, "a")
        _ended(postgresql, database, "b")
        assert b.renew() == []
        assert a.settle(leased, RecipientState.PENDING) is not None
        assert a.renew() == []
        a.lease()
        # A relay that does not come back either is found out, a lease time later.
        for _ in range(3):
            _ended(postgresql, database, "a")
            passed[0] += 25
            postgresql.sql(
                "UPDATE twisted_sendmail.node SET alive_until = alive_until + interval '25 seconds' "
                "WHERE name = 'b'",
                database=database,
            )
            # Its clock goes on as well.
            assert b.store._renewed is not None
            b.store._renewed = (b.store._renewed[0], b.store._renewed[1] - 25)
            ended = b.renew()
        assert ended == [("a", (id_,))]


def test_a_relay_that_starts_after_an_outage_leaves_the_others_time_to_renew(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    with closing(Node(url)) as a:
        id_ = a.put()
        (leased,) = a.lease()
        _ended(postgresql, database, "a")
        with closing(Node(url, "b")) as b:
            assert b.found.interrupted == ()
            assert a.settle(leased, RecipientState.PENDING) is not None
            a.lease()
            assert b.renew() == [("a", (id_,))]


def test_a_relay_whose_process_is_not_shown_has_not_ended(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting `ProtectProc=invisible` of systemd hides the processes of other users in /proc."""
    with closing(Node(url)) as a:
        a.put(leased=True)
        monkeypatch.setattr(process_module, "_start_of", lambda _: "")
        with closing(Node(url, "b")) as b:
            assert b.found.interrupted == ()
            assert b.renew() == []
            assert [message.owner for message in b.list()] == ["a"]


def test_a_relay_whose_clock_of_leases_was_ahead_is_not_alive_for_ever(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        id_ = a.put(leased=True)
        postgresql.sql(
            "UPDATE twisted_sendmail.node SET alive_until = '2040-01-01' WHERE name = 'a'",
            database=database,
        )
        assert b.renew() == [("a", (id_,))]


def test_a_record_counts_for_the_owner_alone(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    """A standby that was promoted without a lease gives its number to another relay once more."""
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        a.put()
        (leased,) = a.lease()
        postgresql.sql(
            "UPDATE twisted_sendmail.message SET owner = %s", b.store.node, database=database
        )
        with pytest.raises(LeaseLost):
            a.settle(leased, RecipientState.DELIVERED)
        assert [message.owner for message in a.list()] == ["b"]


def test_a_message_that_another_relay_delivered_is_not_damaged(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    damaged: list[str] = []
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        a.store._damaged = damaged.append
        with a.store.transaction():
            for place in range(2):
                a.store.put_piece(7, place, b"data")
            a.store.put(a.info(), Pieces(7, 2, 8), leased=True)
        id_ = a.list()[0].id
        with a.store.transaction(write=False):
            at = a.store.where(id_)
        _ended(postgresql, database, "a")
        b.renew()
        (again,) = b.lease()
        assert b.settle(again, RecipientState.DELIVERED) is None
        with b.store.transaction():
            assert b.store.sweep(7)
        with (
            pytest.raises(QueueError, match="is not in the queue") as caught,
            a.store.transaction(write=False),
        ):
            a.store.piece(at, 1)
        assert not isinstance(caught.value, MessageDamaged)
        with a.store.transaction():
            a.store.set_aside(id_)
        assert damaged == []


def test_two_relays_of_one_name_are_named(url: str) -> None:
    with closing(Node(url)), _logged() as texts, closing(Node(url)):
        pass
    assert any("another relay with the name a" in text for text in texts)


# -- connections, tables, selections ------------------------------------------------------------


def test_a_connection_that_was_lost_while_idle_costs_no_message(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    with closing(Node(url)) as a:
        for _ in range(2):
            _end_connections(postgresql, database)
            id_ = a.put()
            _end_connections(postgresql, database)
            assert a.list()[-1].id == id_


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb", "\ud800@example.org", "@\0"])
def test_a_selection_that_no_text_can_match_is_empty(url: str, text: str) -> None:
    with closing(Node(url)) as a, a.store.transaction(write=False):
        for name in ("sender", "recipient", "route", "queue"):
            given: Any = {name: text}
            assert a.store.list(Selection(**given)) == []


def test_an_index_of_an_administrator_is_no_damage(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    """Nor is one that REINDEX CONCURRENTLY builds, or has left."""
    Node(url).close()
    for statement in (
        "CREATE INDEX ready_ccnew ON twisted_sendmail.message (route)",
        "CREATE TABLE twisted_sendmail.notes (text text)",
    ):
        postgresql.sql(statement, database=database)
    Node(url).close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_no_tables_are_made_in_a_database_of_another_encoding(
    postgresql: PostgreSQL, database: str, encoding: str
) -> None:
    name = f"{database}_{encoding.lower()}"
    postgresql.sql(
        f"CREATE DATABASE {name} OWNER relay ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(QueueUnusable, match=f"encoding of the database is {encoding}"):
            prepare_queue_place(postgresql.url(name))
        assert (
            postgresql.sql(
                "SELECT FROM pg_namespace WHERE nspname = 'twisted_sendmail'", database=name
            )
            == []
        )
    finally:
        postgresql.drop_database(name)


def test_a_timeout_that_an_administrator_set_is_no_lack_of_rights(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    postgresql.sql(f"ALTER DATABASE {database} SET statement_timeout = 1")

    def open_often() -> None:
        for _ in range(100):
            Node(url).close()

    with pytest.raises(QueueError, match="statement timeout") as caught:
        open_often()
    assert caught.value.temporary
    assert "create the schema" not in str(caught.value)


def test_a_url_as_the_name_of_a_database_is_refused_unseen() -> None:
    place = "postgresql://host/?dbname=postgresql://me:geheim@host/mail"
    assert "geheim" not in shown_place(place)
    with pytest.raises(QueueUnusable, match="name of the database") as caught:
        open_store(place)
    assert "geheim" not in str(caught.value)


@ensureDeferred
async def test_a_relay_stops_in_one_line_while_the_database_does_not_answer(
    own_postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread waits for LISTEN without end: the reactor joins its threads when it stops."""
    from twisted.internet import reactor, threads

    monkeypatch.setattr(connection_module._Connection, "patience", 0.3)
    monkeypatch.setattr(connection_module, "ANSWER_TIMEOUT", 0.3)
    server = own_postgresql
    url = server.url("mail", connect_timeout="2")
    connection, _ = connection_module.connect(DatabaseAddress.parse(url), b"SELECT 1")
    with closing(connection), _logged() as texts:
        spool = PostgreSQLQueue(reactor, url)
        await spool.open()
        await until(reactor, lambda: spool._listener._connection is not None)
        server.suspend()
        listening = threads.deferToThread(connection.execute, b"LISTEN x")
        with pytest.raises(TimeoutError):
            await listening
        await spool.close()
        server.resume()
    # The statement gets no answer, or the connection that replaces the lost one is not made.
    failed = [t for t in texts if "an operation of the queue failed: the " in t]
    assert failed
    assert not any("\n" in t for t in texts)
