"""The server in its thread, with the standard library's client, and the pytest fixture."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from twisted_sendmail import InvalidInput
from twisted_sendmail.testing import BackgroundServer, faults

MESSAGE = "From: a@example.org\r\nTo: b@example.net\r\n\r\n.dot\r\nhello\r\n"


def send(server: BackgroundServer, *, implicit: bool = False) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    if implicit:
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=context) as client:
            client.login("jane", "s3cret")
            client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        return
    with smtplib.SMTP("localhost", server.port) as client:
        client.starttls(context=context)
        client.login("jane", "s3cret")
        client.sendmail("a@example.org", ["b@example.net"], MESSAGE)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_blocking_client_sends_a_message(implicit: bool) -> None:
    with BackgroundServer(users={"jane": "s3cret"}) as server:
        send(server, implicit=implicit)
        (message,) = server.wait_for(1)
        assert (message.content, message.user) == (MESSAGE.encode(), "jane")
        assert message.email["To"] == "b@example.net"


def test_waiting_for_a_missing_message_is_a_timeout() -> None:
    with BackgroundServer() as server, pytest.raises(TimeoutError, match="0 of 1 messages"):
        server.wait_for(1, timeout=0.01)


def test_many_servers_run_and_stop() -> None:
    for _ in range(5):
        with BackgroundServer(tls=False) as one, BackgroundServer(tls=False) as other:
            assert one.port != other.port
            with smtplib.SMTP(one.host, one.port) as client:
                client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
            assert (len(one.messages), len(other.messages)) == (1, 0)


def test_faults_work_over_sockets() -> None:
    plan = [faults.single_bytes(), faults.refuse_recipient("b@example.net")]
    with BackgroundServer(users={"jane": "s3cret"}, faults=plan) as server:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(server)
        assert server.messages == []


def test_using_a_server_before_it_runs_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="start it first"):
        _ = BackgroundServer().port


def test_the_fixture_accepts_any_message(smtp_server: BackgroundServer) -> None:
    with smtplib.SMTP(smtp_server.host, smtp_server.port) as client:
        client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
    send(smtp_server)
    assert [m.user for m in smtp_server.wait_for(2)] == [None, "jane"]


@pytest.mark.smtp_server(lenient=False, users={"jane": "s3cret"})
def test_the_fixture_can_be_strict(smtp_server: BackgroundServer) -> None:
    client = smtplib.SMTP(smtp_server.host, smtp_server.port)
    with client, pytest.raises(smtplib.SMTPSenderRefused, match="STARTTLS"):
        client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
    send(smtp_server)


PROJECT = """
import smtplib, sys

def test_mail(smtp_server):
    with smtplib.SMTP(smtp_server.host, smtp_server.port) as client:
        client.sendmail("a@example.org", ["b@example.net"], "hello")
    (message,) = smtp_server.wait_for(1)
    assert message.content == b"hello\\r\\n"
    assert "twisted.internet.reactor" not in sys.modules
"""


def test_an_installed_package_brings_the_fixture(tmp_path: Path) -> None:
    """In a project that knows nothing of Twisted, in a process of its own."""
    (tmp_path / "test_project.py").write_text(PROJECT)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:twisted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_mistake_in_the_mark_is_named_with_the_options(tmp_path: Path) -> None:
    mistakes = {
        "usres={}": "the mark smtp_server has no option usres; the options are authority, ",
        "'jane'": "the mark smtp_server has no option 'jane'; the options are authority, ",
        "tls='no'": "the mark smtp_server: the option 'tls' cannot be 'no'; give True or False",
        "users=['jane']": "the mark smtp_server: users cannot be list; give texts, such as {",
    }
    for number, written in enumerate(mistakes):
        mark = f"import pytest\n\npytestmark = pytest.mark.smtp_server({written})\n"
        (tmp_path / f"test_project{number}.py").write_text(mark + PROJECT)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:twisted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "4 errors" in done.stdout) == (1, True), done.stdout
    assert [text for text in mistakes.values() if text not in done.stdout] == []
    assert "Traceback" not in done.stdout


def test_faults_change_while_the_server_runs() -> None:
    with BackgroundServer() as server, smtplib.SMTP("localhost", server.port) as client:
        server.set_faults(faults.refuse_recipient("b@example.net"))
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        server.set_faults()
        client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
        (message,) = server.messages
        assert repr(message).endswith(": a@example.org to b@example.net, 55 octets>")
        with pytest.raises(InvalidInput, match="when it is made"):
            server.set_faults(faults.expired_certificate())
        with pytest.raises(InvalidInput, match="give a call of"):
            server.set_faults("RCPT")  # type: ignore[arg-type]


def test_a_server_leaves_no_descriptor_and_keeps_its_messages() -> None:
    counts = []
    # The first one opens a file that Twisted keeps.
    for _ in range(3):
        with BackgroundServer(tls=False) as server:
            with smtplib.SMTP("localhost", server.port) as client:
                client.sendmail("a@example.org", ["b@example.net"], MESSAGE)
            port = server.port
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1] == counts[2]
    assert repr(server) == f"<BackgroundServer at smtp://127.0.0.1:{port}, 1 messages>"


def test_a_fault_is_shown_with_what_was_given() -> None:
    assert repr(faults.close("dot", nth=2)) == ("Fault(at='dot', action=FaultAction.CLOSE, nth=2)")
