"""AUTH, from the choice of a mechanism to the 235.

A refused password is not tried again, nor with another mechanism.  After a refused token there is
one more exchange, if a ``TokenSource`` has another token.  If the server refuses the mechanism itself
(504, 534), the next one is tried, each once, unless it is as weak: servers that want another password
(an "app password") reply 534 too, and count each attempt as a failed login.  The number of challenges
and their octets are limited.

RFC 4954.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from attrs import evolve

from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.sasl import MAX_CHALLENGE, MAX_ROUNDS, MECHANISMS, choose
from twisted_sendmail.smtp import (
    AuthenticationError,
    AuthenticationFailed,
    AuthenticationRejected,
    ConnectionFailed,
    InvalidBase64,
    SendmailError,
    UnsupportedMechanism,
    authentication_refusal,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.sasl import Credentials, Mechanism, MechanismFactory, ResolvedCredentials
    from twisted_sendmail.smtp import Reply


_TOO_WEAK = 534
# The mechanism is not offered after all, or too weak for this user (RFC 4954 section 6).
_ABOUT_THE_MECHANISM = frozenset({504, _TOO_WEAK})
# Mechanisms that send the password unchanged: a server that finds one too weak refuses the other too.
_EQUALLY_WEAK = frozenset({"PLAIN", "LOGIN"})


async def authenticate(
    reactor: Any,
    protocol: SubmissionProtocol,
    credentials: Credentials,
    mechanisms: Mapping[str, MechanismFactory] | None = None,
) -> None:
    """Authenticate on a session that is ready.

    :raises AuthenticationError: the server refused the credentials, or cannot check them now.
    :raises InvalidBase64: a challenge is not base64.
    """
    resolved = await credentials.resolve(
        protocol.channel_binding, certificate=protocol.has_certificate
    )
    offered: Collection[str] = protocol.session.capabilities.auth
    may_renew = resolved.token is not None
    refused: SendmailError | None = None
    while True:
        try:
            mechanism = choose(offered, resolved, mechanisms or MECHANISMS)
        except UnsupportedMechanism as none_left:
            # The refusal tells more than that nothing is left.
            raise refused or none_left from None
        error = await _exchange(reactor, protocol, resolved, mechanism)
        if error is None:
            return
        if isinstance(error, AuthenticationFailed) and may_renew and resolved.token is not None:
            may_renew = False
            renewed = await credentials.renew(resolved.token)
            if renewed is not None:
                resolved = evolve(resolved, token=renewed)
                continue
        if refused is not None and isinstance(error, ConnectionFailed):
            # The server has ended the session after so many refusals.
            raise refused
        if error.reply is None or error.reply.code not in _ABOUT_THE_MECHANISM:
            # Raised here, where no local variable holds a part of the exchange.
            raise error
        refused = error
        as_weak = error.reply.code == _TOO_WEAK and mechanism.name in _EQUALLY_WEAK
        left_out = _EQUALLY_WEAK if as_weak else {mechanism.name}
        offered = [name for name in offered if name not in left_out]


async def _exchange(
    reactor: Any,
    protocol: SubmissionProtocol,
    resolved: ResolvedCredentials,
    mechanism: Mechanism,
) -> SendmailError | None:
    """Run the exchange; return the error instead of raising it through these frames."""
    redaction = protocol.session.redaction
    for secret in (resolved.password, resolved.token):
        if secret is not None:
            redaction.conceal(secret.reveal(), secret.forms())
    try:
        reply = await protocol.auth(mechanism.name, mechanism.start())
        rounds = 0
        while reply.intermediate:
            rounds += 1
            try:
                challenge = _challenge(mechanism, reply, rounds)
                if mechanism.expensive:
                    response = await off_reactor(
                        reactor,
                        lambda c=challenge: mechanism.respond(c),  # type: ignore[misc]
                    )
                else:
                    response = mechanism.respond(challenge)
            except (AuthenticationError, InvalidBase64) as broken:
                broken.reply = broken.reply or await _broken_off(protocol)
                raise
            reply = await protocol.auth_response(response)
        if not reply.positive:
            error = authentication_refusal(mechanism.name, reply)
            error.detail = error.detail or redaction.explanation(mechanism.explanation)
            return error
        mechanism.succeeded()
    except SendmailError as error:
        error.__context__ = None  # its frames hold a part of the exchange, too
        return error.with_traceback(None)
    return None


async def _broken_off(protocol: SubmissionProtocol) -> Reply | None:
    """Cancel the exchange; return the reply, None without one."""
    try:
        return await protocol.auth_cancel()
    except Cancelled:
        raise
    except SendmailError:
        return None


def _challenge(mechanism: Mechanism, reply: Reply, rounds: int) -> bytes:
    what = f"AUTH {mechanism.name} broken off"
    text = reply.lines[0]
    if rounds > MAX_ROUNDS:
        raise AuthenticationRejected(
            what, phase="AUTH", detail=f"the server asks more than {MAX_ROUNDS} times"
        )
    if len(reply.lines) > 1 or len(text) > MAX_CHALLENGE:
        raise AuthenticationRejected(
            what, phase="AUTH", detail=f"its challenge is longer than {MAX_CHALLENGE} octets"
        )
    try:
        return b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        if mechanism.prompted:
            return text.encode()
        raise InvalidBase64(what, phase="AUTH", detail="its challenge is not base64") from None
