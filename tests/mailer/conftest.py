"""The network in memory, as for the client."""

from __future__ import annotations

from tests.client.conftest import ca_file, logged, net

__all__ = ["ca_file", "logged", "net"]
