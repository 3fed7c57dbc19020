"""The admin endpoint of a running relay shows what happens to mail."""

from __future__ import annotations

from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.admin.queue_contents import QueueFiller
from tests.daemon.conftest import PASSWORD, Folder
from tests.memory_queue import MemoryQueue
from tests.names import Attempted, AuthenticationAlarm, RouteDown, refuse
from twisted_sendmail import RelayService
from twisted_sendmail.admin.metrics import FailureKind
from twisted_sendmail.daemon.admin_endpoint import AdminEndpoint
from twisted_sendmail.testing import LoopbackServer

if TYPE_CHECKING:
    from tests.names import Event
    from twisted_sendmail.admin.site import AdminSite


def message(to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "alice@example.org", to, "Hello"
    message.set_content("Hello\n")
    return message


class Watched:
    """A relay as a configuration describes it, with its admin endpoint."""

    def __init__(self, folder: Folder, hop: LoopbackServer) -> None:
        # It has to outlive the server.
        folder.write("hop.pem", hop.authority.pem.decode())
        text = f"""
            queue = "queue"
            [[smarthost]]
            url = "smtp+starttls://jane@127.0.0.1:{hop.port}"
            password-file = "password"
            ca-file = "hop.pem"
            [admin]
            endpoint = "unix:{folder.path}/admin"
            """
        self.configuration = folder.read(text)
        self.reactor = folder.reactor
        self.queue = MemoryQueue(self.reactor)
        self.relay = RelayService(self.reactor, self.queue, self.configuration.relay)
        self.endpoint = AdminEndpoint(self.reactor, self.relay)
        self._waiting: list[tuple[Any, Deferred[None]]] = []
        self.relay.observers.append(self._note)

    async def __aenter__(self) -> Watched:
        self.relay.startService()
        await self.relay.ready()
        await self.endpoint.apply(self.configuration)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.close()
        await self.relay.stopService()

    def until(self, kind: Any) -> Deferred[None]:
        """Fires after the next event of *kind* was told to everybody."""
        told: Deferred[None] = Deferred()
        self._waiting.append((kind, told))
        return told.addCallback(lambda _: deferLater(self.reactor, 0))

    def _note(self, event: Event) -> None:
        for kind, told in self._waiting:
            if isinstance(event, kind) and not told.called:
                told.callback(None)

    @property
    def site(self) -> AdminSite:
        site = self.endpoint._site
        assert site is not None
        return site

    def samples(self) -> dict[str, float]:
        states = self.relay.stats().routes
        text = self.site.metrics.exposition(None, states, self.reactor.seconds()).decode()
        return {
            sample.name
            + "".join(
                f" {v}" for k, v in sorted(sample.labels.items()) if k != "route"
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest_twisted.ensureDeferred
async def test_the_site_counts_deliveries_and_bounces_with_their_tls(folder: Folder) -> None:
    refusal = refuse("RCPT", "550 5.1.1 No such user", address="nobody@example.net")
    async with (
        LoopbackServer(folder.reactor, users={"jane": PASSWORD}, faults=[refusal]) as hop,
        Watched(folder, hop) as watched,
    ):
        for to in ("bob@example.net", "nobody@example.net"):
            queued = await watched.relay.send(message(to), sender="alice@example.org")
            await queued.delivered()
        # The report comes in too, and goes out.
        await hop.wait_for(2)
        await watched.until(Attempted)
        samples = watched.samples()
    assert {
        "twisted_sendmail_messages_taken_in_total": 3,
        "twisted_sendmail_recipients_total delivered": 2,
        "twisted_sendmail_recipients_total bounced": 1,
        "twisted_sendmail_attempt_seconds_count": 3,
        "twisted_sendmail_attempts_by_tls_total TLSv1.3": 3,
        "twisted_sendmail_route_up": 1,
        "twisted_sendmail_route_auth_ok": 1,
    }.items() <= samples.items()


@pytest_twisted.ensureDeferred
async def test_the_site_shows_a_refused_password(folder: Folder) -> None:
    async with (
        LoopbackServer(folder.reactor, users={"jane": "another one"}) as hop,
        Watched(folder, hop) as watched,
    ):
        refused = watched.until(AuthenticationAlarm)
        await watched.relay.send(message("bob@example.net"), sender="alice@example.org")
        await refused
        samples = watched.samples()
        failures = [failure.kind for failure in watched.site.metrics.failures]
    assert 0 == samples["twisted_sendmail_route_auth_ok"]
    assert 1 == samples["twisted_sendmail_auth_refusals_total"]
    assert FailureKind.AUTH_REFUSED in failures


@pytest_twisted.ensureDeferred
async def test_the_site_shows_a_route_that_is_down_and_stays_healthy(folder: Folder) -> None:
    async with LoopbackServer(folder.reactor) as hop:
        watched = Watched(folder, hop)
    # Nobody listens there any more.
    async with watched:
        down = watched.until(RouteDown)
        await watched.relay.send(message("bob@example.net"), sender="alice@example.org")
        await down
        samples = watched.samples()
        (state,) = watched.relay.stats().routes
        health = await watched.site.health.problem()
    assert 0 == samples["twisted_sendmail_route_up"]
    assert not state.up
    assert state.wait > 0
    assert "refused" in (state.reason or "")
    assert None is health


@pytest_twisted.ensureDeferred
async def test_the_site_counts_attempts_that_a_crash_interrupted(
    folder: Folder,
) -> None:
    async with LoopbackServer(folder.reactor, users={"jane": PASSWORD}) as hop:
        watched = Watched(folder, hop)
        await watched.queue.open()
        (route,) = watched.configuration.relay.routes
        name = await QueueFiller(watched.queue, folder.reactor).message(route=route.name)
        now = folder.reactor.seconds()
        await watched.queue.lease(route.name, now, fresh=9, retries=9, horizon=now + 99)
        watched.queue.crash()
        async with watched:
            samples = watched.samples()
            failures = [(failure.kind, failure.id) for failure in watched.site.metrics.failures]
    assert 1 == samples["twisted_sendmail_possible_duplicates_total"]
    assert (FailureKind.DUPLICATE, name) in failures
