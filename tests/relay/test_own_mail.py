"""The mail that the relay writes itself comes into the queue as any mail does."""

from __future__ import annotations

import pytest

from tests.names import Reported, SetAsideReason
from tests.relay.world import HOUR, World
from twisted_sendmail import (
    InvalidInput,
    RelayService,
    RelaySettings,
    RetryPolicy,
    RouteSettings,
)
from twisted_sendmail.message import Rewriting
from twisted_sendmail.queue import CleanupPolicy

NAME = "relay.example"
ADMIN, LOCAL = "admin@example.org", f"root@{NAME}"
POSTMASTER, BOUNCES = "postmaster@example.org", "bounces@example.org"
GONE = {"gone@x.example": "550 5.1.1 unknown"}
AUTOMATIC = "Auto-Submitted: auto-generated\r\n"


def local_mail(world: World, **rules: object) -> CleanupPolicy:
    """Mail for local recipients goes to one address."""
    rewriting = Rewriting(**{"admin": ADMIN, "name": NAME, **rules})  # type: ignore[arg-type]
    return CleanupPolicy(NAME, lambda *_: "out", rewriting)


@pytest.mark.parametrize("sender", [LOCAL, "cron@localhost"])
def test_a_report_to_a_local_user_goes_where_their_mail_goes(world: World, sender: str) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host, policy=local_mail(world))
    world.send(relay, "gone@x.example", sender=sender)
    assert host.got == [("<>", ADMIN)]
    (report,) = host.reports
    assert f"To: <{sender}>\r\n".encode() in report.content
    assert b"Auto-Submitted: auto-replied\r\n" in report.content
    assert [event.to for event in world.of(Reported)] == [ADMIN]


def test_a_delay_is_told_there_too(world: World) -> None:
    host = world.host()
    host.refusals = {"full@x.example": "450 4.2.2 full"}
    relay = world.relay(host, policy=local_mail(world), schedule=RetryPolicy(warn_after=HOUR))
    world.send(relay, "full@x.example", sender=LOCAL)
    world.until(lambda: host.got)
    assert host.got == [("<>", ADMIN)]
    assert b"Action: delayed" in host.reports[0].content


def test_a_report_to_anybody_else_is_not_changed(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host, policy=local_mail(world, senders={"*": "all@example.org"}))
    world.send(relay, "gone@x.example", sender="all@example.org")
    assert host.got == [("<>", "all@example.org")]


def test_a_report_takes_the_route_of_the_address_it_goes_to(world: World) -> None:
    one, two = world.host(), world.host()
    one.refusals = dict(GONE)
    routes = (world.route(one, name="out"), world.route(two, name="two", senders=(ADMIN,)))
    relay = world.relay(*routes, policy=local_mail(world))
    world.send(relay, "gone@x.example", sender=LOCAL)
    assert (one.got, two.got) == ([], [("<>", ADMIN)])


def test_a_local_postmaster_is_told_once_too(world: World) -> None:
    """The address that the mail goes to counts, not the one in the settings."""
    host = world.host()
    host.refusals = {**GONE, ADMIN: "550 5.1.1 nobody there"}
    relay = world.relay(host, policy=local_mail(world), postmaster=LOCAL)
    world.send(relay, "gone@x.example", sender="")
    world.advance(HOUR)
    assert host.got == []
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.UNDELIVERABLE]
    assert len(world.of(Reported)) == 1


# -- the sender of the postmaster's mail ---------------------------------------------------


def test_without_the_option_the_postmaster_s_mail_has_no_sender(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host, postmaster=POSTMASTER)
    world.send(relay, "gone@x.example", fields=AUTOMATIC)
    assert host.got == [("<>", POSTMASTER)]


def test_the_postmaster_s_mail_has_its_own_sender_and_reports_have_none(world: World) -> None:
    host = world.host()
    host.refusals = dict(GONE)
    relay = world.relay(host, postmaster=POSTMASTER, postmaster_sender=BOUNCES)
    world.send(relay, "gone@x.example", fields=AUTOMATIC)
    assert host.got == [(BOUNCES, POSTMASTER)]
    copy = host.messages[0]
    assert copy.content.startswith(b"From: Mail Delivery System <bounces@example.org>\r\n")
    assert b"Auto-Submitted: auto-replied\r\n" in copy.content
    world.send(relay, "gone@x.example", sender="alice@example.org")
    assert host.got[1:] == [("<>", "alice@example.org")]


def test_its_failure_makes_no_other_report(world: World) -> None:
    host = world.host()
    host.refusals = {**GONE, POSTMASTER: "550 5.1.1 nobody there"}
    relay = world.relay(host, postmaster=POSTMASTER, postmaster_sender=BOUNCES)
    world.send(relay, "gone@x.example", fields=AUTOMATIC)
    world.advance(HOUR)
    assert host.got == []
    (left,) = world.queue(relay)
    assert (str(left.info.envelope.sender), left.aside) == (BOUNCES, SetAsideReason.UNDELIVERABLE)
    assert len(world.of(Reported)) == 1


@pytest.mark.parametrize("sender", ["", BOUNCES, "alice@example.org", "Bounces@Example.ORG"])
@pytest.mark.parametrize("fields", ["", AUTOMATIC])
def test_mail_to_that_address_makes_no_report(world: World, sender: str, fields: str) -> None:
    """Such as the report of a server that could not deliver the postmaster's mail."""
    host = world.host()
    host.refusals = {BOUNCES: "550 5.1.1 nobody there"}
    relay = world.relay(host, postmaster=POSTMASTER, postmaster_sender=BOUNCES)
    world.send(relay, BOUNCES, sender=sender, fields=fields)
    world.advance(HOUR)
    assert (host.got, world.of(Reported)) == ([], [])
    assert [message.aside for message in world.queue(relay)] == [SetAsideReason.UNDELIVERABLE]


def test_mail_to_that_address_and_others_is_reported_for_the_others(world: World) -> None:
    host = world.host()
    host.refusals = {**GONE, BOUNCES: "550 5.1.1 nobody there"}
    relay = world.relay(host, postmaster=POSTMASTER, postmaster_sender=BOUNCES)
    world.send(relay, BOUNCES, "gone@x.example", sender="alice@example.org")
    (report,) = host.reports
    assert (b"gone@x.example" in report.content, b"rfc822;bounces@" in report.content) == (
        True,
        False,
    )


def relay_of(world: World, policy: CleanupPolicy | None, **settings: str | None) -> RelayService:
    route = RouteSettings("out", "smtp://mail.example.org")
    made = RelaySettings(NAME, (route,), **settings)  # type: ignore[arg-type]
    return RelayService(world.clock, world.spool(), made, policy=policy)


@pytest.mark.parametrize(
    ("settings", "rules", "why"),
    [
        ({"postmaster": None}, {}, "there is no postmaster; give the postmaster too"),
        ({"postmaster_sender": POSTMASTER}, {}, "mail to it goes to the postmaster"),
        ({"postmaster_sender": "PostMaster@EXAMPLE.org"}, {}, "mail to it goes to the postmaster"),
        (
            {"postmaster_sender": LOCAL, "postmaster": ADMIN},
            {},
            "mail to it goes to the postmaster",
        ),
        ({"postmaster_sender": f"x@{NAME}", "postmaster": LOCAL}, {}, "goes to the postmaster"),
        ({}, {"senders": {"*": "all@example.org"}}, "it is rewritten to all@example.org; keep it"),
        ({}, {"senders": {"*": BOUNCES}}, "it is the sender of all mail"),
        ({"postmaster_sender": "b@h.example.org"}, {"masquerade": ["example.org"]}, "rewritten to"),
    ],
)
def test_a_sender_that_would_make_reports_about_reports_is_refused_at_the_start(
    world: World, settings: dict[str, str | None], rules: dict[str, object], why: str
) -> None:
    given = {"postmaster": POSTMASTER, "postmaster_sender": BOUNCES, **settings}
    with pytest.raises(InvalidInput) as caught:
        relay_of(world, local_mail(world, **rules), **given)
    assert why in str(caught.value)
    relay = relay_of(world, None)
    route = RouteSettings("out", "smtp://mail.example.org")
    with pytest.raises(InvalidInput):
        relay.reconfigure(
            RelaySettings(NAME, (route,), **given),  # type: ignore[arg-type]
            local_mail(world, **rules),
        )


def test_the_remedy_for_a_rewritten_sender_is_true(world: World) -> None:
    policy = local_mail(world, senders={"*": "all@example.org", BOUNCES: BOUNCES})
    relay_of(world, policy, postmaster=POSTMASTER, postmaster_sender=BOUNCES)
