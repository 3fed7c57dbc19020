"""The log lines of a message, and the events for observers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.names import (
    Attempted,
    AuthenticationAlarm,
    Delays,
    Interrupted,
    RecipientState,
    RelaysChanged,
    RouteDown,
    RouteUp,
    TakenOver,
    Trouble,
    close,
    log_event,
)
from tests.relay.world import SENDER, World
from twisted_sendmail import Recipient


@pytest.fixture
def log() -> Iterator[list[Any]]:
    events: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if event.get("log_namespace") == "twisted_sendmail.relay":
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def lines(log: list[Any]) -> list[str]:
    return [formatEvent(event) for event in log]


def attempted(**changes: Any) -> Attempted:
    given: dict[str, Any] = {
        "id": "0123456789AB",
        "route": "out",
        "sender": SENDER,
        "recipient": "bob@example.net",
        "original": None,
        "state": RecipientState.DELIVERED,
        "status": "sent",
        "dsn": "2.0.0",
        "relay": "mx.example[192.0.2.1]:25",
        "reply": "250 2.0.0 Ok",
        "delays": Delays(0.5, 0.001, 0.25, 12.3),
    }
    return Attempted(**{**given, **changes})


def test_a_message_has_a_line_for_its_coming_each_try_and_its_end(
    world: World, log: list[Any]
) -> None:
    host = world.host()
    host.refusals = {"full@x.example": ["452 4.2.2 full"]}
    relay = world.relay(host)
    queued = world.send(relay, Recipient("full@x.example", (), "rfc822;first@y.example"))
    world.run(queued.delivered())
    size = len(host.messages[0].content)
    to = (
        f"{queued.id}: to=<full@x.example>, orig_to=<first@y.example>, "
        "relay=localhost[192.0.2.1]:587"
    )
    accepted = host.messages[0].id
    assert lines(log) == [
        f"{queued.id}: from=<{SENDER}>, size={size}, nrcpt=1 (queued) this process",
        f"{to}, delay=0, delays=0/0/0/0, dsn=4.2.2, status=deferred (452 4.2.2 full)",
        f"{to}, delay=300, delays=300/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {accepted})",
        f"{queued.id}: removed",
    ]


def test_all_that_is_shown_is_a_field_as_well(log: list[Any]) -> None:
    log_event(attempted())
    (event,) = log
    expected = {
        "id": "0123456789AB",
        "recipient": "bob@example.net",
        "sender": SENDER,
        "relay": "mx.example[192.0.2.1]:25",
        "dsn": "2.0.0",
        "status": "sent",
        "reply": "250 2.0.0 Ok",
        "delays": (0.5, 0.001, 0.25, 12.3),
        "delay": 0.5 + 0.001 + 0.25 + 12.3,
        "route": "out",
    }
    assert {key: event[key] for key in expected} == expected


def test_what_may_go_twice_says_so(log: list[Any]) -> None:
    log_event(attempted(in_doubt=True, status="deferred"))
    log_event(attempted(doubles=2))
    one, two = lines(log)
    assert one.endswith("[may have been delivered; will be sent again]")
    assert two.endswith("[possibly duplicated: 2 earlier attempts were interrupted]")


def test_a_signature_that_had_to_be_broken_is_named(log: list[Any]) -> None:
    log_event(attempted(signature_broken=True))
    (line,) = lines(log)
    note = "[signature broken: encoded for a server without 8BITMIME or SMTPUTF8]"
    assert line.endswith(f"status=sent (250 2.0.0 Ok) {note}")


def test_many_interrupted_ones_are_named_in_lines_of_bounded_length(log: list[Any]) -> None:
    ids = tuple(f"{number:012}" for number in range(1000))
    log_event(Interrupted(ids))
    assert list(ids) == [word for line in lines(log) for word in line.split() if word.isdigit()]
    assert max(map(len, lines(log))) < 1000


def test_what_other_relays_of_the_queue_do_is_named(log: list[Any]) -> None:
    log_event(Interrupted(("0123456789AB",), "west"))
    log_event(TakenOver("0123456789AC", "out", in_doubt=True))
    log_event(TakenOver("0123456789AD", "out", in_doubt=False))
    log_event(RouteDown("out", "no connection", 4.0, elsewhere=True))
    log_event(RouteUp("out", elsewhere=True))
    log_event(RelaysChanged(("east", "west")))
    taken = "taken over by another relay during the attempt, whose result is not recorded"
    assert lines(log) == [
        "possibly duplicated, their last attempt was interrupted; taken over from relay west: 0123456789AB",
        f"0123456789AC: possibly duplicated: {taken}",
        f"0123456789AD: {taken}",
        "route out is down (found by another relay), next attempt in 4 s: no connection",
        "route out is up (found by another relay)",
        "relays that share the queue: east, west",
    ]


def test_what_somebody_has_to_look_at_is_an_error(log: list[Any]) -> None:
    log_event(AuthenticationAlarm("out", "smtps://mx.example:465", "535 5.7.8 no"))
    log_event(Trouble("the queue", "it is full"))
    log_event(RouteDown("out", "535 5.7.8 no", 900.0, refused=True, elsewhere=True))
    assert [LogLevel.error] * 3 == [event["log_level"] for event in log]


def test_braces_in_what_a_server_says_are_only_braces(world: World, log: list[Any]) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "452 4.2.2 {id} {0} {recipient!r:>9999}"}
    world.send(world.relay(host), "full@x.example")
    assert "(452 4.2.2 {id} {0} {recipient!r:>9999})" in lines(log)[1]


def test_doubt_and_its_second_copy_are_in_the_log(world: World, log: list[Any]) -> None:
    host = world.host(faults=[close("dot", nth=1)])
    world.run(world.send(world.relay(host), "bob@example.net").delivered())
    assert sum("may have been delivered; will" in line for line in lines(log)) == 1
    assert sum("possibly duplicated" in line for line in lines(log)) == 1


def test_the_facts_of_tls_are_fields_of_the_lines(log: list[Any], world: World) -> None:
    relay = world.relay(world.host(clear=False))
    queued = world.send(relay, "bob@example.net")
    world.run(queued.delivered())
    events = [each for each in log if "tls" in each]
    assert len(events) == 2
    for event in events:
        assert (event["tls"], event["tls_verified_by"]) == ("TLSv1.3", "name")
        assert event["tls_cipher"].startswith("TLS_")
        assert event["tls_group"]
        assert event["tls_chain"] == ("CN=twisted_sendmail throw-away CA",)
        assert event["tls_channel_binding"] == "tls-exporter"


def test_tls_with_a_server_is_one_line_until_it_changes(world: World, log: list[Any]) -> None:
    host = world.host(clear=False)
    relay = world.relay(host)
    world.send(relay, "bob@x.example")
    world.send(relay, "bob@x.example")
    world.advance(3600)  # the connection is closed; the next one resumes the session
    world.send(relay, "bob@x.example")
    assert len(host.sessions) == 2
    (event,) = [each for each in log if "TLS connection" in formatEvent(each)]
    assert formatEvent(event) == (
        "TLS connection established to localhost[192.0.2.1]:587: TLSv1.3 with cipher "
        f"TLS_AES_256_GCM_SHA384 (256 bits), key exchange {event['tls_group']}, verified by name "
        f"localhost, chain {event['tls_chain'][0]}, channel binding tls-exporter"
    )
    other = world.host(clear=False, authority=host.authority)
    world.advance(3600)
    host.connect = other.connect  # type: ignore[method-assign]
    world.send(relay, "bob@x.example")
    assert len(other.messages) == 1
    assert len([each for each in log if "TLS connection" in formatEvent(each)]) == 2
