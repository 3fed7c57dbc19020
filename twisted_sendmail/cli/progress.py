"""A bar on the terminal while a large message goes up, or a word when it takes its time.

It watches the dialogue to know where the session is, and counts what is read from the
message after the server asked for it; the pull is the pace of the connection.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from twisted.internet.task import LoopingCall

from twisted_sendmail.message import Message

#: Octets from which on the bar is there at once.
LARGE = 1024 * 1024
#: Seconds after which something is shown of any upload.
PATIENCE = 1.0
_REFRESH = 0.1


class Upload:
    """The progress of one message.

    :param reactor: keeps the time.
    :param total: octets of the message, if known.
    """

    def __init__(self, reactor: Any, console: Console, total: int | None) -> None:
        self._reactor = reactor
        self._total = total
        self._read = 0
        self._sending = False
        self._shown = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("connecting", total=total, start=False)
        self._timer = reactor.callLater(PATIENCE, self._show)
        self._loop = LoopingCall(self._refresh)
        self._loop.clock = reactor

    def watch(self, line: str) -> None:
        """Take a line of the dialogue."""
        if not self._sending and line.startswith(("S: 354", "C: BDAT")):
            self._sending = True
            self._bar.start_task(self._task)
            self._bar.update(self._task, description="sending")
            if (self._total or 0) > LARGE:
                self._show()
        if line == "C: ." or (line.startswith("C: BDAT") and line.endswith(" LAST")):
            self._bar.update(self._task, description="waiting for the server's verdict")

    def counted(self, message: Message) -> Message:
        """The same message, which tells here how much of it was read."""
        if isinstance(message, AsyncIterable):
            return self._count(message)
        if hasattr(message, "read"):
            return cast("Message", _CountedFile(cast("Any", message), self))
        return message

    async def _count(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.add(len(piece))
            yield piece

    def add(self, octets: int) -> None:
        """So much more was read; may be called from another thread."""
        self._read += octets

    def restart(self) -> None:
        """What was read so far was only looked at."""
        self._read = 0

    def end(self) -> None:
        """Take the bar away."""
        if self._timer.active():
            self._timer.cancel()
        if self._loop.running:
            self._loop.stop()
        if self._shown:
            self._shown = False
            self._bar.stop()

    def _show(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        if not self._shown:
            self._shown = True
            self._bar.start()
            _ = self._loop.start(_REFRESH).addErrback(lambda _: None)

    def _refresh(self) -> None:
        # A file is read once before it is sent, to look at it.
        self._bar.update(self._task, completed=self._read if self._sending else 0)
        self._bar.refresh()


class _CountedFile(io.BufferedIOBase):
    """A binary file that tells how much is read of it."""

    def __init__(self, file: Any, upload: Upload) -> None:
        self._file = file
        self._upload = upload

    def read(self, size: int | None = -1, /) -> bytes:
        octets: bytes = self._file.read(size)
        self._upload.add(len(octets))
        return octets

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._upload.restart()
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())
