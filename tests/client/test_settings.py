"""``SubmissionServer.from_settings``: the settings of programs that were written for ``twisted.mail``."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import InvalidInput, SubmissionServer, Timeouts


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "smtp://localhost:25"),
        ({"host": "127.0.0.2", "port": 2525}, "smtp://127.0.0.2:2525"),
        ({"host": "::1"}, "smtp://[::1]:25"),
        ({"host": "LOCALHOST."}, "smtp://LOCALHOST:25"),
        ({"host": "mail.example.net"}, "smtp+starttls://mail.example.net:25"),
        ({"host": "localhost.example.net"}, "smtp+starttls://localhost.example.net:25"),
        ({"user": "ci", "password": "s3cret"}, "smtp+starttls://localhost:25"),
        ({"user": "", "password": ""}, "smtp://localhost:25"),
        ({"starttls": True}, "smtp+starttls://localhost:25"),
        ({"implicit_tls": True, "port": 465}, "smtps://localhost:465"),
        ({"implicit_tls": True, "starttls": True, "port": 465}, "smtps://localhost:465"),
        ({"server": "smtp://mail.example.net", "starttls": True}, "smtp://mail.example.net:25"),
    ],
)
def test_mail_goes_in_clear_to_this_machine_or_by_the_scheme_smtp(
    settings: dict[str, Any], url: str
) -> None:
    assert str(SubmissionServer.from_settings(**settings)) == url


@ensureDeferred
async def test_the_password_is_that_of_the_user_or_of_the_user_in_the_url(reactor: Any) -> None:
    for server in (
        SubmissionServer.from_settings(user="ci", password="s3cret"),
        SubmissionServer.from_settings("smtps://ci@mail.example.net", password="s3cret"),
    ):
        assert server.credentials is not None
        resolved = await server.credentials.resolve()
        assert (resolved.username, resolved.password and resolved.password.reveal()) == (
            "ci",
            "s3cret",
        )


def test_a_server_keeps_its_timeouts_and_any_other_has_five_minutes() -> None:
    given = SubmissionServer("mail.example.net", timeouts=Timeouts(total=10))
    assert SubmissionServer.from_settings(given) is given
    for server in (None, "smtps://mail.example.net"):
        assert SubmissionServer.from_settings(server).timeouts.total == 300


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"user": "ci"}, "there is no password for ci; give the password"),
        ({"server": "smtps://ci@mail.example.net"}, "there is no password for ci; give the pass"),
        ({"server": 5}, "url cannot be int"),
        ({"host": "mail example"}, "host 'mail…' cannot be used"),
        ({"host": None}, "the server has no host name"),
        ({"port": "smtp"}, "port smtp of localhost cannot be used"),
    ],
)
def test_a_setting_that_cannot_be_used_is_an_error_of_one_line(
    settings: dict[str, Any], error: str
) -> None:
    with pytest.raises(InvalidInput, match=error):
        SubmissionServer.from_settings(**settings)


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0"])
def test_an_ipv6_address_may_have_a_zone(zone: str) -> None:
    server = SubmissionServer.from_url(f"smtps://[fe80::1{zone}]")
    assert (server.host, str(server)) == ("fe80::1%eth0", "smtps://[fe80::1%25eth0]:465")
    assert SubmissionServer("fe80::1%eth0", 465) == server


@pytest.mark.parametrize(
    "host", ["fe80::1%", "fe80::1%a b", "fe80::1%a/b", "fe80::%eth0::1", "x%y"]
)
def test_what_is_no_zone_is_an_error(host: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used"):
        SubmissionServer(host)
