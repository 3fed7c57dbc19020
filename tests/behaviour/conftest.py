"""Tests of behaviour that use only the wire and the public names."""

from __future__ import annotations

from tests.relay.conftest import world
from tests.server.conftest import certificate, net

__all__ = ["certificate", "net", "world"]
