"""What every spool has to do, whatever it is made of.

Inherit ``Conformance``, and give it a fixture ``home`` with a ``Home``: something that can
be opened, closed and killed, and keeps what was in it.
"""

from __future__ import annotations

from tests.spool.conformance_in import TakingIn
from tests.spool.conformance_operator import Operating
from tests.spool.conformance_out import TakingOut


class Conformance(TakingIn, TakingOut, Operating):
    """The promises of ``spool.Spool``."""
