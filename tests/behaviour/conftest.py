"""Behaviour as a user of the package meets it: on the wire, and through its public names."""

from __future__ import annotations

from tests.relay.conftest import world
from tests.server.conftest import certificate, net

__all__ = ["certificate", "net", "world"]
