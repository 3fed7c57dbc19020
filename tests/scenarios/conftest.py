"""The programs of the scenarios, and a relay with its next hop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted

from tests.scenarios.peers import require
from tests.scenarios.postfix import Postfix, why_not
from tests.scenarios.relay_process import PASSWORD, Relay
from tests.scenarios.sending_postfix import PASSWORD as POSTFIX_PASSWORD
from tests.scenarios.sending_postfix import USER, SendingPostfix
from twisted_sendmail.testing import BackgroundServer, LoopbackServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def running_postfix() -> Iterator[Postfix]:
    """A private Postfix."""
    require("Postfix", why_not())
    with Postfix() as running:
        yield running


@pytest_twisted.async_fixture
async def postfix(reactor: Any, running_postfix: Postfix) -> Postfix:
    """The same Postfix for all, and at rest: what it logs from here on is of this test."""
    await running_postfix.quiet(reactor)
    return running_postfix


@pytest.fixture(scope="session")
def running_server() -> Iterator[BackgroundServer]:
    """A server of ours, for real clients and for a Postfix that sends."""
    with BackgroundServer(users={USER: POSTFIX_PASSWORD}) as server:
        yield server


@pytest.fixture
def server(running_server: BackgroundServer) -> BackgroundServer:
    """The same server for all, without what it received before."""
    running_server.clear()
    return running_server


@pytest.fixture(scope="session")
def sending_postfix(running_server: BackgroundServer) -> Iterator[SendingPostfix]:
    """A private Postfix that sends to the server."""
    require("Postfix", why_not())
    with SendingPostfix(running_server, USER, POSTFIX_PASSWORD) as sending:
        yield sending


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    relay.tidy()


@pytest_twisted.async_yield_fixture
async def hop(reactor: Any) -> AsyncIterator[LoopbackServer]:
    """The next hop."""
    async with LoopbackServer(reactor, users={"jane": PASSWORD}) as server:
        yield server
