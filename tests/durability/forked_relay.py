"""A forked relay, whose disk can be full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.durability.relay_process import RelayProcess
from tests.durability.zygote import Forked, Zygote

if TYPE_CHECKING:
    from pathlib import Path


class ForkedRelay(RelayProcess):
    """One that is forked, not started anew."""

    zygote: Zygote
    at = 0
    before = True

    @property
    def full(self) -> Path:
        """While there is such a file, nothing can be written to the queue."""
        return self.folder / "full"

    def launch(self, **environment: str) -> Any:
        self.process = Forked(  # type: ignore[assignment]
            self.zygote,
            argv=self.command,
            log=str(self.folder / "log"),
            at=self.at,
            before=self.before,
            full=str(self.full),
        )
        return self.process
