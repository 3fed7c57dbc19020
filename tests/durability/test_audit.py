"""The audit finds each kind of error, and none in a correct run."""

from __future__ import annotations

from dataclasses import replace

from tests.durability.audit import Delivered, Ledger
from tests.durability.cluster import allow_unknown_commits, unexplained

TRACE = b"Received: from a by b;\r\n\tThu, 01 Jan 2026 12:00:00 +0000\r\n"


def ledger(*, acked: bool = True) -> Ledger:
    made = Ledger()
    made.send("one", ("x@r.example", "y@r.example")).acked = acked
    return made


def delivery(made: Ledger, began: float = 1.0, *recipients: str) -> Delivered:
    sent = made.sent["one"]
    to = recipients or sent.recipients
    return Delivered("one", "a@s.example", to, TRACE + sent.content, began, began + 0.5)


def kinds(made: Ledger) -> list[str]:
    return sorted({line.partition(":")[0] for line in made.complaints()})


def test_a_message_delivered_once_to_all_is_well() -> None:
    made = ledger()
    made.delivered = [delivery(made)]
    assert made.complaints() == []


def test_a_recipient_left_out_is_a_loss() -> None:
    made = ledger()
    made.delivered = [delivery(made, 1.0, "x@r.example")]
    assert kinds(made) == ["I1"]
    assert made.missing() == [("one", "y@r.example")]


def test_a_message_without_a_250_may_be_lost() -> None:
    assert ledger(acked=False).complaints() == []


def test_a_bounced_recipient_is_not_lost() -> None:
    made = ledger()
    report = b"Final-Recipient: rfc822; y@r.example\r\n"
    made.delivered = [
        delivery(made, 1.0, "x@r.example"),
        Delivered("one", "", ("a@s.example",), report, 2.0, 2.1),
    ]
    assert made.complaints() == []


def test_what_was_never_sent_or_refused_is_a_phantom() -> None:
    made = ledger()
    made.delivered = [delivery(made), replace(delivery(made), token="two")]
    assert kinds(made) == ["I2"]
    made = ledger(acked=False)
    made.sent["one"].refused = True
    made.delivered = [delivery(made)]
    assert kinds(made) == ["I2"]


def test_another_recipient_is_a_phantom() -> None:
    made = ledger()
    made.delivered = [delivery(made), delivery(made, 9.0, "z@r.example")]
    assert kinds(made) == ["I2"]


def test_content_cut_short_is_no_integrity() -> None:
    made = ledger()
    whole = delivery(made)
    made.delivered = [replace(whole, content=whole.content[:-3])]
    assert kinds(made) == ["I4"]


def test_a_second_copy_needs_a_hit_between() -> None:
    made = ledger()
    made.delivered = [delivery(made, 1.0), delivery(made, 3.0)]
    assert kinds(made) == ["I3"]
    made.hits = [0.5]
    assert kinds(made) == ["I3"]
    made.hits = [1.2]
    assert made.complaints() == []


def test_deliveries_at_the_same_time_overlap() -> None:
    made = ledger()
    made.hits = [1.1]
    made.delivered = [delivery(made, 1.0), delivery(made, 1.2)]
    assert kinds(made) == ["I7"]


def report(made: Ledger, name: str, began: float, action: str = "failed") -> Delivered:
    content = (
        f"Message-ID: <{name}@relay.example>\r\n\r\nFinal-Recipient: rfc822; y@r.example\r\n"
        f"Original-Recipient: rfc822; y@r.example\r\nAction: {action}\r\n\r\n"
        "Message-ID: <one@sender.example>\r\nX-Token: one\r\n"
    )
    return Delivered("one", "", ("a@s.example",), content.encode(), began, began + 0.5)


def test_a_failure_is_reported_by_one_report_whatever_hits_it() -> None:
    made = ledger()
    made.hits = [3.0]
    made.delivered = [delivery(made, 1.0, "x@r.example"), report(made, "1", 2.0)]
    assert made.complaints() == []
    made.delivered.append(report(made, "2", 4.0))
    assert kinds(made) == ["I8"]


def test_one_report_may_be_delivered_twice_if_it_was_hit() -> None:
    made = ledger()
    made.delivered = [delivery(made, 1.0, "x@r.example")]
    made.delivered += [report(made, "1", 2.0), report(made, "1", 4.0)]
    assert kinds(made) == ["I3"]
    made.hits = [3.0]
    assert made.complaints() == []


def test_a_delay_and_a_failure_are_two_reports() -> None:
    made = ledger()
    made.delivered = [delivery(made, 1.0, "x@r.example")]
    made.delivered += [report(made, "1", 2.0, "delayed"), report(made, "2", 4.0)]
    assert made.complaints() == []


def test_a_second_copy_that_no_relay_has_named_is_found() -> None:
    ledger = Ledger()
    sent = ledger.send("t", ("x@r.example",))
    trace = b"Received: from a by b\r\n\tid CRBRE5GGXBG1; now\r\n"
    for at in (1.0, 2.0):
        content = trace + sent.content
        ledger.delivered.append(Delivered("t", "a@b", sent.recipients, content, at, at))
    assert len(unexplained(ledger, "CRBRE5GGXBG1: removed\n")) == 1
    assert unexplained(ledger, "possibly duplicated, …: CRBRE5GF9ZFN CRBRE5GGXBG1\n") == []


def test_a_message_may_come_out_after_451_only_if_its_relay_logged_an_unknown_commit() -> None:
    ledger = Ledger()
    sent = ledger.send("t", ("x@r.example",))
    sent.refused = True
    content = b"Received: from a by b\r\n\tid CRBRE5GGXBG1; now\r\n" + sent.content
    ledger.delivered.append(Delivered("t", "a@b", sent.recipients, content, 1.0, 1.0))
    allow_unknown_commits(ledger, "CRBRE5GGXBG1: not queued: the queue could not commit\n")
    assert ledger.complaints() == ["I2: t was refused, and came out"]
    allow_unknown_commits(
        ledger, "CRBRE5GGXBG1: not queued: the result of a commit of the queue is …"
    )
    assert ledger.complaints() == []
