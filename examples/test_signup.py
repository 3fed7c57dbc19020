"""Tests of an application with the fixture ``smtp_server``: run them with pytest."""

from __future__ import annotations

import smtplib
import ssl

import pytest

from twisted_sendmail.testing import BackgroundServer, faults


def sign_up(address: str, host: str, port: int, ca_file: str) -> bool:
    """The program under test; it does not use twisted_sendmail."""
    with smtplib.SMTP(host, port) as client:
        client.starttls(context=ssl.create_default_context(cafile=ca_file))
        client.login("shop", "any password")
        try:
            client.sendmail("shop@example.org", [address], "Subject: Welcome\r\n\r\nHello!\r\n")
        except smtplib.SMTPRecipientsRefused:
            return False
    return True


def test_a_new_user_gets_a_welcome_message(smtp_server: BackgroundServer) -> None:
    assert sign_up("bob@example.net", "localhost", smtp_server.port, smtp_server.ca_file)
    (message,) = smtp_server.wait_for(1)
    assert message.email["Subject"] == "Welcome"
    assert [str(recipient) for recipient in message.recipients] == ["bob@example.net"]
    assert message.user == "shop"
    assert message.tls is not None


@pytest.mark.smtp_server(faults=[faults.refuse_recipient("gone@example.net")])
def test_an_unknown_address_is_reported(smtp_server: BackgroundServer) -> None:
    assert not sign_up("gone@example.net", "localhost", smtp_server.port, smtp_server.ca_file)
    assert smtp_server.messages == []
