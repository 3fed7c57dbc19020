"""Endpoint descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twisted_sendmail.daemon.config_types import InvalidValue
from twisted_sendmail.daemon.endpoints import EndpointDescription, endpoint, unix_endpoint


def parsed(written: str) -> EndpointDescription:
    return endpoint(written, Path())


@pytest.mark.parametrize(
    ("written", "description", "interface", "local"),
    [
        ("tcp:127.0.0.1:2525", "tcp:2525:interface=127.0.0.1", "127.0.0.1", True),
        ("tcp:localhost:25", "tcp:25:interface=localhost", "localhost", True),
        ("tcp:[::1]:2525", r"tcp6:2525:interface=\:\:1", "::1", True),
        ("tcp:[fe80::1%eth0]:25", r"tcp6:25:interface=fe80\:\:1%eth0", "fe80::1%eth0", False),
        ("tcp:192.0.2.1:25:backlog=9", "tcp:25:interface=192.0.2.1:backlog=9", "192.0.2.1", False),
        ("tcp:2525", "tcp:2525", "", False),
        ("tcp:2525:interface=127.0.0.1", "tcp:2525:interface=127.0.0.1", "127.0.0.1", True),
        ("tcp:port=25:interface=10.0.0.1", "tcp:port=25:interface=10.0.0.1", "10.0.0.1", False),
        (r"tcp6:25:interface=\:\:1", r"tcp6:25:interface=\:\:1", "::1", True),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0", "", False),
    ],
)
def test_an_endpoint_is_a_description_or_address_and_port(
    written: str, description: str, interface: str, local: bool
) -> None:
    found = parsed(written)
    assert (description, interface, local) == (found.description, found.interface, found.local)


@pytest.mark.parametrize(
    ("written", "backlog"),
    [
        ("tcp:127.0.0.1:2525", 7),
        ("unix:/run/backlog=3:mode=666", 7),
        ("tcp:2525:backlog=9", None),
        ("systemd:domain=INET:index=0", None),
    ],
)
def test_an_endpoint_has_the_backlog_of_its_description_or_the_one_given(
    written: str, backlog: int | None
) -> None:
    found = parsed(written).with_backlog(7)
    assert (found.backlog, str(found)) == (backlog, str(parsed(written)))


@pytest.mark.parametrize("written", ["unix:/run/a:mode=666", "unix:address=/run/a", r"unix:/run/a"])
def test_a_unix_socket_has_a_path_and_is_local(written: str) -> None:
    found = parsed(written)
    assert ("/run/a", True) == (found.path, found.local)


@pytest.mark.parametrize("written", ["tcp:127.0.0.1:0", "tcp:[::1]:0", "tcp:localhost:0"])
def test_twisted_makes_an_endpoint_of_address_and_port(reactor: Any, written: str) -> None:
    assert parsed(written).server(reactor) is not None


@pytest.mark.parametrize("written", [":", "2525", "tcp", "tcp:", "tcp:-1", "tcp:99999", "tcp:²"])
def test_other_texts_are_no_endpoints(written: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parsed(written)
    assert caught.value.remedy.startswith('write it as "tcp:127.0.0.1:2525", ')


def test_a_unix_socket_may_have_any_path(reactor: Any) -> None:
    described = unix_endpoint("/run/a:b=c\\d", 0o660)
    assert "/run/a:b=c\\d" == described.path
    made = described.server(reactor)
    assert ("/run/a:b=c\\d", 0o660, False) == (made._address, made._mode, made._wantPID)  # type: ignore[attr-defined]
