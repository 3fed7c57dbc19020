"""What goes wrong in the client's session, as errors with their words.

The session decides when; this module only says it.  RFC 5321, RFC 3207 section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.client_states import ClientState
from twisted_sendmail.smtp.commands import Verb
from twisted_sendmail.smtp.errors import (
    CommandNotAllowed,
    DeliveryInDoubt,
    ProtocolBreach,
    SendmailError,
    UnexpectedResponse,
)

if TYPE_CHECKING:
    from twisted_sendmail.smtp.commands import Command
    from twisted_sendmail.smtp.reply import Reply


def unasked(reply: Reply | None) -> ProtocolBreach:
    """A reply, or half of one, that no command waits for."""
    what = "protocol broken"
    return ProtocolBreach(what, reply=reply, detail="the server sent a reply to nothing we said")


def too_early(reply: Reply | None) -> UnexpectedResponse:
    """A yes to a content that is not complete."""
    why = "the server answered before the content was complete"
    return UnexpectedResponse("content not awaited", phase="content", reply=reply, detail=why)


def not_allowed(command: Command, state: ClientState) -> CommandNotAllowed:
    """A command given at the wrong time."""
    return CommandNotAllowed(
        f"{command} not sent",
        phase=command.verb.value,
        command=str(command),
        detail=f"it does not fit a session that is {state.value}",
    )


def in_doubt(why: SendmailError) -> DeliveryInDoubt:
    """The verdict that will not come, because of *why*."""
    error = DeliveryInDoubt(
        "no reply to the end of the message",
        detail=why.what + (f" ({why.detail})" if why.detail else ""),
        phase="content",
        reply=why.reply,
        transcript=why.transcript,
    )
    error.__cause__ = why
    return error


def starttls_injected() -> ProtocolBreach:
    """Something behind the 220 to STARTTLS: somebody else put it there."""
    why = (
        "there is plain text behind the reply to it: somebody may be tampering with the connection"
    )
    return ProtocolBreach("STARTTLS broken off", phase="STARTTLS", detail=why)


def answers_content(verb: Verb, state: ClientState) -> bool:
    """Is a 421 to *verb* the verdict on a content, and says nothing of what is after it?

    The action did not occur then (RFC 5321 section 4.2.1).  A BDAT that nobody would get is
    a command like any other.
    """
    return verb is Verb.CONTENT or (
        verb is Verb.BDAT_LAST and state in {ClientState.RCPT, ClientState.CHUNKS}
    )


def meaning(
    command: Command, reply: Reply, before: ClientState, closing: SendmailError | None
) -> Reply | SendmailError:
    """What a refusal is for whoever waits for it: itself, or a fault that is not the command's.

    :param before: the state it was heard in.
    :param closing: the error of a 421, once one came.
    """
    verb = command.verb
    if reply.code == 421 and closing is not None:
        return reply if answers_content(verb, before) else closing
    # A message behind a broken transaction is refused for the sake of that one.
    cascades = before is ClientState.SPOILED and verb is Verb.MAIL
    return not_allowed(command, before) if cascades else reply
