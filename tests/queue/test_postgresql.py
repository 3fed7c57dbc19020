"""Relays that share a queue in PostgreSQL: leases that end, commits whose answer is lost, settings."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tests.names import (
    AttemptRecord,
    InlineWorker,
    LeasedMessage,
    MessageDamaged,
    QueueAction,
    QueueError,
    QueueIds,
    QueueUnusable,
    RecipientState,
    Selection,
    SetAsideReason,
)
from tests.postgresql import PASSWORD, PostgreSQL
from tests.queue.messages import Observer, info_of, take_in
from tests.rows import recipient_row
from tests.waiting import PATIENCE, until, wait_until
from twisted_sendmail.queue import LeaseLost, Pieces, QueueMissing, open_store, shown_place
from twisted_sendmail.queue.postgresql import store as store_module
from twisted_sendmail.queue.postgresql.address import DatabaseAddress
from twisted_sendmail.queue.postgresql.connection import PostgreSQLConnection
from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue
from twisted_sendmail.queue.postgresql.store import PostgreSQLStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.names import MessageInfo
    from tests.postgresql import Pair, PgBouncer

ALL = Selection()


class Node:
    """A relay's store, with what a relay does to it."""

    def __init__(self, url: str, name: str = "a", *, clock: float = 0.0) -> None:
        separator = "&" if "?" in url else "?"
        self.store = PostgreSQLStore(
            f"{url}{separator}node={name}", seconds=lambda: time.time() + clock
        )
        self._clock = clock
        self._ids = QueueIds(time.time, node=lambda: self.store.node)
        self.store.open(create=True, relay=True)
        with self.store.transaction():
            self.found = self.store.begin_relay(0)

    def info(self, **given: Any) -> MessageInfo:
        return info_of(self, arrived=time.time() + self._clock, **given)  # type: ignore[arg-type]

    def new_id(self) -> str:
        return self._ids()

    def put(self, content: bytes = b"x", *, leased: bool = False, **given: Any) -> str:
        with self.store.transaction():
            return self.store.put(self.info(**given), content, leased=leased).id

    def lease(self, most: int = 10) -> list[LeasedMessage]:
        now = time.time() + self._clock
        with self.store.transaction():
            return self.store.lease("out", now, fresh=most, retries=most, horizon=now + 1e6)

    def settle(self, leased: LeasedMessage, state: RecipientState, due: float = 0.0) -> Any:
        record = AttemptRecord(
            leased.message.id,
            time.time() + self._clock,
            (recipient_row(0, state, due, "reply"),),
            lease=leased.lease,
        )
        with self.store.transaction():
            return self.store.settle(record)

    def renew(self) -> list[tuple[str, tuple[str, ...]]]:
        with self.store.transaction():
            term, until, ended = self.store.renew()
        term.extend(until)
        return ended

    def list(self) -> list[Any]:
        with self.store.transaction(write=False):
            return self.store.list(ALL)

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def url(postgresql: PostgreSQL, database: str) -> str:
    return postgresql.url(database)


@contextmanager
def _logged() -> Iterator[list[str]]:
    texts: list[str] = []

    def note(event: Any) -> None:
        texts.append(event.get("log_format", "").format(**event))

    globalLogPublisher.addObserver(note)  # type: ignore[arg-type]
    try:
        yield texts
    finally:
        globalLogPublisher.removeObserver(note)  # type: ignore[arg-type]


@contextmanager
def _meanwhile(work: Any) -> Iterator[None]:
    """Run *work* in another thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()


def put_if_possible(node: Node) -> str:
    """Put a message, and return its id, or nothing while the queue cannot be written."""
    try:
        return node.put()
    except QueueError:
        return ""


# -- leases -------------------------------------------------------------------------------------


def test_two_relays_never_have_the_same_message(url: str) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        ids = [a.put() for _ in range(6)]
        now = time.time()
        with a.store.transaction():
            first = a.store.lease("out", now, fresh=4, retries=0, horizon=now + 1e6)
            # The first transaction has not ended: its messages are passed over, and not waited for.
            second = b.lease()
        assert [each.message.id for each in first] == ids[:4]
        assert [each.message.id for each in second] == ids[4:]
        assert [message.owner for message in a.list()] == ["a"] * 4 + ["b"] * 2


def test_the_leases_of_a_relay_that_does_not_renew_are_taken_over(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        id_, deleted = a.put(), a.put()
        taken = a.lease()
        assert b.renew() == []
        with b.store.transaction():
            b.store.act(QueueAction.DELETE, Selection(ids=(deleted,)), 0.0)
        postgresql.sql(
            "UPDATE twisted_sendmail.node SET alive_until = now() - interval '1 second' "
            "WHERE name = 'a'",
            database=database,
        )
        assert b.renew() == [("a", (id_,))]
        assert b.list()[0].interrupted == 1
        (again,) = b.lease()
        assert again.lease.fence > taken[0].lease.fence
        # The relay that was away learns it from each record, and none changes anything.
        assert taken[0].lease.valid()
        for leased in taken:
            with pytest.raises(LeaseLost, match="taken over by another relay"):
                a.settle(leased, RecipientState.DELIVERED)
        assert not taken[0].lease.valid()
        with a.store.transaction():
            a.store.release(taken)
            a.store.hold_unrecorded(id_, taken[0].lease)
        assert [(m.owner, m.held) for m in b.list()] == [("b", False)]
        # It goes on as a new relay.
        other = a.put()
        assert [each.message.id for each in a.lease()] == [other]
        assert b.settle(again, RecipientState.DELIVERED) is None


def test_an_old_attempt_of_the_same_relay_records_nothing(url: str) -> None:
    with closing(Node(url)) as a:
        a.put()
        (old,) = a.lease()
        with a.store.transaction():
            a.store.release([old])
        (new,) = a.lease()
        with pytest.raises(LeaseLost):
            a.settle(old, RecipientState.DELIVERED)
        with a.store.transaction():
            a.store.release([old])
        assert [message.leased for message in a.list()] == [True]
        assert a.settle(new, RecipientState.DELIVERED) is None
        # A record that is repeated, because its commit was not confirmed, changes nothing.
        assert a.settle(new, RecipientState.DELIVERED) is None


def test_a_relay_whose_leases_ran_out_takes_no_messages(url: str) -> None:
    with closing(Node(url)) as a:
        a.put()
        assert a.store.may_lease
        a.store.term.end()
        assert not a.store.may_lease
        with pytest.raises(QueueError, match="could not be renewed") as caught:
            a.lease()
        assert caught.value.temporary
        a.renew()
        assert len(a.lease()) == 1


@ensureDeferred
async def test_a_claim_is_given_back_when_the_leases_ran_out(url: str) -> None:
    spool = PostgreSQLQueue(Clock(), url, worker=InlineWorker())
    await spool.open()
    spool._store.term.end()
    spool.observer = observer = Observer(claims=True)
    message = await take_in(spool, b"x")
    assert observer.events == [
        ("claim", message.id),
        ("unclaimed", message.id),
        ("arrived", message.id, False, None),
    ]
    assert not message.leased
    await spool.close()


@ensureDeferred
async def test_leases_are_renewed_by_the_reactor_and_others_end(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    clock = Clock()
    spool = PostgreSQLQueue(clock, f"{url}?lease_time=8", worker=InlineWorker())
    await spool.open()
    endings: list[Any] = []

    class Watching(Observer):
        def interrupted(self, node: str, ids: Any) -> None:
            endings.append((node, ids))

    with closing(Node(url, "gone")) as gone:
        id_ = gone.put(leased=True)
        spool.observer = Watching(claims=False)
        ends = "SELECT alive_until FROM twisted_sendmail.node ORDER BY number"
        before = postgresql.sql(ends, database=database)
        clock.advance(2.0)
        after = postgresql.sql(ends, database=database)
        assert after[0] > before[0]
        assert after[1:] == before[1:]
        assert endings == []
        postgresql.sql(
            "UPDATE twisted_sendmail.node SET alive_until = now() WHERE name = 'gone'",
            database=database,
        )
        clock.advance(2.0)
        assert endings == [("gone", (id_,))]
    await spool.close()
    assert postgresql.sql("SELECT FROM twisted_sendmail.node", database=database) == []


def test_a_clock_that_is_wrong_by_an_hour_is_seen_by_its_own_relay_only(url: str) -> None:
    hour = 3600.0
    with closing(Node(url)) as right, closing(Node(url, "b", clock=hour)) as wrong:
        now = time.time()
        id_ = wrong.put()
        (message,) = right.list()
        assert abs(message.info.arrived - now) < 10
        (leased,) = right.lease()
        assert right.settle(leased, RecipientState.PENDING, now + 60).due == now + 60
        (message,) = wrong.list()
        assert abs(message.due - (now + 60 + hour)) < 3
        assert abs(message.info.arrived - (now + hour)) < 10
        assert wrong.lease() == []
        with wrong.store.transaction():
            wrong.store.act(QueueAction.FLUSH, ALL, now + hour)
        assert [each.message.id for each in right.lease()] == [id_]


def test_relays_make_no_id_twice() -> None:
    generators = [QueueIds(lambda: 1e9, node=lambda n=n: n) for n in range(1, 4)]  # type: ignore[misc]
    ids = [generator() for _ in range(100) for generator in generators]
    assert len(set(ids)) == 300
    for place in range(3):
        assert ids[place::3] == sorted(ids[place::3])


def test_the_files_of_one_machine_are_not_those_of_another(url: str) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        a.put(file_key="1000:7:name")
        b.put(file_key="1000:7:name")
        with a.store.transaction():
            a.store.forget_files(["1000:7:name"])
            assert a.store.taken_files() == []
        with b.store.transaction():
            assert b.store.taken_files() == ["1000:7:name"]


def test_mail_ages_by_the_time_of_all_relays_together(url: str) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        a.put()
        for each in (a, b):
            with each.store.transaction():
                each.store.count_running(100.0)
        assert [message.age for message in a.list()] == [100.0]


def test_every_relay_learns_of_a_flush_and_of_routes_that_are_down(url: str) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        for each in (a, b):
            with each.store.transaction():
                assert each.store.take_flushed() == frozenset()
        with b.store.transaction(write=False):
            before = b.store.state()
        a.put()
        with open_store(url) as command, command.transaction():
            command.act(QueueAction.FLUSH, Selection(route="out"), 0.0)
            assert command.relay_runs()
        for each in (a, b):
            with each.store.transaction():
                assert each.store.take_flushed() == {"out"}
                assert each.store.take_flushed() == frozenset()
        with b.store.transaction(write=False):
            state = b.store.state()
        assert (state.version, state.others) != (before.version, before.others)
        assert [node.name for node in state.cluster.nodes] == ["a", "b"]


# -- the connection and the commit --------------------------------------------------------------


def _end_connections(server: PostgreSQL, database: str) -> None:
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
        "AND pid <> pg_backend_pid()",
        database,
    )


def test_a_lost_connection_is_replaced(postgresql: PostgreSQL, database: str, url: str) -> None:
    with closing(Node(url)) as a:
        first = a.put()
        info = a.info()
        transaction = a.store.transaction(doing="take the message in")

        def lose() -> None:
            with transaction:
                _end_connections(postgresql, database)
                a.store.put(info, b"lost")

        with pytest.raises(QueueError, match="the database at") as caught:
            lose()
        assert caught.value.temporary
        assert "the queue could not take the message in" in str(caught.value)
        second = a.put()
        assert [message.id for message in a.list()] == [first, second]


def test_a_commit_whose_answer_was_lost_is_looked_up(
    postgresql: PostgreSQL, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Node(url)) as a:
        commit = PostgreSQLConnection.commit
        losses = ["after"]

        def lose(connection: Any) -> bool:
            if not losses:
                return commit(connection)
            if losses.pop(0) == "after":
                commit(connection)
            _end_connections(postgresql, database)
            return commit(connection)

        monkeypatch.setattr(PostgreSQLConnection, "commit", lose)
        there = a.put()
        assert [message.id for message in a.list()] == [there]
        losses.append("before")
        with pytest.raises(QueueError, match="before the commit") as caught:
            a.put()
        assert caught.value.temporary
        assert [message.id for message in a.list()] == [there]


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_is_looked_up_also_after_another_relay_took_over(
    postgresql: PostgreSQL,
    database: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    with closing(Node(url)) as a, closing(Node(url, "b")) as b:
        there = a.put()
        assert b.renew() == []
        commit = PostgreSQLConnection.commit
        losses = [True]

        def lose(connection: Any) -> bool:
            if losses and losses.pop():
                if committed:
                    commit(connection)
                else:
                    connection.run("ROLLBACK")
                postgresql.sql(
                    "UPDATE twisted_sendmail.node SET alive_until = '-infinity' WHERE name = 'a'",
                    database=database,
                )
                assert b.renew() == [("a", ())]
                _end_connections(postgresql, database)
            return commit(connection)

        monkeypatch.setattr(PostgreSQLConnection, "commit", lose)
        if committed:
            last = [a.put()]
        else:
            last = []
            with pytest.raises(QueueError, match="before the commit"):
                a.put()
        assert [message.id for message in a.list()] == [there, *last]


def test_a_database_that_is_gone_is_reported_at_once_and_found_again(
    own_postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_DELAY", 0.02)
    server = own_postgresql
    with closing(Node(server.url("mail"))) as a:
        a.put()
        server.kill()
        with _logged() as texts:
            for _ in range(3):
                with pytest.raises(QueueError) as caught:
                    a.put()
                assert caught.value.temporary
            server.start()
            wait_until(lambda: put_if_possible(a))
        assert len(a.list()) == 2
        # Once each, however long it took.
        away, again = texts
        assert "cannot be reached" in away
        assert again.endswith(f"connected again, to 127.0.0.1:{server.port}")
    # Settings that lose mail are refused.
    server.configure("fsync = off")
    server.reload()
    with pytest.raises(QueueUnusable, match="fsync = off"):
        Node(server.url("mail"))


def test_a_commit_counts_when_it_is_replicated(
    postgresql_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = postgresql_pair
    with _logged() as texts, closing(Node(pair.url("mail"))) as a:
        assert texts == []
        pair.standby.suspend()

        # The first wait is cancelled; the second one ends when the standby is back.
        def cancel_and_resume() -> None:
            pair.primary.cancel_commit()
            time.sleep(0.2)
            pair.standby.resume()

        with _meanwhile(cancel_and_resume):
            there = a.put()
        assert [message.id for message in a.list()] == [there]
        # Each wait is cancelled: the message is in the database, but is not acknowledged.
        pair.standby.suspend()

        def cancel_all() -> None:
            for _ in range(4):
                pair.primary.cancel_commit()
                time.sleep(0.1)

        with (
            _meanwhile(cancel_all),
            pytest.raises(QueueError, match="was not replicated") as caught,
        ):
            a.put()
        assert caught.value.temporary
        # A session that waits for the standby is ended: its commit is looked up and waited for.
        monkeypatch.setattr(store_module, "RESOLVE_TIME", 30.0)

        def end_and_resume() -> None:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: pair.primary.sql(end))
            time.sleep(0.2)
            pair.standby.resume()

        with _meanwhile(end_and_resume):
            last = a.put()
        assert a.list()[-1].id == last
        # The standby takes over; everything that was acknowledged is there.
        pair.primary.kill()
        pair.promote()
        after = wait_until(lambda: put_if_possible(a))
        ids = [message.id for message in a.list()]
        assert {there, last, after} <= set(ids)


@ensureDeferred
async def test_it_works_behind_pgbouncer(pgbouncer: PgBouncer, database: str) -> None:
    from twisted.internet import reactor

    spool = PostgreSQLQueue(reactor, pgbouncer.url(database))
    await spool.open()
    sizes = (10, 300_000)
    for size in sizes:
        await take_in(spool, bytes(size))
    leased = await spool.lease("out", 1e12, fresh=10, retries=10, horizon=1e13)
    assert [each.message.size for each in leased] == list(sizes)
    assert b"".join([piece async for piece in spool.content(leased[1].message.id)]) == bytes(
        300_000
    )
    await spool.release(leased[:1])
    record = AttemptRecord(
        leased[1].message.id,
        time.time(),
        (recipient_row(0, RecipientState.DELIVERED),),
        lease=leased[1].lease,
    )
    assert await spool.settle(record) is None
    assert await spool.count(ALL) == 1
    await spool.close()


@ensureDeferred
async def test_an_operator_is_heard_at_once(url: str) -> None:
    from twisted.internet import reactor

    spool = PostgreSQLQueue(reactor, url)
    await spool.open()
    spool.observer = observer = Observer(claims=False)
    await until(reactor, lambda: spool._listener._connection is not None)
    with open_store(url) as store, store.transaction():
        store.act(QueueAction.HOLD, ALL, 0.0)
    await observer.notified(1)
    assert observer.events == [("queue_changed",)]
    await spool.close()


# -- settings, tables, damage -------------------------------------------------------------------


def test_a_server_without_a_standby_and_weaker_commits_are_named(url: str) -> None:
    with _logged() as texts:
        Node(url).close()
        Node(f"{url}?synchronous_commit=off", "b").close()
    assert len(texts) == 2
    assert "the promotion of a standby may lose mail" in texts[0]
    assert "synchronous_commit = off" in texts[1]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE about SET program = 'other'", "belongs to another program"),
        ("UPDATE about SET format = 999", "the format of its tables is 999"),
        ("ALTER TABLE message DROP COLUMN due", "its tables are damaged"),
        ("DROP INDEX ready", "its tables are damaged"),
        ("DROP TABLE about", "belongs to another program"),
    ],
)
def test_tables_that_are_not_ours_are_refused(
    postgresql: PostgreSQL, database: str, url: str, statement: str, text: str
) -> None:
    Node(url).close()
    postgresql.sql(f"SET search_path TO twisted_sendmail; {statement}", database=database)
    with pytest.raises(QueueUnusable, match=text) as caught:
        Node(url)
    assert "\n" not in str(caught.value)
    assert not caught.value.temporary


def test_a_queue_that_cannot_be_opened_is_one_line(postgresql: PostgreSQL, database: str) -> None:
    with pytest.raises(QueueMissing, match="queue migrate"), open_store(postgresql.url(database)):
        pass
    secret = "not the password"
    wrong = postgresql.url(database, user="secretive").replace(
        "@", f":{secret.replace(' ', '%20')}@"
    )
    for place, temporary in ((wrong, False), ("postgresql://nobody@127.0.0.1:1/mail", True)):
        with pytest.raises(QueueUnusable, match="cannot be") as caught, open_store(place):
            pass
        assert caught.value.temporary is temporary
        assert "\n" not in str(caught.value)
        assert secret not in str(caught.value)
    right = wrong.replace(secret.replace(" ", "%20"), PASSWORD.replace(" ", "%20"))
    Node(right).close()
    assert PASSWORD not in shown_place(right)
    assert PASSWORD not in repr(DatabaseAddress.parse(right))


@pytest.mark.parametrize(
    "query",
    [
        "lease_time=0",
        "lease_time=soon",
        "schema=Mail",
        "schema=a;b",
        "synchronous_commit=maybe",
        "node=",
        "unknown=1",
        "no_value",
        "schema=a&schema=b",
        "password=geheim&unknown=geheim",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(query: str) -> None:
    with pytest.raises(QueueUnusable, match="URL of the queue cannot be used") as caught:
        open_store(f"postgresql://relay@host/mail?{query}")
    assert "geheim" not in str(caught.value)


def test_an_unknown_parameter_is_named_unless_it_may_be_of_a_password() -> None:
    with pytest.raises(QueueUnusable, match="there is no parameter ssl_mode;"):
        open_store("postgresql://relay@host/mail?ssl_mode=require")
    with pytest.raises(QueueUnusable) as caught:
        open_store("postgresql://relay:ge?heim=1@host/mail")
    assert "heim" not in str(caught.value)


def test_a_missing_driver_is_one_line_with_one_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "twisted_sendmail.queue.postgresql.driver")
    with pytest.raises(QueueUnusable) as caught:
        open_store("postgresql://relay@host/mail")
    assert str(caught.value).startswith("the queue in PostgreSQL cannot be used: import of psycopg")
    assert str(caught.value).count("pip install") == 1


def test_the_error_of_each_host_is_named_once() -> None:
    places = "postgresql://nobody@127.0.0.1:1,127.0.0.1:2/mail"
    with pytest.raises(QueueUnusable) as caught, open_store(places):
        pass
    why = "127.0.0.1:1: Connection refused, 127.0.0.1:2: Connection refused"
    assert caught.value.detail == why


def test_a_url_is_completed_and_shown_without_secrets() -> None:
    address = DatabaseAddress.parse(
        "postgresql://me:geheim@a:1,b/mail?schema=q&lease_time=5&node=n&sslmode=require"
    )
    assert address.shown == (
        "postgresql://me@a:1,b/mail?sslmode=require&schema=q&lease_time=5&node=n"
    )
    assert address.parameters["target_session_attrs"] == "read-write"
    assert address.parameters["password"] == "geheim"
    assert (address.schema, address.lease_time, address.node) == ("q", 5.0, "n")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE message SET sender = 'eve@example.org'",
        "UPDATE message SET size = size + 1",
        "UPDATE recipient SET address = 'eve@example.org'",
        "DELETE FROM recipient",
        "UPDATE recipient SET state = 'perhaps'",
        "UPDATE content SET data = 'other'",
        "DELETE FROM content",
    ],
)
def test_a_damaged_message_is_set_aside_and_others_go_on(
    postgresql: PostgreSQL, database: str, url: str, statement: str
) -> None:
    with closing(Node(url)) as a:
        bad = a.put()
        postgresql.sql(f"SET search_path TO twisted_sendmail; {statement}", database=database)
        good = a.put()
        assert [each.message.id for each in a.lease()] == [good]
        found = {message.id: message.aside for message in a.list()}
        assert found == {bad: SetAsideReason.DAMAGED, good: None}


def test_a_damaged_piece_is_found(postgresql: PostgreSQL, database: str, url: str) -> None:
    with closing(Node(url)) as a:
        with a.store.transaction():
            for place in range(2):
                a.store.put_piece(7, place, b"data")
            id_ = a.store.put(a.info(), Pieces(7, 2, 8)).id
        postgresql.sql(
            "UPDATE twisted_sendmail.piece SET data = 'Data' WHERE place = 1", database=database
        )
        with pytest.raises(MessageDamaged), a.store.transaction(write=False):
            list(a.store.content(id_))


def test_the_lease_query_reads_what_it_leases(
    postgresql: PostgreSQL, database: str, url: str
) -> None:
    """With 10,000 messages that wait it reads as many pages as with 100."""
    with closing(Node(url)) as a:
        reads = []
        for count in (100, 9_900):
            with a.store.transaction():
                a.store.put_all([(a.info(), b"x", False) for _ in range(count)])
            postgresql.sql("VACUUM ANALYZE twisted_sendmail.message", database=database)
            with a.store.transaction():
                given = {
                    "route": "out",
                    "now": time.time(),
                    "horizon": time.time() + 1e6,
                    "owner": a.store.node,
                    "fresh": 8,
                    "retries": 8,
                }
                lines = a.store.connection.rows(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {store_module._LEASE}",
                    given,
                )
                plan = lines[0][0][0]["Plan"]
                reads.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
                a.store.rollback()
                a.store.begin()
        assert reads[1] < 2 * reads[0]
