"""What every spool has to do, whatever it is made of.

Inherit ``Conformance``, and give it a fixture ``home`` with a ``Home``: something that can
be opened, closed and killed, and keeps what was in it.
"""

from __future__ import annotations

from tests.queue.conformance_in import TakingIn
from tests.queue.conformance_operator import Operating
from tests.queue.conformance_out import TakingOut
from tests.queue.conformance_together import Together


class Conformance(TakingIn, TakingOut, Operating, Together):
    """The promises of ``spool.Spool``."""
