"""Every class of the error tree has an exit status, which the reference page lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.error import DNSLookupError

import twisted_sendmail
import twisted_sendmail.oauth
from twisted_sendmail import (
    AllRecipientsRefused,
    ConnectFailed,
    DeliveryReport,
    Envelope,
    RecipientResult,
    RecipientStatus,
    Reply,
    SendmailError,
    StartTLSUnavailable,
)
from twisted_sendmail.exit_status import (
    STATUS_BY_ERROR,
    ExitStatus,
    status_of_error,
    status_of_result,
)
from twisted_sendmail.smtp import refusal, require_acceptance

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


def classes(root: type[SendmailError]) -> Iterator[type[SendmailError]]:
    """*root* and all below, but for those made on the fly for one refusal."""
    yield root
    if root is not AllRecipientsRefused:
        for child in root.__subclasses__():
            if child.__module__.startswith("twisted_sendmail."):
                yield from classes(child)


# Public names are imported on first use.
_ = [getattr(twisted_sendmail, name) for name in twisted_sendmail.__all__]
EVERY = sorted(set(classes(SendmailError)), key=lambda kind: kind.__name__)


def report(*replies: Reply | None, phase: str | None = None) -> DeliveryReport:
    """A report with a recipient for each reply; None stands for an accepted one."""
    envelope = Envelope("a@example.org", [f"r{n}@example.net" for n in range(len(replies))])
    outcomes = tuple(
        RecipientResult(
            recipient, RecipientStatus.REFUSED if reply else RecipientStatus.ACCEPTED, reply
        )
        for recipient, reply in zip(envelope.recipients, replies, strict=True)
    )
    return DeliveryReport(envelope, outcomes, phase=phase)


def test_every_public_error_is_among_those_tested() -> None:
    public = [getattr(twisted_sendmail, name) for name in twisted_sendmail.__all__]
    errors = [k for k in public if isinstance(k, type) and issubclass(k, SendmailError)]
    assert [kind for kind in errors if kind not in EVERY] == []


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_class_of_error_has_a_status_of_its_own(kind: type[SendmailError]) -> None:
    assert kind.__name__ in STATUS_BY_ERROR
    expected = STATUS_BY_ERROR[kind.__name__]
    if kind.temporary and expected in {ExitStatus.UNAVAILABLE, ExitStatus.NOPERM}:
        expected = ExitStatus.TEMPFAIL
    assert status_of_error(kind("it failed")) == expected


def test_no_error_has_status_0() -> None:
    assert ExitStatus.OK not in STATUS_BY_ERROR.values()


def test_an_unknown_host_name_is_distinguished_from_a_server_that_is_down() -> None:
    error = ConnectFailed("no connection")
    assert status_of_error(error) == ExitStatus.TEMPFAIL
    error.__cause__ = DNSLookupError()
    assert status_of_error(error) == ExitStatus.NOHOST


def test_a_temporary_error_of_a_permanent_class_is_75() -> None:
    error = StartTLSUnavailable("no STARTTLS")
    assert status_of_error(error) == ExitStatus.UNAVAILABLE
    error.temporary = True
    assert status_of_error(error) == ExitStatus.TEMPFAIL


@pytest.mark.parametrize(
    ("codes", "phase", "status"),
    [
        ((550,), None, 67),
        ((550, 550), None, 67),
        ((550, 553), None, 69),
        ((450,), None, 75),
        ((550, 450), None, 75),
        ((530,), None, 77),
        ((550,), "MAIL", 69),
        ((554,), "content", 69),
        ((451,), "content", 75),
    ],
)
def test_the_status_if_all_recipients_are_refused(
    codes: tuple[int, ...], phase: str | None, status: int
) -> None:
    """The user is unknown only if each RCPT was answered with 550."""
    with pytest.raises(AllRecipientsRefused) as caught:
        require_acceptance(report(*map(Reply, codes), phase=phase))
    assert status == status_of_error(caught.value)


@pytest.mark.parametrize(
    ("codes", "status"), [((), 0), ((550,), 67), ((450,), 69), ((450, 550), 67), ((550, 551), 69)]
)
def test_the_status_if_some_recipients_are_refused(codes: tuple[int, ...], status: int) -> None:
    """A permanent refusal is worse than a temporary one, and the status is never 75."""
    assert status == status_of_result(report(None, *map(Reply, codes)), None)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("status", [RecipientStatus.IN_DOUBT, RecipientStatus.ACCEPTED])
def test_no_error_is_75_if_a_recipient_may_have_the_message(
    kind: type[SendmailError], status: RecipientStatus
) -> None:
    envelope = Envelope("a@example.org", ["b@example.net", "c@example.net"])
    one, other = envelope.recipients
    outcomes = (RecipientResult(one, status), RecipientResult(other, RecipientStatus.UNTOUCHED))
    code = status_of_error(kind("it failed", report=DeliveryReport(envelope, outcomes)))
    assert ExitStatus.TEMPFAIL != code
    assert ExitStatus.PROTOCOL == code or status is RecipientStatus.ACCEPTED


def test_a_refusal_without_its_own_class_has_the_status_of_its_base_class() -> None:
    assert status_of_error(refusal("MAIL", Reply(471))) == ExitStatus.TEMPFAIL


def test_the_reference_page_lists_the_status_of_every_class() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `EX_(\w+)` \|[^|]*\|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    written = {(int(code), name): set(re.findall(r"`(\w+)`", kinds)) for code, name, kinds in rows}
    expected: dict[tuple[int, str], set[str]] = {}
    for status in ExitStatus:
        if status not in {ExitStatus.OK, ExitStatus.INTERRUPTED}:
            kinds = {name for name, code in STATUS_BY_ERROR.items() if code is status}
            expected[int(status), status.name] = kinds
    assert written == expected
