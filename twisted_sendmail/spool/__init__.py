"""The durable queue: the only disk.

Every store stands behind one interface (``spool.Spool``) and keeps the same promises,
which ``tests/spool/conformance.py`` checks.
"""
