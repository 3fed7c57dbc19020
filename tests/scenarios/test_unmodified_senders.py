"""The mail of Scrapy and of Buildbot by their own classes: only an import of each is replaced."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.scenarios.peers import python_of
from twisted_sendmail.testing import BackgroundServer
from twisted_sendmail.testing.faults import close

PASSWORD = "kein-Wort-davon-44"
REPLACED = Path(__file__).with_name("replaced_import.py")
SPIDER = """
from scrapy import Spider
from scrapy.mail import MailSender

class Reporter(Spider):
    name = "reporter"
    start_urls = []
    custom_settings = {settings!r}

    def closed(self, reason):
        return MailSender.from_crawler(self.crawler).send(
            ["bob@example.test"], "finished", "reason: " + reason, cc="carol@example.test"
        )
"""
MASTER = """
from twisted.internet import reactor
from twisted.python import log
from buildbot.plugins import reporters, schedulers, steps, util, worker

settings = {settings!r}
results = []

class Notifier(reporters.MailNotifier):
    def sendMail(self, m, recipients):
        return super().sendMail(m, recipients).addBoth(self.sent)

    def sent(self, result):
        log.msg("sent by", self.name, str(getattr(result, "value", result)).partition("\\n")[0])
        results.append(result)
        if len(results) == len(settings):
            reactor.callLater(0, reactor.stop)

factory = util.BuildFactory([steps.MasterShellCommand(["false"])])
BuildmasterConfig = c = {{
    "protocols": {{"null": {{}}}},
    "workers": [worker.LocalWorker("here")],
    "builders": [util.BuilderConfig("zoo", workernames=["here"], factory=factory)],
    "schedulers": [schedulers.Periodic("soon", builderNames=["zoo"], periodicBuildTimer=3600)],
    "services": [
        Notifier(
            "ci@example.test",
            relayhost="localhost",
            sendToInterestedUsers=False,
            extraRecipients=["bob@example.test"],
            generators=[reporters.BuildStatusGenerator(mode="all")],
            **each
        )
        for each in settings
    ],
    "buildbotURL": "http://localhost/",
    "buildbotNetUsageData": None,
    "db": {{"db_url": "sqlite:///state.sqlite"}},
}}
"""


def run(environment: str, module: str, *command: str, folder: Path, ca_file: str = "") -> str:
    """Run a command with the import of *module* replaced; return what it printed."""
    done = subprocess.run(
        [str(python_of(environment)), str(REPLACED), module, *command],
        cwd=folder,
        env={**os.environ, "SSL_CERT_FILE": ca_file},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def crawl(folder: Path, ca_file: str, **settings: Any) -> str:
    spider = folder / "reporter.py"
    given = {"MAIL_FROM": "spider@example.test", "MAIL_HOST": "localhost", "MAIL_USER": "ci"}
    given |= {"MAIL_PASS": PASSWORD, **settings}
    spider.write_text(SPIDER.format(settings=given), "utf-8")
    command = ("scrapy", "runspider", str(spider))
    return run("scrapy", "scrapy.mail", *command, folder=folder, ca_file=ca_file)


def test_scrapy_sends_by_starttls_and_auth_and_not_over_unverified_tls(tmp_path: Path) -> None:
    with BackgroundServer(users={"ci": PASSWORD}) as server:
        log = crawl(tmp_path, server.ca_file, MAIL_PORT=server.port, MAIL_TLS=True)
        (message,) = server.messages
        assert "Mail sent OK" in log
        assert (message.user, message.tls is not None) == ("ci", True)
        recipients = [str(each) for each in message.recipients]
        assert recipients == ["bob@example.test", "carol@example.test"]
        assert message.email.get_content() == "reason: finished\r\n"

        # Its MAIL_SSL uses a context that verifies nothing.
        log = crawl(tmp_path, server.ca_file, MAIL_PORT=server.tls_port, MAIL_SSL=True)
        assert "Unable to send mail" in log
        assert "does not verify certificates; give one that does" in log
        assert len(server.messages) == 1


def build(folder: Path, ca_file: str, settings: list[dict[str, Any]]) -> dict[str, str]:
    """Let a new master build once; return what each of its notifiers got from `sendMail`."""
    command = [str(python_of("buildbot").with_name("buildbot")), "create-master", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "master.cfg").write_text(MASTER.format(settings=settings), "utf-8")
    start = ("buildbot.scripts.runner:run", "start", "--nodaemon", str(folder))
    _ = run("buildbot", "buildbot.reporters.mail", *start, folder=folder, ca_file=ca_file)
    log = (folder / "twistd.log").read_text("utf-8")
    assert PASSWORD not in log
    return dict(re.findall(r"sent by (\w+) (.*)", log))


def test_buildbot_sends_by_starttls_and_auth_and_in_clear_to_its_own_machine(
    tmp_path: Path,
) -> None:
    """A message in doubt goes once; TLS that verifies nothing is refused."""
    login = {"smtpUser": "ci", "smtpPassword": PASSWORD}
    with (
        BackgroundServer(users={"ci": PASSWORD}) as server,
        BackgroundServer() as plain,
        BackgroundServer(faults=[close("dot")]) as lossy,
    ):
        results = build(
            tmp_path / "master",
            server.ca_file,
            [
                {"name": "login", "smtpPort": server.port, "useTls": True, **login},
                {"name": "plain", "smtpPort": plain.port},
                {"name": "doubt", "smtpPort": lossy.port},
                {"name": "unverified", "smtpPort": server.tls_port, "useSmtps": True, **login},
            ],
        )
        (secured,), (clear,) = server.messages, plain.messages
        assert len(lossy.sessions) == 1
    assert results["login"].startswith("(1, [(b'bob@example.test', 250, b'2.0.0 Ok")
    assert (secured.user, secured.tls is not None) == ("ci", True)
    assert "Buildbot" in str(secured.email["Subject"])
    assert results["plain"].startswith("(1, [")
    assert (str(clear.sender), clear.tls) == ("ci@example.test", None)
    assert "the message may have been delivered" in results["doubt"]
    assert "does not verify certificates; give one that does" in results["unverified"]
