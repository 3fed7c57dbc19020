"""The SMTP listener of a relay, and a client that sends raw octets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.names import QueueReceiver
from tests.server.conftest import Client
from twisted_sendmail import ServerSettings, SMTPServerFactory

if TYPE_CHECKING:
    from tests.relay.world import World
    from twisted_sendmail import RelayService


def listener_client(world: World, relay: RelayService, **settings: Any) -> Client:
    """A connection to *relay*, ready for MAIL."""
    factory = SMTPServerFactory(
        world.clock,
        lambda connection: QueueReceiver(connection, relay.queue, relay.policy, world.clock),
        settings=ServerSettings(host="relay.example", require_tls=False, **settings),
    )
    client = Client(world.pump, factory)
    client.send("EHLO client.example.net\r\n")
    return client


def by_data(client: Client, content: bytes, to: list[str], *, cut: int = 0) -> str:
    """One message by DATA, its content *cut* octets at a time; the verdict."""
    wire = b"".join(
        b"." + line if line.startswith(b".") else line for line in content.splitlines(keepends=True)
    )
    envelope = "MAIL FROM:<alice@example.org>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in to)
    assert client.send(envelope + "DATA\r\n")[-1].startswith("354")
    return _pieces(client, wire + b".\r\n", cut)


def by_bdat(client: Client, content: bytes, to: list[str], *, cut: int = 0) -> str:
    """One message by BDAT, in one chunk; the verdict."""
    envelope = "MAIL FROM:<alice@example.org>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in to)
    client.send(envelope)
    return _pieces(client, b"BDAT %d LAST\r\n" % len(content) + content, cut)


def _pieces(client: Client, wire: bytes, cut: int) -> str:
    said: list[str] = []
    for at in range(0, len(wire), cut or len(wire)):
        said += client.send(wire[at : at + (cut or len(wire))])
    return said[-1]
