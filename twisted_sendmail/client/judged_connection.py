"""How OpenSSL's question whether a certificate will do finds the one who can tell.

OpenSSL asks a context, which all connections of one policy share; each connection has a
judge of its own.  A callback of OpenSSL's for each connection would cost more than the
judging does, and would keep itself alive.

Who is accepted is ``tls_session``'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from OpenSSL import SSL

from twisted_sendmail.client.frugal_connection import FrugalConnection

#: Told a certificate, OpenSSL's verify error, its depth and whether OpenSSL accepts it.
Judgement: TypeAlias = Callable[[Any, int, int, int], bool]


class JudgedConnection(FrugalConnection):
    """A connection that knows its judge.

    :param context: one that was given to :func:`judging`.
    :param judge: says yes or no to each certificate of a full handshake; raises nothing.
    """

    def __init__(self, context: SSL.Context, judge: Judgement) -> None:
        super().__init__(context, None)
        self.judge = judge


def _ask(connection: SSL.Connection, cert: Any, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback: once or more for each certificate, the server's last."""
    # A connection without a judge accepts nobody.
    return isinstance(connection, JudgedConnection) and connection.judge(cert, error, depth, ok)


def judging(context: SSL.Context) -> SSL.Context:
    """Have *context* ask the judge of each connection."""
    context.set_verify(SSL.VERIFY_PEER, _ask)
    return context
