"""Faults between a relay and its database: settings of others, rights, and what a URL may hold."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.names import QueueError, QueueUnusable
from tests.queue.test_postgresql import Node, _meanwhile, url
from twisted_sendmail.queue import open_store, shown_place

if TYPE_CHECKING:
    from tests.postgresql import Pair, PostgreSQL

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
