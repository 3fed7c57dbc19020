"""What those who bring mail may do, and the settings of a server that holds them to it.

The one place for what every door of a relay has in common, be it the relay's own or the
stand-in's; who may come in by which door is ``door``'s.

RFC 5321 section 4.5.3.1 (sizes and limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted_sendmail.smtp import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Limits:
    """The table ``[limits]``."""

    message_size: int
    header_size: int
    recipients: int
    hops: int
    connections: int
    connections_per_address: int
    #: Seconds that the first failed login waits for its answer; each further one doubles it.
    failed_login: float
    #: Seconds that their messages under way are given when the relay stops.
    stop_grace: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Limits:
        """Of the values of the table, checked."""
        return cls(**{key.replace("-", "_"): value for key, value in values.items()})

    def server_settings(
        self,
        host: str,
        *,
        repair: bool,
        starttls: bool | None = None,
    ) -> ServerSettings:
        """The settings of a server named *host*; the rest is as with ``ServerSettings``."""
        return ServerSettings(
            host=host,
            require_hello=False,
            starttls=starttls,
            max_size=self.message_size,
            max_header=self.header_size,
            max_hops=self.hops,
            max_recipients=self.recipients,
            repair=repair,
        )
