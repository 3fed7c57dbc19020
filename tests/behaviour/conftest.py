"""Behaviour as a user of the package meets it: on the wire, and through its public names."""

from __future__ import annotations

from tests.ingress.conftest import certificate, net
from tests.relay.conftest import world

__all__ = ["certificate", "net", "world"]
