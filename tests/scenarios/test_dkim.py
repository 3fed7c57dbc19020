"""Signed mail goes through a real Postfix, and real verifiers find the keys in a DNS server.

The content is taken from the wire, where Postfix delivers it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.names.common import ResolverBase
from twisted.names.dns import TXT, DNSDatagramProtocol, Record_TXT, RRHeader
from twisted.names.error import DomainError
from twisted.names.server import DNSServerFactory

from tests.dkim_verifier import keys, pem, verify, verify_by_perl, why_no_perl
from tests.names import password_entry
from tests.ports import free_port
from tests.scenarios.peers import require
from tests.scenarios.sending_postfix import PASSWORD, SendingPostfix
from twisted_sendmail import (
    AllRecipientsRefused,
    Credentials,
    Envelope,
    SubmissionServer,
    TLSPolicy,
    TLSTrust,
    many,
    sendmail,
    submit,
)
from twisted_sendmail.testing import Authority, BackgroundServer

if TYPE_CHECKING:
    from tests.scenarios.relay_process import Relay

SENDER, RECIPIENT = "jane@example.org", "bob@starttls.test"
HEADER = (
    b"From: Jane <jane@example.org>\r\nTo: bob@starttls.test\r\nSubject: a \t folded\r\n"
    b"\tsubject  \r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
)
MIME = (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
)
MESSAGES = {
    "empty body": HEADER + b"\r\n",
    "header alone": HEADER,
    "dots": HEADER + b"\r\n.\r\n..\r\n.dot\r\n...\r\n.",
    "blank lines at the end": HEADER + b"\r\ntext\r\n\r\n \t\r\n\r\n",
    "blank lines alone": HEADER + b"\r\n\r\n\r\n\r\n",
    "white space": HEADER + b"\r\n \t a\t\tb  c \t\r\n\t\r\n  \r\nend \r\n",
    "no line end": HEADER + b"\r\nwhite space at the end \t",
    "line feeds": (HEADER + b"\r\none\ntwo \n\n\nthree\n").replace(b"\r\n", b"\n"),
    "8-bit": HEADER + MIME + b"\r\n" + "Gr\u00fc\u00dfe, \u4e16\u754c \r\n".encode(),
    "repeated fields": b"Received: x\r\nCc: a@x.test\r\nCc: b@x.test\r\nX: 1\r\nReferences: <1@x>\r\n\t<2@x>\r\n"
    + HEADER
    + b"\r\ntext\r\n",
    "blank before the colon": HEADER.replace(b"Subject:", b"Subject \t:") + b"\r\ntext\r\n",
    "large": HEADER + b"\r\n" + b"a large \t message .\r\n.\r\n" * 80_000 + b"\r\n\r\n",
}
NAME = re.compile(rb"^X-Name: (.*)\r$", re.MULTILINE)
#: dkimpy does not read a field with white space before its colon.
NOT_FOR_DKIMPY = {"blank before the colon"}


class Records(ResolverBase):
    """The records of both keys."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> Deferred[Any]:  # noqa: A002 - Twisted's names
        texts = [key.record for key in keys() if key.record_name.encode() == name.lower()]
        if not texts or type != TXT:
            return fail(DomainError(name))
        # A record is made of strings of up to 255 octets.
        record: Any = Record_TXT
        strings = re.findall(b".{1,200}", texts[0].encode())
        return succeed(([RRHeader(name, TXT, payload=record(*strings, ttl=60))], [], []))


@pytest_twisted.async_yield_fixture
async def dns(reactor: Any) -> AsyncIterator[int]:
    """The port of a DNS server with the records of both keys."""
    require("Mail::DKIM", why_no_perl())
    factory = DNSServerFactory(clients=[Records()])  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    protocol = DNSDatagramProtocol(factory)  # type: ignore[no-untyped-call]  # the same
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    yield port.getHost().port
    await port.stopListening()


def call_sendmail(relay: Relay, message: bytes) -> None:
    command = Path(sys.executable).parent / "twisted-sendmail-sendmail"
    done = subprocess.run(
        [command, "-i", "-f", SENDER, RECIPIENT],
        env={**os.environ, "TWISTED_SENDMAIL_SPOOL": str(relay.queue)},
        input=message.replace(b"\r\n", b"\n") + b"\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def arrived(server: BackgroundServer, log: Any, count: int = 1) -> list[bytes]:
    """The contents that Postfix has delivered, as they were on the wire."""
    try:
        await deferToThread(server.wait_for, count, timeout=60)
    except TimeoutError:
        pytest.fail(log())
    return [message.content for message in server.messages]


@ensureDeferred
async def test_real_verifiers_accept_what_came_through_postfix(
    reactor: Any, server: BackgroundServer, sending_postfix: SendingPostfix, dns: int
) -> None:
    envelope = Envelope(SENDER, [RECIPIENT])
    named = [(envelope, b"X-Name: %s\r\n" % name.encode() + MESSAGES[name]) for name in MESSAGES]
    to = f"smtp://127.0.0.1:{sending_postfix.port}"
    reports = await many(reactor, to, named, complete=False, dkim=keys())
    assert [None] * len(named) == [report.error for report in reports]
    contents = await arrived(server, lambda: sending_postfix.log, len(named))
    # The verifiers do verify: the last one is changed.
    changed = contents[0].replace(b"<jane@", b"<john@")
    *results, last = await deferToThread(verify_by_perl, [*contents, changed], dns)
    found = {NAME.findall(content)[0].decode(): content for content in contents}
    assert dict.fromkeys(MESSAGES, "pass") == {
        name: result["rsa-sha256"] for name, result in zip(found, results, strict=True)
    }
    assert "pass" not in last.values()
    assert {name: [True, True] for name in MESSAGES if name not in NOT_FOR_DKIMPY} == {
        name: verify(content) for name, content in found.items() if name not in NOT_FOR_DKIMPY
    }


@ensureDeferred
async def test_a_relay_signs_for_its_users_and_accounts(
    reactor: Any,
    server: BackgroundServer,
    sending_postfix: SendingPostfix,
    dns: int,
    relay: Relay,
) -> None:
    port, authority = free_port(), Authority()
    for number, key in enumerate(keys()):
        relay.write(f"key{number}.pem", pem(key), 0o600)
    relay.write("server.pem", authority.issue(["localhost"]), 0o600)
    relay.write("accounts", f"{password_entry('jane', PASSWORD, iterations=4096)}\n", 0o600)
    relay.write("ca.pem", authority.pem)
    relay.write(
        "relay.toml",
        f"""
        name = "relay.example.org"
        queue = "queue"
        [[listen]]
        endpoint = "tcp:{port}:interface=127.0.0.1"
        certificate = "server.pem"
        accounts = "accounts"
        [[smarthost]]
        url = "smtp://127.0.0.1:{sending_postfix.port}"
        [[dkim]]
        domain = "example.org"
        users = ["root"]
        accounts = ["jane"]
        [[dkim.key]]
        selector = "rsa2026"
        key-file = "key0.pem"
        [[dkim.key]]
        selector = "ed2026"
        key-file = "key1.pem"
        """,
    )
    relay.start("--config", "relay.toml")
    await deferToThread(relay.up)
    socket = UNIXClientEndpoint(reactor, str(relay.queue / "submission"))
    local: dict[str, Any] = {"tls": TLSPolicy.NONE, "reactor": reactor, "sender": SENDER}
    account = SubmissionServer(
        "localhost", port, tls=TLSPolicy.STARTTLS, credentials=Credentials("jane", PASSWORD),
        trust=TLSTrust(ca_file=relay.folder / "ca.pem"),
    )  # fmt: skip
    to: dict[str, Any] = {"sender": SENDER, "recipients": [RECIPIENT]}
    # Signed: a user of this machine by the socket and by sendmail, and an account.
    await sendmail(socket, MESSAGES["8-bit"], recipients=[RECIPIENT], **local)
    await submit(reactor, account, MESSAGES["white space"], **to)
    await deferToThread(call_sendmail, relay, MESSAGES["dots"])
    contents = await arrived(server, lambda: sending_postfix.log, 3)
    results = await deferToThread(verify_by_perl, contents, dns)
    assert ["pass"] * 3 == [result["rsa-sha256"] for result in results], relay.said
    assert [[True, True]] * 3 == [verify(content) for content in contents]
    # Not signed: a client without an account, another domain, and mail that is signed already.
    server.clear()
    await submit(reactor, f"smtp://127.0.0.1:{port}", MESSAGES["dots"], **to)
    other = MESSAGES["dots"].replace(b"<jane@example.org>", b"jane@example.net")
    await sendmail(socket, other, recipients=[RECIPIENT], **local)
    await sendmail(socket, contents[0], recipients=[RECIPIENT], **local)
    counts = [
        len(verify(content)) for content in await arrived(server, lambda: sending_postfix.log, 3)
    ]
    assert [0, 0, 2] == sorted(counts)
    # While the key cannot be read: 451, and mail of sendmail waits; then all is signed again.
    server.clear()
    (relay.folder / "key0.pem").rename(relay.folder / "away.pem")
    with pytest.raises(AllRecipientsRefused, match=r"451 4\.3\.0 Local error in processing"):
        await sendmail(socket, MESSAGES["dots"], recipients=[RECIPIENT], **local)
    await deferToThread(call_sendmail, relay, MESSAGES["dots"])
    waits = "status=deferred (mail of example.org cannot be signed at "
    await deferToThread(relay.wait, lambda: waits in relay.said)
    (relay.folder / "away.pem").rename(relay.folder / "key0.pem")
    relay.signal(signal.SIGUSR1)
    await sendmail(socket, MESSAGES["dots"], recipients=[RECIPIENT], **local)
    contents = await arrived(server, lambda: sending_postfix.log, 2)
    assert [[True, True]] * 2 == [verify(content) for content in contents]
    assert "key0.pem cannot be read: No such file or directory" in relay.said
    await deferToThread(relay.end)
