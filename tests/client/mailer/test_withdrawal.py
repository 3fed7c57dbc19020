"""A message that may not be delivered any more: its end is not written, and nobody has it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, statuses
from tests.client.mailer.postbox import CHUNKING, CHUNKS_ALONE, NOTHING, PIPELINING
from twisted_sendmail import DeliveryReport, DeliveryWithdrawn, Envelope, RecipientStatus, TLSPolicy
from twisted_sendmail.client import Job
from twisted_sendmail.message import Content, PreparedMessage

UNTOUCHED = [RecipientStatus.UNTOUCHED]
ACCEPTED = [RecipientStatus.ACCEPTED]


class Pieces(Content):
    """A content that is read piece by piece, as a large one of a relay's queue."""

    rewindable = True

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self._left = list(pieces)
        self.size = sum(map(len, pieces))
        self.eight_bit = not all(map(bytes.isascii, pieces))

    async def read(self) -> bytes:
        return self._left.pop(0) if self._left else b""

    def rewind(self) -> None:
        self._left = list(self._pieces)


class Sender:
    """Sends messages, and counts how often each was asked whether it may end."""

    def __init__(self, post: Post, offers: tuple[str, ...], **settings: Any) -> None:
        limits = settings.pop("limits", {})
        server = post.world.server(offers=offers, **settings.pop("answers", {}))
        self._post = post
        self.mailer = post.mailer(server, settings=settings, connections=1, **limits)
        self.asked: dict[str, int] = {}
        self.reports: dict[str, Any] = {}

    def job(self, subject: str, *may_end: bool, content: Any = None, recipients: int = 1) -> Job:
        """Return a message that may end when all of *may_end* were given as answers, by the last."""
        answers = list(may_end)

        def asked() -> bool:
            self.asked[subject] = self.asked.get(subject, 0) + 1
            return answers.pop(0) if len(answers) > 1 else answers[0]

        envelope = Envelope("a@example.org", [f"b{n}@example.net" for n in range(recipients)])
        octets = f"Subject: {subject}\r\n\r\nhello\r\n".encode()
        given = octets if content is None else content
        message = PreparedMessage(envelope, given, smtputf8=False, message_id=None)
        return Job(
            message,
            lambda result: self.reports.__setitem__(subject, result),
            self._post.clock.seconds(),
            may_end=asked,
        )

    def send(self, *jobs: Job) -> None:
        self.mailer.pool.add(jobs)
        self._post.pump.run()


def is_withdrawn(report: Any) -> None:
    """Check that nobody has the message, and that it may go again."""
    assert isinstance(report, DeliveryReport)
    assert isinstance(report.error, DeliveryWithdrawn)
    assert set(statuses(report)) == set(UNTOUCHED)
    assert report.error.transient
    assert not report.error.in_doubt
    assert "its end was not sent" in str(report.error)


LARGE = (b"Subject: large\r\n\r\n", b"x" * 70000 + b"\r\n", b"y" * 70000 + b"\r\n")


@pytest.mark.parametrize("tls", [TLSPolicy.NONE, TLSPolicy.STARTTLS])
@pytest.mark.parametrize("content", [None, LARGE], ids=["whole", "streamed"])
@pytest.mark.parametrize("offers", [NOTHING, PIPELINING, CHUNKS_ALONE, CHUNKING])
def test_the_end_of_a_withdrawn_message_is_not_written(
    post: Post, offers: tuple[str, ...], content: Any, tls: TLSPolicy
) -> None:
    answers: dict[str, Any] = {}
    if tls is TLSPolicy.STARTTLS:
        answers, offers = {"secure": offers}, (*offers, "STARTTLS")
    sender = Sender(post, offers, tls=tls, answers=answers)
    sender.send(sender.job("withdrawn", False, content=content and Pieces(*content)))
    is_withdrawn(sender.reports["withdrawn"])
    assert post.world.delivered == []
    assert not any(server.messages for server in post.world.servers)
    said = [line for server in post.world.servers for line in server.lines]
    assert not any(line.endswith("LAST") for line in said)


@pytest.mark.parametrize("content", [None, LARGE], ids=["whole", "streamed"])
@pytest.mark.parametrize("offers", [PIPELINING, CHUNKS_ALONE, CHUNKING])
def test_the_permission_is_asked_for_once_before_the_end_is_written(
    post: Post, offers: tuple[str, ...], content: Any
) -> None:
    ended: list[int] = []
    sender = Sender(post, offers)
    job = sender.job("kept", True, content=content and Pieces(*content))

    def may_end() -> bool:
        ended.append(sum(len(server.messages) for server in post.world.servers))
        return True

    job.may_end = may_end
    sender.send(job)
    assert ended == [0]
    assert len(post.world.delivered) == 1
    assert statuses(sender.reports["kept"]) == ACCEPTED


@pytest.mark.parametrize("content", [None, LARGE], ids=["whole", "streamed"])
def test_a_content_encoded_for_a_7_bit_server_is_not_ended_either(post: Post, content: Any) -> None:
    body = "Subject: grüße\r\n\r\nhällo\r\n".encode()
    pieces = Pieces(b"MIME-Version: 1.0\r\n", body, *(content or ()))
    sender = Sender(post, NOTHING)
    sender.send(sender.job("7-bit", False, content=pieces))
    is_withdrawn(sender.reports["7-bit"])
    assert not any(server.messages for server in post.world.servers)


@pytest.mark.parametrize("offers", [NOTHING, PIPELINING])
def test_the_connection_is_dropped_after_354(post: Post, offers: tuple[str, ...]) -> None:
    sender = Sender(post, offers)
    sender.send(sender.job("withdrawn", False), sender.job("next", True))
    is_withdrawn(sender.reports["withdrawn"])
    assert statuses(sender.reports["next"]) == ACCEPTED
    first, second = post.world.servers
    assert first.verbs[-1] == "DATA"
    assert post.world.subjects == ["next"]
    assert second.verbs[-1] in {"DATA", "QUIT"}


@pytest.mark.parametrize("withdrawn", [[0], [3], [7], [0, 1, 2], [2, 5], list(range(8))])
def test_other_messages_in_the_window_are_delivered_over_the_same_connection(
    post: Post, withdrawn: list[int]
) -> None:
    sender = Sender(post, CHUNKING)
    sender.send(*[sender.job(f"{n}", n not in withdrawn) for n in range(8)])
    for n in range(8):
        report = sender.reports[f"{n}"]
        if n in withdrawn:
            is_withdrawn(report)
        else:
            assert statuses(report) == ACCEPTED
    assert post.world.subjects == [f"{n}" for n in range(8) if n not in withdrawn]
    assert post.endpoint.attempts == 1


def test_a_large_content_withdrawn_leaves_the_connection_to_the_next_message(post: Post) -> None:
    sender = Sender(post, CHUNKING)
    sender.send(sender.job("large", False, content=Pieces(*LARGE)), sender.job("next", True))
    is_withdrawn(sender.reports["large"])
    assert statuses(sender.reports["next"]) == ACCEPTED
    assert post.world.subjects == ["next"]
    assert post.endpoint.attempts == 1
    (server,) = post.world.servers
    assert server.verbs[-4:-1] == ["RSET", "MAIL", "RCPT"]


def test_a_message_to_many_is_withdrawn_after_its_envelope(post: Post) -> None:
    """The envelope is longer than the window of unanswered commands."""
    sender = Sender(post, CHUNKING)
    sender.send(sender.job("many", False, recipients=400), sender.job("next", True))
    is_withdrawn(sender.reports["many"])
    assert statuses(sender.reports["next"]) == ACCEPTED
    assert post.world.subjects == ["next"]
    assert post.endpoint.attempts == 1


def test_the_second_of_two_transactions_of_a_message_may_be_withdrawn(post: Post) -> None:
    sender = Sender(post, (*CHUNKING, "LIMITS RCPTMAX=1"))
    sender.send(sender.job("two", True, False, recipients=2))
    report = sender.reports["two"]
    assert statuses(report) == [*ACCEPTED, *UNTOUCHED]
    assert isinstance(report.error, DeliveryWithdrawn)
    assert (report.error.transient, report.error.in_doubt) == (False, False)
    assert post.world.subjects == ["two"]


def test_a_refused_envelope_does_not_need_the_permission(post: Post) -> None:
    sender = Sender(post, PIPELINING)
    job = sender.job("refused", False)
    post.world.fault = lambda server, key, line: "550 5.1.1 no" if key == "RCPT" else None
    sender.send(job)
    assert statuses(sender.reports["refused"]) == [RecipientStatus.REFUSED]
    assert sender.asked == {}
