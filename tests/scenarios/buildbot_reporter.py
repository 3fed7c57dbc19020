"""The reporter of ``twisted_sendmail.buildbot`` with reports of a master that is a stub.

``test_buildbot.py`` runs this file by ``trial`` in the environment of Buildbot.  The released archives of
Buildbot do not hold the tests of its own reporter by mail; these state the same behaviour.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from buildbot.config import ConfigErrors
from buildbot.process.properties import Interpolate
from buildbot.reporters.generators.build import BuildStatusGenerator
from buildbot.util.service import MasterService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.trial.unittest import TestCase

from twisted_sendmail.buildbot import MailNotifier
from twisted_sendmail.testing import BackgroundServer, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from email.message import EmailMessage

    from twisted_sendmail.testing import ReceivedMessage


class StubMaster(MasterService):
    """What the reporter uses of a master."""

    def __init__(self, basedir: str) -> None:
        super().__init__()
        from twisted.internet import reactor

        self.reactor = reactor
        self.basedir = basedir
        self.config = SimpleNamespace(title="Zoo")
        self.mq = SimpleNamespace(
            startConsuming=lambda *_: succeed(SimpleNamespace(stopConsuming=lambda: succeed(None)))
        )


def report(**changes: Any) -> dict[str, Any]:
    """A report as a generator makes it."""
    return {
        "body": "Die Prüfung schlug fehl.",
        "subject": "build 42 failed",
        "type": "plain",
        "results": 2,
        "builds": [{"properties": {"branch": ("main", "test")}}],
        "users": ["dev@example.test"],
        "patches": [],
        "logs": [],
        **changes,
    }


def asynchronous(
    test: Callable[[Any], Coroutine[Deferred[Any], Any, None]],
) -> Callable[[Any], Deferred[None]]:
    """Let trial wait for a coroutine."""
    return lambda case: Deferred.fromCoroutine(test(case))


class Reports(TestCase):
    """Messages that arrive at a real server."""

    def setUp(self) -> None:
        self.server = BackgroundServer(tls=False).start()
        self.addCleanup(self.server.stop)
        self.master = StubMaster(self.mktemp())  # type: ignore[no-untyped-call]  # trial leaves it untyped

    async def mail(self, *reports: dict[str, Any], **arguments: Any) -> list[ReceivedMessage]:
        """Report by a new reporter; the messages."""
        arguments = {"generators": [BuildStatusGenerator()], **arguments}
        reporter: Any = MailNotifier(
            "Build Bot <ci@example.test>", smtpPort=self.server.port, **arguments
        )
        await reporter.setServiceParent(self.master)
        await self.master.startService()
        try:
            await reporter.sendMessage(list(reports))
        finally:
            await maybeDeferred(self.master.stopService)
        return self.server.messages

    async def email(self, *reports: dict[str, Any], **arguments: Any) -> EmailMessage:
        (message,) = await self.mail(*reports, **arguments)
        return message.email

    @asynchronous
    async def test_a_report_is_text_or_html(self) -> None:
        text = await self.email(report())
        assert (text["Subject"], text["To"]) == ("build 42 failed", "dev@example.test")
        assert text.get_content_type() == "text/plain"
        assert text.get_content().strip() == "Die Prüfung schlug fehl."
        assert text["Auto-Submitted"] == "auto-generated"
        assert text["Message-ID"]
        assert text["Date"]

    @asynchronous
    async def test_html_is_declared(self) -> None:
        html = await self.email(report(type="html", body="<p>Prüfung"))
        assert html.get_content_type() == "text/html"
        assert html.get_content().strip() == "<p>Prüfung"

    @asynchronous
    async def test_patches_and_logs_are_attached_under_different_names(self) -> None:
        log = {"stepname": "test", "name": "stdio", "buildername": "b", "content": {"content": "ü"}}
        builds: list[dict[str, Any]] = [{"properties": {}}, {"properties": {}}]
        patch = {"body": "+ä\n"}
        email = await self.email(
            report(builds=builds, patches=[patch], logs=[log, {**log, "buildername": "c"}])
        )
        names = [part.get_filename() for part in email.iter_attachments()]
        assert names == ["source patch 0", "b.test.stdio", "c.test.stdio"]
        contents = [part.get_content() for part in email.iter_attachments()]
        assert contents == ["+ä\n", "ü", "ü"]

    @asynchronous
    async def test_reports_of_several_generators_are_one_message(self) -> None:
        email = await self.email(report(body="one\n"), report(body="two", users=["b@example.test"]))
        assert email.get_content().split() == ["one", "two"]
        assert email["To"] == "b@example.test, dev@example.test"

    @asynchronous
    async def test_extra_headers_are_rendered_and_replace_ours(self) -> None:
        headers = {"X-Branch": Interpolate("%(prop:branch)s"), "Auto-Submitted": "no"}
        email = await self.email(report(), extraHeaders=headers)
        assert email["X-Branch"] == "main"
        assert email.get_all("Auto-Submitted") == ["no"]

    @asynchronous
    async def test_extra_recipients_are_copied_if_there_are_interested_users(self) -> None:
        (message,) = await self.mail(report(), extraRecipients=["Ops <ops@example.test>"])
        assert message.email["To"] == "dev@example.test"
        assert "ops@example.test" in message.email["Cc"]
        to = sorted(map(str, message.recipients))
        assert to == ["dev@example.test", "ops@example.test"]

    @asynchronous
    async def test_extra_recipients_alone(self) -> None:
        email = await self.email(
            report(), extraRecipients=["ops@example.test"], sendToInterestedUsers=False
        )
        assert (email["To"], email["Cc"]) == ("ops@example.test", None)

    @asynchronous
    async def test_a_domain_is_the_lookup_of_users(self) -> None:
        email = await self.email(report(users=["anna", "x@y.test"]), lookup="example.test")
        assert email["To"] == "anna@example.test, x@y.test"

    @asynchronous
    async def test_mail_about_a_missing_worker_has_a_to(self) -> None:
        email = await self.email(report(worker="w", builds=None, users=["ops@example.test"]))
        assert email["To"] == "ops@example.test"

    @asynchronous
    async def test_an_unusable_recipient_and_a_refused_one_do_not_stop_the_others(self) -> None:
        self.server.set_faults(faults.refuse_recipient("gone@example.test"))
        users = ["a..b@example.test", "gone@example.test", "dev@example.test", "nobody"]
        (message,) = await self.mail(report(users=users))
        assert [str(each) for each in message.recipients] == ["dev@example.test"]

    @asynchronous
    async def test_without_recipients_nothing_is_sent(self) -> None:
        assert await self.mail(report(users=[])) == []
        assert self.server.sessions == []

    @asynchronous
    async def test_a_refused_message_is_no_error_of_the_reporter(self) -> None:
        self.server.set_faults(faults.refuse("MAIL", "550 5.7.1 no"))
        assert await self.mail(report()) == []

    @asynchronous
    async def test_a_queue_delivers(self) -> None:
        reporter: Any = MailNotifier("ci@example.test", smtpPort=self.server.port, queue="queue")
        await reporter.setServiceParent(self.master)
        await self.master.startService()
        await reporter.sendMessage([report()])
        await reporter.reconfigService("ci2@example.test", smtpPort=self.server.port, queue="queue")
        await reporter.sendMessage([report()])
        from twisted.internet.threads import deferToThread

        messages = await deferToThread(self.server.wait_for, 2, 60)
        await maybeDeferred(self.master.stopService)
        senders = sorted(str(each.sender) for each in messages)
        assert senders == ["ci2@example.test", "ci@example.test"]


class Configuration(TestCase):
    """Arguments that cannot be used."""

    def assert_error(self, text: str, fromaddr: str = "ci@example.test", **arguments: Any) -> None:
        raises: Any = self.assertRaises
        error = raises(ConfigErrors, MailNotifier, fromaddr, **arguments)
        assert text in " ".join(error.errors)

    def test_errors(self) -> None:
        self.assert_error("is not a valid email", extraRecipients=["nobody"])
        self.assert_error("must be a list or tuple", extraRecipients="a@b.test")
        self.assert_error("must be a dictionary", extraHeaders=["a"])
        self.assert_error("address", fromaddr="nobody at home")
        self.assert_error("there is no password for ci", smtpUser="ci")
        self.assert_error("does not begin with one of", server="http://mail.example.net")
        self.assert_error("port 70000", smtpPort=70000)
        self.assert_error("queue cannot be used", queue="")

    def test_secrets_are_not_known_yet(self) -> None:
        secret = Interpolate("%(secret:mail)s")
        _ = MailNotifier("a@b.test", smtpUser=secret, smtpPassword=secret)
        _ = MailNotifier("a@b.test", server="smtps://ci@mail.example.net", smtpPassword=secret)
        _ = MailNotifier("a@b.test", server=Interpolate("smtps://ci:%(secret:mail)s@example.net"))
