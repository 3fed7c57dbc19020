"""``twisted_sendmail.buildbot`` in the processes of a real Buildbot."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.scenarios.buildbot_master import Master, Worker
from tests.scenarios.peers import python_of
from twisted_sendmail.testing import Authority, BackgroundServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.testing import ReceivedMessage

PASSWORD = "kein/Wort:davon@42"


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    running = Master(tmp_path / "master", tmp_path, PASSWORD)
    yield running
    running.kill()


@pytest.fixture
def second_master(tmp_path: Path) -> Iterator[Master]:
    running = Master(tmp_path / "second", tmp_path, PASSWORD)
    yield running
    running.kill()


@pytest.fixture
def worker(tmp_path: Path, master: Master) -> Iterator[Worker]:
    running = Worker(tmp_path / "worker", master)
    running.start()
    yield running
    running.kill()


def check_report(message: ReceivedMessage) -> None:
    """It came by AUTH in TLS, with the log attached."""
    assert (message.user, str(message.sender)) == ("ci", "ci@example.test")
    assert message.tls
    email = message.email
    assert (email["From"], email["To"]) == ("Build Bot <ci@example.test>", "bob@example.test")
    assert email["Subject"].startswith(
        "☠ Buildbot (Zoo): master-builder - failed 'echo 'Grüße ...'"
    )
    assert email["Message-ID"]
    assert email["Date"]
    page, log = email.iter_parts()
    assert page.get_content_type() == "text/plain"
    assert "master-builder" in page.get_content()
    assert log.get_filename() == "compile.stdio"
    # Buildbot marks the lines of the command's output by "o".
    assert "\noGrüße aus dem Log\no.\n" in log.get_content().replace("\r\n", "\n")


def test_a_report_survives_a_killed_master_and_a_server_that_is_down(
    tmp_path: Path, master: Master, second_master: Master, worker: Worker
) -> None:
    authority, port = Authority(), free_port()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    url = f"smtp+starttls://ci@127.0.0.1:{port}"
    arguments = "'Build Bot <ci@example.test>', extraRecipients=['bob@example.test']"
    queued = (
        f"MailNotifier({arguments}, server='{url}', smtpPassword=util.Secret('mail'), "
        "queue='mail', generators=[logs, missing])"
    )

    # The server is down. The build ends, its report is in the queue, and the master is killed.
    master.configure(queued, builds=("one",))
    master.start(SSL_CERT_FILE=str(ca_file))
    master.wait_for("<Build master-builder number:1 results:failure>: build finished")
    master.wait_for(": queued as ")
    master.wait_for("route smarthost is down")
    master.kill()

    users = {"ci": PASSWORD, "ann": PASSWORD}
    with BackgroundServer(authority=authority, port=port, users=users) as server:
        # After the restart the report is delivered.
        master.start(SSL_CERT_FILE=str(ca_file))
        first = server.wait_for(1, 60)[0]

        # A secret in a URL, and another reporter without a queue whose server is down.
        rendered = (
            f"util.Interpolate('smtp+starttls://ann:%(kw:p)s@127.0.0.1:{port}', "
            "p=util.Transform(__import__('urllib.parse').parse.quote_plus, util.Secret('mail')))"
        )
        reconfigured = (
            f"MailNotifier({arguments}, server={rendered}, queue='mail', generators=[logs, missing], "
            "extraHeaders={'X-Builder': util.Interpolate('%(prop:buildername)s')})"
        )
        lost = (
            f"MailNotifier({arguments}, relayhost='127.0.0.1', smtpPort={free_port()}, name='lost')"
        )
        master.configure(reconfigured, lost, builds=("one", "two"))
        assert master.process is not None
        master.process.send_signal(signal.SIGHUP)
        second = server.wait_for(2, 60)[1]
        master.wait_for("no mail about ")

        # Another master of the same database, with a queue of its own, and one that it cannot have.
        shared = (
            queued.replace("'mail'", repr(str(master.folder / "mail")))
            .replace("generators", "name='shared', generators")
            .replace("bob@", "carol@")
            .replace(f"util.Secret({str(master.folder / 'mail')!r})", "util.Secret('mail')")
        )
        second_master.configure(queued, shared, builds=("three",), local_worker=True)
        second_master.start(SSL_CERT_FILE=str(ca_file))
        others = server.wait_for(4, 60)[2:]
        second_master.wait_for("mail is sent without the queue ")
    check_report(first)
    assert (second.user, second.email["X-Builder"]) == ("ann", "master-builder")
    assert sorted(str(each.recipients[0]) for each in others) == [
        "bob@example.test",
        "carol@example.test",
    ]
    down = [each for each in master.log.splitlines() if "Connection refused" in each]
    assert ["route smarthost is down" in each for each in down] == [True, False]
    (line,) = [each for each in master.log.splitlines() if "no mail about" in each]
    assert "Connection refused" in line
    assert PASSWORD not in master.log
    assert "Traceback" not in master.log
    assert "Traceback" not in second_master.log
    (line,) = [each for each in second_master.log.splitlines() if "without the queue" in each]
    assert f"{master.folder}/mail" in line
    assert (second_master.folder / "mail").is_dir()


def test_reports_of_every_kind_arrive_as_with_the_reporter_of_buildbot(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(
                python_of("buildbot"),
                "-m",
                "twisted.trial",
                f"--temp-directory={tmp_path / 'trial'}",
            ),
            "tests.scenarios.buildbot_reporter",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 15 tests" in done.stdout


def test_checkconfig_names_every_mistake(master: Master) -> None:
    master.configure(
        f"MailNotifier('ci@example.test', server='smtps://ci:{PASSWORD}@h/x', name='a')",
        "MailNotifier('ci@example.test', relayhost='mail example', name='b')",
        "MailNotifier('nobody', name='c')",
        "MailNotifier('ci@example.test', smtpUser='ci', queue=5, name='d')",
    )
    printed = master.check_configuration()
    assert "server URL 'smtps://…@h…' cannot be used" in printed
    assert PASSWORD not in printed
    assert "host 'mail…' cannot be used" in printed
    assert "'nobody'" in printed
    assert "there is no password for ci" in printed
    assert "queue cannot be used; give the path of a directory" in printed
    assert "Traceback" not in printed


def test_without_buildbot_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['buildbot'] = None; import twisted_sendmail.buildbot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: twisted_sendmail.buildbot cannot be used: ")
    assert error.endswith("; install it with: pip install 'twisted_sendmail[buildbot]'")
