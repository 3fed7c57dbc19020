"""Configuration files, and the one-line error for each mistake."""

from __future__ import annotations

import grp
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.daemon.conftest import PASSWORD, SIMPLE, Folder
from tests.names import ConfigurationError, read_configuration
from twisted_sendmail import (
    ConnectionLimits,
    Envelope,
    RelaySettings,
    ReversePath,
    RouteSettings,
    ServerSettings,
    ServerTimeouts,
    Timeouts,
    TLSPolicy,
)
from twisted_sendmail.daemon.config_schema import all_keys
from twisted_sendmail.daemon.incoming_mail import server_settings
from twisted_sendmail.queue import Cleanup, CleanupPolicy

REFERENCE = Path(__file__).parents[2] / "docs/reference/relay-configuration.md"
EXAMPLE = Path(__file__).parents[2] / "examples/relay.toml"
#: The keys of an OAuth client, between two others.
GOOGLE = '\noauth-provider = "google"\noauth-client-id = "c"\n'
SMARTHOST = '[[smarthost]]\nurl = "smtp://mail.example.net"\n'


def test_five_lines_are_enough(folder: Folder) -> None:
    read = folder.read(SIMPLE)
    (listener,) = read.listeners
    (route,) = read.relay.routes
    (server,) = route.servers
    assert ("relay.example.org", folder.path / "queue") == (read.name, read.queue)
    assert str(folder.path / "queue/submission") == read.submission.endpoint.path
    assert ("tcp:0:interface=127.0.0.1", "127.0.0.1") == (
        listener.endpoint.description,
        listener.endpoint.interface,
    )
    assert ("127.0.0.0/8", "::1", "unix") == listener.trusted
    assert ("default", ("*",)) == (route.name, route.senders)
    assert ("mail.example.net", 587, TLSPolicy.STARTTLS) == (server.host, server.port, server.tls)
    assert server.credentials is not None
    assert "jane" == server.credentials.username
    assert read.admin is None
    assert 5 * 86400 == read.relay.keep_undeliverable
    assert PASSWORD not in repr(read)


def test_a_queue_in_a_database_needs_a_directory_for_mail_of_the_machine(folder: Folder) -> None:
    url = "postgresql://relay@db1,db2:5433/mail?passfile=/etc/pgpass"
    database = SIMPLE.replace('queue = "queue"', f'queue = "{url}"')
    read = folder.read(f'spool = "spool"\n{database}')
    spool = folder.path / "spool"
    assert (read.queue, read.drop.queue, read.drop.spool) == (url, url, str(spool))
    assert read.submission.endpoint.path == str(spool / "submission")
    assert read.drop.private
    assert folder.complaint(database) == (
        "spool: missing; the queue is in a database, and mail of this machine needs a directory; "
        "name one that the relay's user can write to"
    )


def test_undeliverable_mail_may_be_kept_for_ever(folder: Folder) -> None:
    read = folder.read(f"{SIMPLE}\n[bounce]\nkeep-undeliverable = false\n")
    assert read.relay.keep_undeliverable is None


def test_operators_are_a_group_by_name_or_number(folder: Folder) -> None:
    root = grp.getgrgid(0).gr_name
    for written in (f'"{root}"', "0"):
        assert folder.read(f"operator-group = {written}\n{SIMPLE}").operators == 0
    assert folder.read(SIMPLE).operators is None


def test_every_table_has_its_effect(folder: Folder) -> None:
    read = folder.read(
        """
        name = "Gate.Example.org"
        queue = "/var/q"
        submission-socket = "/run/s"
        submission-mode = "0660"
        [[listen]]
        endpoint = "tcp:[::1]:2525"
        [[listen]]
        endpoint = "tcp:0"
        certificate = "server.pem"
        implicit-tls = true
        accounts = "accounts"
        trusted = []
        repair = true
        [[smarthost]]
        url = "smtps://second.example.net"
        user = "jane@example.org"
        password-file = "password"
        priority = 2
        [[smarthost]]
        url = "smtp+starttls://jane@first.example.net:2587"
        password-file = "password"
        bearer = true
        ca-file = "ca.pem"
        server-name = "other.example.net"
        ignore-extensions = ["CHUNKING"]
        priority = 1
        [[route]]
        name = "news"
        senders = ["@News.example.org", "<>"]
        rate = 2.5
        [[route.smarthost]]
        url = "smtp://bulk.example.net"
        [delivery]
        connections = 7
        idle = "1 min"
        down-most = "1 h"
        [retry]
        first = "1 min"
        most = 600
        lifetime = "2 days"
        warn-after = false
        jitter = 0
        [bounce]
        postmaster = "post@example.org"
        rate = 0.5
        burst = 9
        keep-undeliverable = "2 weeks"
        [rewrite]
        all-mail-from = "machine@example.org"
        local-mail-to = "admin@example.org"
        [limits]
        message-size = "10 MB"
        hops = 30
        stop-grace = "5 s"
        [admin]
        endpoint = "tcp:127.0.0.1:0"
        token-file = "token"
        [log]
        level = "warn"
        dialogue = true
        json-file = "relay.json"
        """
    )
    assert "Gate.Example.org" == read.name
    assert (Path("/var/q"), "unix:address=/run/s:mode=660:lockfile=0") == (
        read.queue,
        read.submission.endpoint.description,
    )
    assert ["tcp6:2525:interface=\\:\\:1", "tcp:0"] == [
        each.endpoint.description for each in read.listeners
    ]
    tls = read.listeners[1]
    assert (folder.path / "server.pem", True, folder.path / "accounts", (), True) == (
        tls.certificate,
        tls.implicit_tls,
        tls.accounts,
        tls.trusted,
        tls.repair,
    )
    default, news = read.relay.routes
    assert ["first.example.net", "second.example.net"] == [s.host for s in default.servers]
    assert ["jane", "jane@example.org"] == [
        s.credentials.username for s in default.servers if s.credentials
    ]
    assert ("other.example.net", ("CHUNKING",)) == (
        default.servers[0].trust.name,
        default.servers[0].ignore_extensions,
    )
    assert default.servers[0].watch is not None
    assert (7, 60, None, 3600) == (
        default.limits.connections,
        default.limits.idle,
        default.limits.rate,
        default.most,
    )
    assert (("@news.example.org", "<>"), 7, 2.5) == (
        news.senders,
        news.limits.connections,
        news.limits.rate,
    )
    schedule = read.relay.schedule
    assert (60, 600, 172800, 0) == (
        schedule.first,
        schedule.most,
        schedule.lifetime,
        schedule.jitter,
    )
    assert not schedule.late(1e9)
    assert ("post@example.org", 0.5, 9, 14 * 86400, 5) == (
        read.relay.postmaster,
        read.relay.report_rate,
        read.relay.report_burst,
        read.relay.keep_undeliverable,
        read.relay.grace,
    )
    policy = read.cleanup
    for sender, route in (("jane@news.example.org", "news"), ("jane@example.org", "default")):
        assert route == policy.route_of(ReversePath.parse(sender), ReversePath.parse(sender))
    assert policy.rewriting is not None
    assert "machine@example.org" == str(policy.rewriting.sender(ReversePath.parse("a@b.example")))
    assert (10_000_000, 30) == (read.limits.message_size, policy.max_hops)
    assert read.admin is not None
    assert read.admin_token is not None
    assert PASSWORD == read.admin_token.reveal()
    assert (folder.path / "relay.json", "warn") == (read.json_log, read.log_level)


def test_a_smarthost_has_timeouts_of_its_own(folder: Folder) -> None:
    text = """
queue = "q"
[[smarthost]]
url = "smtps://a.example"
timeouts = { connect = "10 s", data-end = "20 min", total = false }
[[smarthost]]
url = "smtps://b.example"
"""
    first, second = folder.read(text).relay.routes[0].servers
    assert first.timeouts == Timeouts(connect=10.0, data_end=1200.0, total=None)
    assert second.timeouts == Timeouts()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "queue: missing; this key is required"),
        ("queue = ", "invalid TOML: Invalid value (at end of document); correct that line"),
        (f"queue = {'1' * 5000}", "a number is too long; correct it"),
        (
            "queue = " + "[" * 100_000,
            "tables or arrays are nested too deeply; give a configuration file",
        ),
        ('queue = "q"\n', "smarthost: missing; give it a url such as smtps://"),
        ('que = "q"\n', "que: there is no such key; did you mean queue?"),
        ('queue = "q"\nxyzzy = 1\n', "xyzzy: there is no such key; known here: name, queue, "),
        ("queue = 5\n", "queue: the value is a number; write a text in quotes"),
        (
            'queue = "postgresql://relay:s3cret@db1/mail"\n',
            "queue: there is a password in it; take it out, and name a file by ?passfile=, ",
        ),
        (
            'queue = "postgresql://relay@db1/mail?password=s3cret"\n',
            "queue: there is a password in it; take it out, and name a file by ?passfile=, ",
        ),
        ('queue = "postgresql://db1/mail?x=y"\n', "queue: "),
        ('queue = "postgresql://db1/mail?lease_time=0"\n', "queue: lease_time is not a number"),
        ('queue = "mysql://db1/mail"\n', "queue: no such database can hold a queue; write postgr"),
        ('queue = ""\n', "queue: the value is empty, or holds control characters; "),
        ('queue = "q"\nname = "a b"\n', "name: 'a b' is no host name; write it as relay.exam"),
        ('queue = "q"\nsubmission-mode = "rw"\n', "submission-mode: 'rw' is no mode; write octal"),
        (
            'queue = "q"\noperator-group = "no-such-group"\n',
            "operator-group: there is no group 'no-such-group' on this machine; write the name or ",
        ),
        ('queue = "q"\noperator-group = true\n', "operator-group: the value is true or false; "),
        (
            f'queue = "q"\nspool = "/{"x" * 103}"\n{SMARTHOST}',
            "spool: the path of the socket in it is longer than 107 octets; write a shorter one",
        ),
        (
            f'queue = "q"\n{SMARTHOST}[rewrite]\nlocal-domains = ["x.example"]\n',
            "rewrite.local-domains: there is no address for mail to these domains; give rewrite.",
        ),
        (
            f'queue = "q"\n{SMARTHOST}timeouts = 5\n',
            "smarthost.timeouts: the value is a number; write { connect = ",
        ),
        (
            f'queue = "q"\n{SMARTHOST}timeouts = {{ conect = 5 }}\n',
            "smarthost.timeouts.conect: there is no such key; did you mean connect?",
        ),
        (
            f'queue = "q"\n{SMARTHOST}timeouts = {{ total = 0 }}\n',
            "smarthost.timeouts.total: '0' is no duration above zero; ",
        ),
        ('queue = "q"\nretry = 5\n', "retry: the value is a number; write it as a table, [retry]"),
        ('queue = "q"\nlisten = "tcp:0"\n', "listen: the value is a text; write it as [[listen]]"),
        (
            'queue = "q"\nlisten = [5]\n',
            "listen: the value is a number; write it as a table, [[listen]]",
        ),
        ('queue = "q"\nlisten = ["tcp:x:y"]\n', "listen.endpoint: 'x' is no port, which is "),
        ('queue = "q"\nlisten = ["tcp:h:65536"]\n', "listen.endpoint: '65536' is no port, which "),
        (
            'queue = "q"\nlisten = ["carrier:pigeon"]\n' + SMARTHOST,
            "listen.endpoint: 'carrier:pigeon' cannot be used: there are no endpoints of the kind '",
        ),
        ('queue = "q"\nlisten = ["2525"]\n', "listen.endpoint: '2525' is no endpoint; write it "),
        (
            'queue = "q"\nlisten = ["tcp:2525", "tcp:2525"]\n',
            "listen#2.endpoint: duplicate endpoint; remove one of them",
        ),
        (
            'queue = "q"\nlisten = ["systemd:domain=INET:index=0"]\n',
            "listen.endpoint: 'systemd:domain=INET:index=0' cannot be used: systemd has passed no",
        ),
        (
            'queue = "q"\nlisten = ["ssl:0:privateKey=/nil"]\n',
            "listen.endpoint: 'ssl:0:privateKey=/nil' cannot be used: /nil: No such file or direct",
        ),
        (
            'queue = "q"\nlisten = ["tcp:0:x=y"]\n',
            "listen.endpoint: 'tcp:0:x=y' cannot be used: its ar",
        ),
    ],
)
def test_a_mistake_in_the_general_part_is_one_line(
    folder: Folder, text: str, complaint: str
) -> None:
    said = folder.complaint(text + ("" if "smarthost" in text else SMARTHOST * ("li" in text)))
    assert said.startswith(complaint)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ('accounts = "accounts"', "accounts: there is no certificate, and passwords go over TLS"),
        ('key = "server.pem"', "key: there is no certificate; give both"),
        ("implicit-tls = true", "implicit-tls: there is no certificate; give certificate and key"),
        (
            "trusted = []",
            "trusted: there are neither trusted networks nor accounts; name a network",
        ),
        ('trusted = ["0.0.0.0/0"]', "trusted: 0.0.0.0/0 is everybody: the relay would be open to"),
        (
            'allow-early-input = ["::/0"]',
            "allow-early-input: ::/0 is everybody: others could smugg",
        ),
        ('allow-early-input = ["x"]', "allow-early-input: 'x' is no network; write it as 192.0."),
        ('trusted = ["10.0.0.1/8"]', "trusted: '10.0.0.1/8' is no network; write it as 192.0.2."),
        ('certificate = "nil.pem"', "certificate: FOLDER/nil.pem cannot be read: No such file"),
        ('certificate = "ca.pem"', "certificate: certificate FOLDER/ca.pem cannot be used: the"),
        (
            'certificate = "server.pem"\naccounts = "ca.pem"',
            "accounts: a secret is exposed: FOLDER/ca.pem may be read by everybody; chmod 640 ",
        ),
    ],
)
def test_a_mistake_about_a_listener_is_one_line(folder: Folder, keys: str, complaint: str) -> None:
    said = folder.complaint(f'queue = "q"\n[[listen]]\nendpoint = "tcp:0"\n{keys}\n{SMARTHOST}')
    assert said.replace(str(folder.path), "FOLDER").startswith(f"listen.{complaint}")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ('password-file = "password"', "url: missing; this key is required"),
        ('url = "mail.example.net"', "url: server URL 'mail.example.net' cannot be used: it does"),
        (f'url = "smtps://jane:{PASSWORD}@h"', "url: there is a password in it; take it out, "),
        (f'url = "http://jane:{PASSWORD}@h"', "url: server URL 'http://…@h' cannot be used: "),
        (f'url = "smtps://h"\npassword = "{PASSWORD}"', "password: a secret is not written here; "),
        (
            'url = "smtps://h"\nmechanisms = ["external"]',
            "mechanisms: EXTERNAL needs a certificate; give client-certificate",
        ),
        (
            'url = "smtps://j@h"\nmechanisms = ["EXTERNAL"]\npassword-file = "password"',
            "mechanisms: EXTERNAL uses no password and no token; leave them out",
        ),
        ('url = "smtps://jane@h"', "password-file: there is no password for jane; give password-"),
        ('url = "smtps://h"\npassword-file = "password"', "url: there is a password but no user; "),
        ('url = "smtps://j@h"\nuser = "jane"', "user: there is a user in the url too; name the "),
        (
            'url = "smtp://jane@h"\npassword-file = "password"',
            "url: a password goes over TLS only; write smtps:// or smtp+starttls://",
        ),
        (
            'url = "smtps://j@h"\npassword-file = "password"\npassword-credential = "p"',
            "password-file: there is a password-credential too; give one of them",
        ),
        (
            'url = "smtps://j@h"\npassword-file = "nil"',
            "password-file: FOLDER/nil cannot be read: No such file or directory; check the name",
        ),
        (
            'url = "smtps://j@h"\npassword-file = "ca.pem"',
            "password-file: FOLDER/ca.pem may be read by everybody; chmod 640 FOLDER/ca.pem",
        ),
        (
            'url = "smtps://j@h"\npassword-command = "pass mail"',
            'password-command: the value is a text; write a list such as ["pass", "mail"]; for the shell',
        ),
        (
            'url = "smtps://j@h"\npassword-command = ["/nil/pass"]',
            "password-command: there is no program /nil/pass; give its whole path, or install it",
        ),
        (
            'url = "smtps://j@h"\npassword-environment = "NIL_NIL"',
            "password-environment: the variable NIL_NIL is not set; set it where the relay is",
        ),
        (
            'url = "smtps://j@h"\npassword-credential = "mail"',
            "password-credential: there are no credentials: CREDENTIALS_DIRECTORY is not set; ",
        ),
        (
            'url = "smtps://j@h"\noauth-provider = "google"',
            "oauth-client-id: missing; write the client, as registered at the provider",
        ),
        (
            'url = "smtps://j@h"\noauth-provider = "gogle"\noauth-client-id = "c"',
            "oauth-provider: there is no OAuth provider gogle; write microsoft, google, yahoo, fast",
        ),
        (
            'url = "smtps://j@h"\noauth-client-id = "c"',
            "oauth-client-id: there is no token endpoint; name a provider (microsoft, google, ",
        ),
        (
            'url = "smtps://j@h"\noauth-provider = "google"\noauth-client-id = "c"',
            "oauth-provider: there is no refresh token; name its file; or give a client secret ",
        ),
        (
            'url = "smtps://j@h"\noauth-token-url = "http://h/t"\noauth-client-id = "c"',
            "oauth-token-url: the URL of the authorization server, http://h/t, cannot be used; w",
        ),
        (
            f'url = "smtps://j@h"{GOOGLE}oauth-refresh-token-file = "nil"',
            "oauth-refresh-token-file: there is no file FOLDER/nil with a refresh token; log in, as with",
        ),
        (
            f'url = "smtps://j@h"{GOOGLE}oauth-client-secret-file = "ca.pem"',
            "oauth-client-secret-file: FOLDER/ca.pem may be read by everybody; chmod 640 FOLDER/ca",
        ),
        (
            f'url = "smtps://j@h"{GOOGLE}oauth-refresh-token-file = "password"\npassword-file = "password"',
            "oauth-client-id: there is a password too; give one of them",
        ),
        (
            f'url = "smtps://h"{GOOGLE}oauth-refresh-token-file = "password"',
            "url: there is a token but no user; write user@ in it",
        ),
        ('url = "smtps://h"\nca-file = "nil"', "ca-file: FOLDER/nil cannot be read: No such file"),
        ('url = "smtps://h"\nca-file = "password"', "ca-file: file 'FOLDER/password' cannot be "),
        ('url = "smtps://h"\nfingerprint = "x"', "fingerprint: the certificate fingerprint cannot"),
        ('url = "smtps://h"\npublic-key = ["x"]', "public-key: the public key cannot be used"),
        ('url = "smtps://h"\nca-directory = "nil"', "ca-directory: file 'FOLDER/nil' cannot be"),
        (
            'url = "smtps://h"\ndane = true',
            "dane: DANE needs a name server whose validation by DNS",
        ),
        (
            'url = "smtps://h"\ndane = true\nname-servers = ["192.0.2.1"]',
            "dane: DANE needs a name server whose validation",
        ),
        (
            'url = "smtps://h"\ndane = true\nfingerprint = "' + "0" * 64 + '"',
            "fingerprint: DANE goes alone; leave out the CAs",
        ),
        (
            'url = "smtp://h"\ndane = true\nname-servers = ["127.0.0.1"]',
            "dane: DANE cannot be used with TLSPolicy.NONE; use IMPLICIT or STARTTLS",
        ),
        ('url = "smtps://h"\nname-servers = ["x"]', "name-servers: name server 'x' cannot be used"),
        (
            'url = "smtps://h"\nminimum-tls-version = "TLSv1.1"',
            "minimum-tls-version: minimum_version cannot be 'TLSv1.1'",
        ),
        (
            'url = "smtps://h"\nclient-key-password-file = "password"',
            "client-key-password-file: there is no client-certificate; give both",
        ),
        (
            'url = "smtps://h"\nclient-key = "server.pem"',
            "client-key: there is no client-certificate; give both",
        ),
        ('url = "smtps://h"\nca_file = "ca.pem"', "ca_file: there is no such key; did you mean c"),
        (
            'url = "smtps://h"\npriority = -1',
            "priority: the value is '-1'; write a whole number, 0 or ",
        ),
        (
            'url = "smtps://j@h"\npassword-file = "password"\nmechanisms = ["NIL MECH"]',
            "mechanisms: 'NIL MECH' is no name of a SASL mechanism; it has 1 to 20 of A-Z, 0-9, - ",
        ),
        (
            'url = "smtps://j@h"\npassword-file = "password"\nmechanisms = ["NIL"]',
            "mechanisms: the mechanism NIL is not known; the known ones are ",
        ),
    ],
)
def test_a_mistake_about_a_smarthost_is_one_line(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, keys: str, complaint: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    said = folder.complaint(f'queue = "q"\n[[smarthost]]\n{keys}\n')
    assert said.replace(str(folder.path), "FOLDER").startswith(f"smarthost.{complaint}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[bounce]\npostmaster-sender = "bounces@example.org"',
            "bounce.postmaster-sender: mail to the postmaster cannot be sent from 'bounces@example.o",
        ),
        (
            '[bounce]\npostmaster = "p@x.y"\npostmaster-sender = "x@z"\n[rewrite]\nlocal-mail-to = "p@x.y"',
            "bounce.postmaster-sender: mail to the postmaster cannot be sent from 'x@z': mail to it ",
        ),
        ('[retry]\nfirst = "soon"', "retry.first: 'soon' is no duration above zero; write "),
        ("[retry]\nlifetime = 0", "retry.lifetime: '0' is no duration above zero; "),
        (
            "[retry]\njitter = 1.5",
            "retry.jitter: the value is '1.5'; write a number from 0 up to 1",
        ),
        ("[retry]\nfirst = 10\nmost = 5", "retry.most: the value is less than retry.first; write "),
        ('[limits]\nmessage-size = "1 mile"', "limits.message-size: '1 mile' is no size above"),
        (
            "[limits]\nrecipients = true",
            "limits.recipients: the value is 'True'; write a whole number",
        ),
        ('[bounce]\npostmaster = "x"', "bounce.postmaster: 'x' is no mail address; write it as"),
        ('[rewrite]\nall-mail-from = "a@b.c"\nsenders = {"*" = "d@e.f"}', "rewrite.all-mail-from"),
        ('[rewrite]\nsenders = {"@a b" = "d@e.f"}', "rewrite: address 'a b' cannot be"),
        (
            "[rewrite]\ncomplete = 1",
            "rewrite.complete: the value is a number; write true or false, ",
        ),
        ('[admin]\nendpoint = "tcp:8025"', "admin.endpoint: other hosts could read senders and"),
        ('[admin]\nendpoint = "tcp:0.0.0.0:0"', "admin.endpoint: other hosts could read"),
        ('[admin]\ntoken-file = "token"', "admin.endpoint: there is a token and no endpoint; "),
        (
            '[admin]\nendpoint = "tcp:127.0.0.1:0"\nprivate = true',
            "admin.private: there is no token",
        ),
        (
            '[admin]\nendpoint = "tcp:127.0.0.1:0"\ntoken-environment = "SHORT_TOKEN"',
            "admin.token-environment: the token has less than 16 characters; make one with: openss",
        ),
        ('[admin]\ntoken = "x"', "admin.token: a secret is not written here; use token-file or "),
        ("[delivery]\nrate = 0", "delivery.rate: the value is '0'; write a number above zero"),
        ('[[route]]\nname = "x"\nsenders = []', "route.senders: the list is empty; name a sender"),
        ('[[route]]\nname = "x"\nsenders = ["x"]', "route.senders: 'x' is no pattern for senders"),
        ('[[route]]\nname = "x"\nsenders = ["@x.y"]', "route.smarthost: missing; write [["),
        (
            '[[route]]\nname = "x"\nsenders = ["*"]\n[[route.smarthost]]\nurl = "smtp://h"',
            "route.senders: senders '*' have two routes, 'default' and 'x'; name them once",
        ),
        (
            '[[route]]\nname = "default"\nsenders = ["@x.y"]\n[[route.smarthost]]\nurl="smtp://h"',
            "route.name: 'default' is the name of another route; give each route its own name",
        ),
    ],
)
def test_a_mistake_in_a_table_is_one_line(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "x" * 15)
    assert folder.complaint(f'queue = "q"\n{SMARTHOST}{text}\n').startswith(complaint)


def test_some_route_has_to_serve_all_other_senders(folder: Folder) -> None:
    said = folder.complaint(
        'queue = "q"\n[[route]]\nname = "x"\nsenders = ["@x.y"]\n[[route.smarthost]]\nurl="smtp://h"'
    )
    assert said.startswith("route.senders: some senders have no route; ")


def test_a_file_that_cannot_be_read_is_one_line(folder: Folder) -> None:
    for path, why in ((folder.path, "Is a directory"), (folder.path / "x", "No such file or d")):
        with pytest.raises(ConfigurationError, match=f"{path}: the file cannot be read: {why}"):
            read_configuration(path, folder.reactor)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"300 s"', 300),
        ('"5 min"', 300),
        ('"4 hours"', 14400),
        ('"1h30m"', 5400),
        ('"1 h 30 min"', 5400),
        ('"5 days"', 432000),
        ('"1 week"', 604800),
        ('"1.5 min"', 90),
        ("90", 90),
        ("0.5", 0.5),
    ],
)
def test_durations_may_have_units(folder: Folder, written: str, seconds: float) -> None:
    read = folder.read(f'queue = "q"\n{SMARTHOST}[limits]\nstop-grace = {written}\n')
    assert seconds == read.limits.stop_grace


@pytest.mark.parametrize("written", ['"5 parsecs"', '"-1 s"', "true", '""', '"s"', "nan", "inf"])
def test_other_texts_are_no_durations(folder: Folder, written: str) -> None:
    said = folder.complaint(f'queue = "q"\n{SMARTHOST}[limits]\nstop-grace = {written}\n')
    assert "is no duration above zero" in said


@pytest.mark.parametrize(
    ("written", "octets"),
    [('"25 MB"', 25_000_000), ('"10 MiB"', 10_485_760), ('"64 kB"', 64_000), ("4096", 4096)],
)
def test_sizes_may_have_units(folder: Folder, written: str, octets: int) -> None:
    read = folder.read(f'queue = "q"\n{SMARTHOST}[limits]\nmessage-size = {written}\n')
    assert octets == read.limits.message_size


def test_the_example_can_be_used_and_its_comments_name_real_keys(folder: Folder) -> None:
    text = EXAMPLE.read_text("utf-8")
    folder.write("smarthost.password", PASSWORD, 0o600)
    read = folder.read(text)
    assert ("relay@example.org", "mail.example.net") == (
        read.relay.routes[0].servers[0].credentials.username,  # type: ignore[union-attr]
        read.relay.routes[0].servers[0].host,
    )
    # The keys in its comments are keys, and their defaults are what it says.
    names = {name for _, name, *_ in all_keys()}
    commented = re.findall(r"^#\s+([a-z-]+) = ", text, re.MULTILINE)
    assert 30 < len(commented)
    assert set() == set(commented) - names
    tables = set(re.findall(r"^#?\s*\[+([a-z.]+)\]+", text, re.MULTILINE))
    assert set() == tables - {"route.smarthost", *(table for table, *_ in all_keys())}


def test_every_table_is_on_the_reference_page() -> None:
    page = REFERENCE.read_text("utf-8")
    shown = re.findall(r"^```\{configuration-keys\} ?(.*)$", page, re.MULTILINE)
    assert [*dict.fromkeys(table for table, *_ in all_keys())] == shown


def test_every_key_has_a_meaning() -> None:
    assert [] == [key for *key, _, meaning in all_keys() if not meaning]


def test_the_defaults_are_those_of_the_library(folder: Folder) -> None:
    read = folder.read(f'queue = "q"\n{SMARTHOST}')
    (route,) = read.relay.routes
    assert route == RouteSettings(route.name, route.servers)
    assert read.relay == RelaySettings(read.name, read.relay.routes)
    assert read.cleanup == CleanupPolicy(
        read.name, read.cleanup.route_of, qualification=read.cleanup.qualification
    )
    limits = read.limits
    # A queue can keep the promise of REQUIRETLS, which the library does not make by itself.
    library = ServerSettings(require_hello=False)
    extensions = (*library.extensions, "REQUIRETLS")
    relay = server_settings(limits, "localhost", repair=False)
    assert relay == replace(library, extensions=extensions)
    assert ConnectionLimits() == ConnectionLimits(
        limits.connections, limits.connections_per_address, limits.connections_per_user
    )
    assert ServerTimeouts().failed_login == limits.failed_login


def test_a_route_has_the_keys_of_delivery_that_it_does_not_set(folder: Folder) -> None:
    read = folder.read(
        f'queue = "q"\n{SMARTHOST}[delivery]\nidle = "1 min"\nwindow = 3\n[[route]]\nname = "x"\n'
        'senders = ["@x.y"]\nwindow = 5\n[[route.smarthost]]\nurl = "smtp://h"\n'
    )
    assert [(60, 3), (60, 5)] == [(r.limits.idle, r.limits.window) for r in read.relay.routes]


# -- senders: rewriting, then the header, and the route before both ---------------------------


def queued(folder: Folder, sender: str, rewrite: str) -> tuple[str, str, bytes]:
    """Route and sender of a message, and its header, with a route for ``@news.example.org``."""
    routes = """
        [[route]]
        name = "news"
        senders = ["@news.example.org", "boss@example.org"]
        [[route.smarthost]]
        url = "smtp+starttls://news.example.net"
        [rewrite]
    """
    policy = folder.read(SIMPLE + routes + rewrite).cleanup
    cleanup = Cleanup(policy, Envelope(sender, "bob@example.net"), "0ID", 0)
    content = f"From: X <{sender}>\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\n".encode()
    octets = cleanup.feed(content)
    info = cleanup.message_info()
    return info.route, str(info.envelope.sender), octets.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("sender", "rewrite", "expected"),
    [
        (
            "jane@news.example.org",
            "masquerade = ['example.org']",
            ("news", "jane@example.org", b"From: X <jane@example.org>"),
        ),
        (
            "jane@web.example.org",
            "masquerade = ['example.org']",
            ("default", "jane@example.org", b"From: X <jane@example.org>"),
        ),
        (
            "boss@web.example.org",
            "masquerade = ['example.org']",
            ("news", "boss@example.org", b"From: X <boss@example.org>"),
        ),
        (
            "jane@news.example.org",
            "all-mail-from = 'app@example.org'",
            ("news", "app@example.org", b"From: X <app@example.org>"),
        ),
        (
            "jane@news.example.org",
            "",
            ("news", "jane@news.example.org", b"From: X <jane@news.example.org>"),
        ),
    ],
)
def test_the_route_of_the_original_sender_comes_before_that_of_the_new_one(
    folder: Folder, sender: str, rewrite: str, expected: tuple[str, str, bytes]
) -> None:
    assert queued(folder, sender, rewrite) == expected


def test_from_can_be_set_in_all_mail(folder: Folder) -> None:
    rewrite = "all-mail-from = 'app@example.org'\nset-from-header = true"
    policy = folder.read(f"{SIMPLE}[rewrite]\n{rewrite}").cleanup
    for sender in ("root@x.example", "app@example.org"):
        cleanup = Cleanup(policy, Envelope(sender, "bob@example.net"), "0ID", 0)
        octets = cleanup.feed(
            b"From: Jane <jane@x.example>\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\n"
        )
        assert octets.startswith(b"From: Jane <app@example.org>\r\nDate: x\r\n")
    report = Cleanup(policy, Envelope("", "bob@example.net"), "0ID", 0)
    assert report.feed(b"From: MAILER-DAEMON@x.example\r\n\r\n").startswith(
        b"From: MAILER-DAEMON@x."
    )


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("set-from-header = true", "rewrite.set-from-header: there is no address to set"),
        (
            "set-from-header = true\nall-mail-from = 'a@x.example'\ncomplete = false",
            "rewrite.set-from-header: rewrite.complete = false leaves every header as it is",
        ),
    ],
)
def test_from_cannot_be_set_without_an_address_or_in_headers_that_stay(
    folder: Folder, keys: str, complaint: str
) -> None:
    assert folder.complaint(f"{SIMPLE}[rewrite]\n{keys}").startswith(complaint)
