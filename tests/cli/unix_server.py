"""A server on a Unix socket that sends scripted replies, in its own thread."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

#: The replies, by verb; ``.`` is the end of the content.
GOOD = {
    "greeting": "220 relay.example.org ESMTP",
    "EHLO": "250-relay.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n250 SIZE 1000000",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 go on",
    ".": "250 2.0.0 Ok: queued as X1",
    "RSET": "250 Ok",
    "QUIT": "221 bye",
}
#: Instead of a reply: the end of the connection, or nothing more ever.
END, SILENCE = "", "silence"


class UnixServer:
    """Listens at *path* while it is entered.

    :param replies: instead of the good ones; by verb, or by a whole line.
    """

    def __init__(self, path: Path, **replies: str) -> None:
        self._replies = {**GOOD, **{key.replace("_", "."): value for key, value in replies.items()}}
        self._path = path
        #: Every line that was said to it, content lines included.
        self.heard: list[str] = []
        #: Contents that were said to be accepted.
        self.contents: list[str] = []

    def __enter__(self) -> UnixServer:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with suppress(OSError), connection, connection.makefile("rwb") as file:
                self._session(file)

    def _session(self, file: Any) -> None:
        content: list[str] | None = None
        verb, line = "greeting", ""
        while True:
            if content is None or verb == ".":
                if verb in self._replies and not self._replies[verb]:
                    return
                reply = self._replies.get(line) or self._replies.get(verb, "500 what?")
                if reply == SILENCE:
                    file.read()
                    return
                file.write(reply.encode() + b"\r\n")
                file.flush()
                content = self._answered(verb, reply, content)
                if verb == "QUIT" or reply.startswith("421"):
                    return
            octets: bytes = file.readline()
            if not octets:
                return
            line = octets.decode("utf-8", "surrogateescape").rstrip("\r\n")
            self.heard.append(line)
            if content is None:
                verb = line[:4].strip().upper()
            elif line == ".":
                verb = "."
            else:
                verb = "content"
                content.append(line)

    def _answered(self, verb: str, reply: str, content: list[str] | None) -> list[str] | None:
        """The content that is coming in behind this reply."""
        if verb == "." and content and reply.startswith("2"):
            self.contents.append("\r\n".join(content))
        return [] if verb == "DATA" and reply.startswith("354") else None
