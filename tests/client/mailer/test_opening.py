"""Connections that cannot be opened: waiting messages fail, and the server is not flooded."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import astuple
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import PIPELINING
from tests.client.scripted_server import CLOSE, PASSWORD, SILENT, USER, ScriptedServer
from twisted_sendmail import (
    AuthenticationError,
    AuthenticationFailed,
    CertificateRejected,
    ConnectFailed,
    ConnectionFailed,
    Credentials,
    RecipientStatus,
    SendmailError,
    SendTimeout,
    StartTLSUnavailable,
    TemporaryAuthenticationFailure,
    TemporaryFailure,
    Timeouts,
    TLSPolicy,
    TLSTrust,
)


def refused(why: str) -> OSError:
    return ConnectionRefusedError(why)


SECURE: dict[str, Any] = {"tls": TLSPolicy.STARTTLS, "credentials": Credentials(USER, PASSWORD)}
OFFERS: dict[str, Any] = {
    "offers": ("STARTTLS",),
    "secure": (*PIPELINING, "AUTH PLAIN"),
}


def later(post: Post, failure: Exception) -> Deferred[Any]:
    """What connecting gives when it fails in a while."""
    failed: Deferred[Any] = Deferred()
    post.clock.callLater(0.1, failed.errback, failure)
    return failed


def errors(results: Any) -> list[Any]:
    assert {result.fired for result in results} == {1}
    return [result.error for result in results]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (DNSLookupError("no such host"), ConnectFailed),
        (refused("nobody listens"), ConnectFailed),
    ],
)
def test_a_failure_to_connect_is_shared_by_all_waiters(
    post: Post, failure: Exception, kind: type[SendmailError]
) -> None:
    mailer = post.mailer(later(post, failure))
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    post.pump.advance(1)
    assert [kind] * 100 == [type(error) for error in errors(results)]
    assert post.endpoint.attempts == 1
    assert len({id(result.error) for result in results}) == 100


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"GREETING": "554 5.3.2 not today"}, SendmailError),
        ({"GREETING": CLOSE}, ConnectionFailed),
        ({"GREETING": "421 4.3.2 full"}, ConnectionFailed),
        ({"EHLO/TLS": "451 4.3.0 trouble"}, TemporaryFailure),
        ({"STARTTLS": "454 4.7.0 no TLS now"}, StartTLSUnavailable),
        ({"STARTTLS": CLOSE}, ConnectionFailed),
        ({"EHLO/TLS": CLOSE}, ConnectionFailed),
        ({"AUTH": "454 4.7.0 later"}, TemporaryAuthenticationFailure),
        ({"AUTH": CLOSE}, ConnectionFailed),
    ],
)
def test_a_failure_to_get_ready_is_shared_by_all_waiters(
    post: Post, answers: Any, kind: type[SendmailError]
) -> None:
    mailer = post.mailer(post.world.server(answers, **OFFERS), settings=SECURE)
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    post.pump.advance(5)
    assert all(isinstance(error, kind) for error in errors(results)), results[0].error
    assert post.endpoint.attempts == 1
    assert astuple(mailer.stats()) == (0, 0, 0, 0, 0, 100)


def test_a_certificate_that_is_rejected_is_everybodys(post: Post) -> None:
    mailer = post.mailer(
        post.world.server(**OFFERS), settings={**SECURE, "trust": TLSTrust(fingerprint="00" * 32)}
    )
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    assert all(isinstance(error, CertificateRejected) for error in errors(results))
    assert post.endpoint.attempts == 1


def test_an_opening_that_takes_too_long_is_everybodys(post: Post) -> None:
    mailer = post.mailer(
        post.world.server({"GREETING": SILENT}), settings={"timeouts": Timeouts(greeting=5)}
    )
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    post.pump.advance(6)
    assert all(isinstance(error, SendTimeout) for error in errors(results))
    assert post.endpoint.attempts == 1


def wrong() -> dict[str, Any]:
    return {**SECURE, "credentials": Credentials(USER, "wrong")}


def test_a_hundred_messages_with_a_wrong_password_are_one_login(post: Post) -> None:
    mailer = post.mailer(post.world.server(**OFFERS), settings=wrong())
    results = post.send(mailer, *[a_message(n) for n in range(100)])
    assert all(isinstance(error, AuthenticationFailed) for error in errors(results))
    assert 1 == post.endpoint.attempts == post.world.counts["AUTH"]


def test_so_it_is_for_send_many(post: Post) -> None:
    mailer = post.mailer(post.world.server(**OFFERS), settings=wrong())
    reports = post.many(mailer, [a_message(n) for n in range(300)]).get()
    assert all(isinstance(report.error, AuthenticationFailed) for report in reports)
    assert [statuses(report) for report in reports] == [[RecipientStatus.UNTOUCHED]] * 300
    assert 1 == post.endpoint.attempts == post.world.counts["AUTH"]


def test_credentials_that_were_refused_are_not_used_again_until_unlock(post: Post) -> None:
    first = post.world.server({"AUTH": "535 5.7.8 no"}, **OFFERS)
    mailer = post.mailer(first, post.world.server(**OFFERS), settings=SECURE)
    _ = errors(post.send(mailer, a_message(1)))
    for n in range(3):
        post.pump.advance(1000)
        (error,) = errors(post.send(mailer, a_message(n)))
        assert isinstance(error, AuthenticationFailed)
    assert post.endpoint.attempts == 1
    mailer.unlock()
    (result,) = post.send(mailer, a_message("right"))
    assert result.get().accepted
    assert post.endpoint.attempts == 2


def test_a_temporary_failure_of_auth_does_not_lock(post: Post) -> None:
    first = post.world.server({"AUTH": "454 4.7.0 later"}, **OFFERS)
    mailer = post.mailer(first, post.world.server(**OFFERS), settings=SECURE)
    assert [None] != errors(post.send(mailer, a_message(1)))
    assert post.send(mailer, a_message(2))[0].get().accepted


def test_the_next_send_tries_anew_after_a_failure_to_connect(post: Post) -> None:
    mailer = post.mailer(refused("nobody listens"), post.world.server())
    (error,) = errors(post.send(mailer, a_message(1)))
    assert isinstance(error, ConnectFailed)
    assert error.transient
    assert post.send(mailer, a_message(2))[0].get().accepted


def test_connections_that_are_open_go_on_when_no_more_can_be_opened(post: Post) -> None:
    mailer = post.mailer(post.world.server(), refused("nobody listens"), connections=3, window=1)
    results = post.send(mailer, *[a_message(n) for n in range(20)])
    assert errors(results) == [None] * 20
    assert len(post.world.delivered) == 20
    assert 20 > post.endpoint.attempts


def test_one_gets_through_before_more_knock(post: Post) -> None:
    """A server that is slow to greet gets one connection, not all that are allowed."""
    greeting: Deferred[Any] = Deferred()
    mailer = post.mailer(greeting, post.world.server(), connections=4)
    results = post.send(mailer, *[a_message(n) for n in range(50)])
    assert (post.endpoint.attempts, mailer.stats().opening) == (1, 1)
    greeting.errback(refused("nobody listens"))
    assert all(isinstance(error, ConnectFailed) for error in errors(results))


# -- several servers ---------------------------------------------------------------------


def test_the_best_server_is_used_while_it_works(post: Post) -> None:
    best, second = post.place(), post.place()
    mailer = post.mailer(best, second, connections=3, window=1)
    _ = [r.get() for r in post.send(mailer, *[a_message(n) for n in range(20)])]
    assert (best.endpoint.attempts > 0, second.endpoint.attempts) == (True, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fault",
    [
        refused("nobody listens"),
        {"GREETING": CLOSE},
        {"GREETING": "554 not today"},
        {"EHLO": "451 4.3.0 trouble"},
        {"MAIL": CLOSE},
        {"RCPT": ("421 4.3.2 going down", CLOSE)},
        {"DATA": CLOSE},
    ],
)
def test_the_next_server_gets_what_is_untouched(post: Post, fault: Any) -> None:
    bad = fault if isinstance(fault, Exception) else post.world.server(fault, offers=PIPELINING)
    mailer = post.mailer(post.place(bad), post.place())
    results = post.send(mailer, *[a_message(n) for n in range(5)])
    assert errors(results) == [None] * 5
    assert 5 == len(set(post.world.subjects)) == len(post.world.delivered)


@pytest.mark.parametrize("end", [CLOSE, (b"421 4.3.2 g", CLOSE), "421 4.3.2 going"])
def test_the_next_server_does_not_get_what_is_in_doubt(post: Post, end: Any) -> None:
    """Nor what a whole 421 refused for now."""
    bad = post.world.server({".": end}, offers=PIPELINING)
    mailer = post.mailer(post.place(bad), post.place())
    (result,) = post.send(mailer, a_message(1))
    assert result.fired
    expected = RecipientStatus.REFUSED if str(end).startswith("421 ") else RecipientStatus.IN_DOUBT
    assert statuses(result.error.report) == [expected]
    assert post.world.delivered == []


@pytest.mark.parametrize("key", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("reply", ["550 5.7.1 no", "451 4.3.0 later"])
def test_a_refusal_is_an_answer_and_no_reason_for_another_server(
    post: Post, key: str, reply: str
) -> None:
    bad = post.world.server({key: reply}, offers=PIPELINING)
    mailer = post.mailer(post.place(bad), second := post.place())
    (result,) = post.send(mailer, a_message(1))
    assert statuses(result.error.report) == [RecipientStatus.REFUSED]
    assert second.endpoint.attempts == 0  # type: ignore[union-attr]


def test_a_server_that_failed_is_passed_over_for_a_while(post: Post) -> None:
    first = post.place(refused("nobody listens"), post.world.server())
    mailer = post.mailer(first, post.place(), idle=1)
    assert post.send(mailer, a_message(1))[0].get().accepted
    assert len(post.world.servers) == 1
    post.pump.advance(20)
    assert post.send(mailer, a_message(2))[0].get().accepted
    assert first.endpoint.attempts == 1  # type: ignore[union-attr]
    post.pump.advance(20)
    assert post.send(mailer, a_message(3))[0].get().accepted
    assert first.endpoint.attempts == 2  # type: ignore[union-attr]


def test_with_all_servers_down_the_last_failure_is_told(post: Post) -> None:
    places = [post.place(later(post, refused(f"number {n}"))) for n in range(3)]
    mailer = post.mailer(*places)
    results = post.send(mailer, *[a_message(n) for n in range(10)])
    post.pump.advance(1)
    assert all("number 2" in str(error) for error in errors(results))
    assert [place.endpoint.attempts for place in places] == [1, 1, 1]  # type: ignore[union-attr]


def test_a_wrong_password_at_one_server_locks_that_server_only(post: Post) -> None:
    first = post.place(post.world.server({"AUTH": "535 5.7.8 no"}, **OFFERS), **SECURE)
    mailer = post.mailer(first, post.place())
    for n in range(3):
        assert post.send(mailer, a_message(n))[0].get().accepted
        post.pump.advance(100)
    assert first.endpoint.attempts == 1  # type: ignore[union-attr]


def test_all_locked_is_told_at_once(post: Post) -> None:
    no = post.world.server({"AUTH": "535 5.7.8 no"}, **OFFERS)
    mailer = post.mailer(post.place(no, **SECURE), post.place(no, **SECURE))
    for _ in range(3):
        (error,) = errors(post.send(mailer, a_message(1)))
        assert isinstance(error, AuthenticationError)
    assert len([s for s in post.world.servers if isinstance(s, ScriptedServer)]) == 2
