"""`twisted-sendmail` with DANE, and `check` of a domain or an address: the name server is the test's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from cryptography import x509
from pytest_twisted import ensureDeferred

from tests.cli.shell import PASSWORD, Shell
from tests.client.test_dane import record
from tests.name_server import NameServer
from twisted_sendmail.testing import LoopbackServer

USERS = {"alice": PASSWORD, "alice@example.test": PASSWORD}
SERVICE = "_submissions._tcp.example.test"


class World:
    """A server, and a name server that validates."""

    def __init__(self, names: NameServer, address: str, server: LoopbackServer) -> None:
        self.names, self.address, self.server = names, address, server
        self.host = f"localhost:{server.tls_port}"
        self.place = f"_{server.tls_port}._tcp.localhost"
        assert server.ca_file is not None
        (self.ca,) = x509.load_pem_x509_certificates(Path(server.ca_file).read_bytes())

    def publish(self, *texts: str) -> None:
        self.names.add(self.place, "TLSA", *texts)

    def publish_key(self, seen: Any) -> str:
        text = f"3 1 1 {seen['presented']['public_key']}"
        self.publish(text)
        return text


@pytest_twisted.async_yield_fixture
async def world(reactor: Any) -> AsyncIterator[World]:
    names = NameServer()
    names.validated = True
    address = names.start(reactor)
    names.add("localhost", "A", "127.0.0.1")
    async with LoopbackServer(reactor, users=USERS) as server:
        yield World(names, address, server)
    await names.stop()


@ensureDeferred
async def test_check_shows_whether_dane_can_be_used(world: World, shell: Shell) -> None:
    words = ["check", f"smtps://{world.host}", "--name-server", world.address]
    with_ca = [*words, "--ca-file", world.server.ca_file]
    none = await shell.run(*with_ca)
    assert "validated by DNSSEC: no record" in none.out
    assert f"to allow it, publish {world.place}. IN TLSA 3 1 1 " in none.out
    seen = (await shell.run(*words, "--json")).json
    text = world.publish_key(seen)
    old = "3 1 1 " + "ab" * 32
    world.publish(old, "1 1 1 " + "ab" * 32)
    # Without a CA it is rejected, but for DANE; then the settings are those of DANE.
    rejected = await shell.run(*words, "--json")
    by_dane = await shell.run(*words, "--dane")
    assert (rejected.status, by_dane.status) == (77, 0)
    assert rejected.json["dane"]["matched"] == text
    settings = {
        "url": f"smtps://{world.host}",
        "dane": True,
        "name-servers": [world.address],
    }
    assert rejected.json["settings"] == settings
    for held in (
        f"{text}  matches",
        "1 1 1 " + "ab" * 32 + "  cannot be used",
        "the certificate is verified by a TLSA record of localhost",
        "settings",
    ):
        assert held in by_dane.out


@ensureDeferred
async def test_check_tells_what_to_publish_when_no_record_matches(
    world: World, shell: Shell
) -> None:
    world.publish("3 1 1 " + "ab" * 32)
    words = ["check", f"smtps://{world.host}", "--name-server", world.address]
    by_ca = await shell.run(*words, "--ca-file", world.server.ca_file)
    by_dane = await shell.run(*words, "--dane", "--json")
    assert (by_ca.status, by_dane.status) == (0, 77)
    key = by_dane.json["presented"]["public_key"]
    assert "clients that use DANE refuse the server: TLS refused at localhost" in by_ca.out
    assert f"publish {world.place}. IN TLSA 3 1 1 {key}" in by_ca.out
    assert by_dane.json["findings"][-1] == {
        "level": "wrong",
        "text": f"if the certificate is the server's, publish {world.place}. IN TLSA 3 1 1 {key}",
    }
    assert "--fingerprint" not in by_dane.out
    assert by_dane.json["settings"] == {}


@ensureDeferred
async def test_send_trusts_by_dane_from_options_and_from_an_account(
    world: World, shell: Shell
) -> None:
    world.publish(record(2, 0, 0, world.ca))
    options = ["--server", f"smtps://alice@{world.host}", "--password-file", shell.password]
    options += ["--dane", "--name-server", world.address]
    sent = await shell.run("send", *options, shell.message, "--json")
    accounts = f"""[account.work]
url = "smtps://alice@{world.host}"
password-file = "{shell.password}"
dane = true
name-servers = ["{world.address}"]
"""
    shell.write("accounts.toml", accounts.encode(), 0o600)
    from_account = await shell.run(
        "send",
        shell.message,
        "--json",
        TWISTED_SENDMAIL_ACCOUNTS=str(shell.folder / "accounts.toml"),
    )
    for done in (sent, from_account):
        assert (done.status, done.json["tls"]["verified_by"]) == (0, "dane-ta")
        assert done.json["tls"]["tlsa"] == record(2, 0, 0, world.ca)
    # An answer that is forged, or none at all: it is tried later.
    world.names.bogus.add(world.place)
    bogus = await shell.run("send", *options, shell.message)
    assert (bogus.status, "cannot be looked up" in bogus.err) == (75, True)
    world.names.bogus.clear()
    world.names.unsigned.add(world.place)
    unsigned = await shell.run("send", *options, shell.message)
    assert (unsigned.status, "has not validated them" in unsigned.err) == (69, True)
    assert len(world.server.messages) == 2


@ensureDeferred
async def test_check_finds_the_server_of_a_domain_or_an_address(world: World, shell: Shell) -> None:
    world.names.add_srv(SERVICE, "localhost", world.server.tls_port)
    words = ["--name-server", world.address, "--ca-file", world.server.ca_file]
    domain = await shell.run("check", "example.test", *words)
    untested = await shell.run("check", "alice@example.test", *words, "--json")
    login = await shell.run(
        "check", "alice@example.test", *words, "--password-file", shell.password, "--json"
    )
    url = f"smtps://localhost:{world.server.tls_port}"
    assert (domain.status, untested.status, login.status) == (0, 0, 0)
    for held in (f"{url} ({SERVICE.partition('.')[0]}, validated)", f'settings      url = "{url}"'):
        assert held in domain.out
    assert "the login as alice@example.test was not tried" in untested.out
    assert "the URL submission:example.test can be used, too" in domain.out
    assert untested.json["settings"]["user"] == "alice@example.test"
    assert (untested.json["authenticated"], login.json["authenticated"]) == (False, True)
    # RFC 6186 section 4: with the whole address.
    assert world.server.sessions[-1].user == "alice@example.test"


@ensureDeferred
async def test_check_tries_the_host_of_a_name_without_records(world: World, shell: Shell) -> None:
    done = await shell.run("check", "alice@mx.localhost", "--name-server", world.address, "--json")
    assert done.status == 68
    texts = [each["text"] for each in done.json["findings"]]
    assert any(
        "mx.localhost names no submission server: it has no record" in text for text in texts
    )
    assert any("no server of mx.localhost was found" in text for text in texts)
    assert any(text.startswith("smtp+starttls://mx.localhost:587 cannot be used") for text in texts)
    # No host is well that cannot be used.
    assert not [each["text"] for each in done.json["findings"] if each["level"] == "ok"]
    assert "no connection to mx.localhost:465" in done.err
    assert json.dumps(done.json["settings"]) == "{}"
