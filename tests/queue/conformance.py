"""The conformance suite of every implementation of ``Queue``.

Inherit ``Conformance``, and give it a fixture ``home`` with a ``Home``: something that can
be opened, closed and killed, and keeps what was in it.
"""

from __future__ import annotations

from tests.queue.conformance_adding import TakingIn
from tests.queue.conformance_concurrent import Together
from tests.queue.conformance_delivering import TakingOut
from tests.queue.conformance_operator import Operating


class Conformance(TakingIn, TakingOut, Operating, Together):
    """The promises of ``spool.Spool``."""
