"""Import of psycopg, the driver of PostgreSQL, which is an extra."""

from __future__ import annotations

from twisted_sendmail.extras import missing_extra

try:
    import psycopg
    import psycopg.conninfo
    import psycopg.errors
    import psycopg.waiting
except ImportError as e:
    raise missing_extra("postgresql", e) from e

__all__ = ["psycopg"]
