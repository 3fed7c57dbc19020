"""The next hop of these cases: it records every delivery, and misbehaves on request."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tests.durability.audit import TOKEN, Delivered, Ledger
from twisted_sendmail import Receiver, Reply
from twisted_sendmail.testing import LoopbackServer

if TYPE_CHECKING:
    from tests.names import ReceiverReply, Verdict
    from twisted_sendmail import ConnectionInfo, Recipient, ReversePath
    from twisted_sendmail.smtp import MailParameters

USER, PASSWORD = "relay", "a password of nobody's"

#: What is done with a message: before it is noted, and before its 250.
AtDot = Callable[[Delivered], "Reply | Awaitable[Reply | None] | None"]
#: What is said to RCPT.
AtRecipient = Callable[[str], "Reply | None"]


class NextHop:
    """A submission server with STARTTLS and AUTH that notes what it takes.

    :param port: 0 for a free one, which it keeps when it is started again.
    """

    def __init__(self, reactor: Any, ledger: Ledger, port: int = 0) -> None:
        self.ledger = ledger
        self.at_recipient: AtRecipient = lambda address: None
        #: Called when a content is whole, before it is noted as delivered.
        self.before_noting: AtDot = lambda delivered: None
        #: Called when it is noted, before the 250.
        self.after_noting: AtDot = lambda delivered: None
        self._reactor = reactor
        self.server = LoopbackServer(
            reactor,
            users={USER: PASSWORD},
            port=port,
            receiver=lambda connection: _Noting(connection, self),
        )

    async def start(self) -> None:
        """Listen."""
        await self.server.start()

    async def stop(self) -> None:
        """Listen no more; its port and its authority stay for the next start."""
        await self.server.stop()

    def offer(self, *, chunking: bool) -> None:
        """Offer CHUNKING in new connections, or not."""
        factory = self.server.factory
        kept = [each for each in factory.settings.extensions if each != "CHUNKING"]
        extensions = (*kept, *["CHUNKING"] * chunking)
        factory.settings = dataclasses.replace(factory.settings, extensions=extensions)

    @property
    def port(self) -> int:
        """Where STARTTLS is spoken."""
        return self.server.port

    @property
    def url(self) -> str:
        """For the relay's configuration."""
        return f"smtp+starttls://{USER}@localhost:{self.port}"


class _Noting(Receiver):
    def __init__(self, connection: ConnectionInfo, hop: NextHop) -> None:
        super().__init__(connection)
        self._hop = hop
        self._sender = ""
        self._recipients: list[str] = []
        self._content: list[bytes] = []
        self._began = 0.0

    def sender(self, sender: ReversePath, parameters: MailParameters) -> ReceiverReply:
        self._sender = str(sender).removeprefix("<").removesuffix(">")
        return None

    def recipient(self, recipient: Recipient) -> ReceiverReply:
        reply = self._hop.at_recipient(str(recipient))
        if reply is None:
            self._recipients.append(str(recipient))
        return reply

    def write(self, data: bytes) -> ReceiverReply:
        self._began = self._began or time.time()
        self._content.append(data)
        return None

    def commit(self) -> Verdict:
        return self._commit()

    async def _commit(self) -> Reply | None:
        hop = self._hop
        content = b"".join(self._content)
        found = TOKEN.search(content)
        delivered = Delivered(
            token=found[1].decode() if found else None,
            sender=self._sender,
            recipients=tuple(self._recipients),
            content=content,
            began=self._began,
            ended=time.time(),
        )
        reply = await _now(hop.before_noting(delivered))
        if reply is not None and reply.code >= 400:
            return reply
        hop.ledger.delivered.append(delivered)
        return await _now(hop.after_noting(delivered))


async def _now(answer: Reply | Awaitable[Reply | None] | None) -> Reply | None:
    return await answer if isinstance(answer, Awaitable) else answer
