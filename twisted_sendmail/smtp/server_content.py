"""One message's content on its way in: parser, counts, and what speaks against it.

Owned by ``server_session``, which feeds it octets and asks for the refusal at the
end.  It keeps no content.

RFC 1870 section 6.3 (size counted while reading), RFC 3030 (chunks), RFC 5321 section 6.3 (hops).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.content_parser import ChunkParser, DataParser
from twisted_sendmail.smtp.header_counter import HeaderCounter
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from twisted_sendmail.smtp.server_settings import ServerSettings

#: How far beyond the limit a content may run before the connection is closed: a client
#: that did not look at SIZE deserves its reply, one that never ends does not.
SLACK = 1024 * 1024


def too_large(settings: ServerSettings) -> Reply:
    """552, naming the limit."""
    return Reply(552, (f"5.3.4 The message is larger than {settings.max_size} octets",))


class ContentIntake:
    """From DATA or the first BDAT to the end of the content.

    :param chunked: it comes in BDAT chunks.
    :param binary: BODY=BINARYMIME was said.
    """

    def __init__(self, settings: ServerSettings, *, chunked: bool, binary: bool) -> None:
        self._settings = settings
        self._header = HeaderCounter(settings.max_header)
        #: BDAT commands so far.
        self.chunks = 0
        self._parser: DataParser | ChunkParser = (
            ChunkParser(repair=settings.repair, binary=binary)
            if chunked
            else DataParser(repair=settings.repair)
        )
        #: Octets of content so far.
        self.size = 0
        #: A refusal by those who take the mail.
        self.verdict: Reply | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Content to hand on (none once it is refused), and what follows the end, if seen."""
        if isinstance(self._parser, ChunkParser):
            return self._keep(self._parser.feed(data)), None
        content, rest = self._parser.feed(data)
        return self._keep(content), rest

    def finish(self) -> bytes:
        """It has ended; what a chunk held back."""
        rest = self._parser.finish() if isinstance(self._parser, ChunkParser) else b""
        content = self._keep(rest)
        self._header.finish()
        return content

    def _keep(self, content: bytes) -> bytes:
        self.size += len(content)
        self._header.feed(content)
        return b"" if self.refusal() else content

    def refusal(self) -> Reply | None:
        """What speaks against the message so far; the same for any cutting of the octets."""
        if self.verdict is not None:
            return self.verdict
        if self._parser.faults and not self._settings.repair:
            held = ", ".join(sorted(fault.value for fault in self._parser.faults))
            return Reply(550, (f"5.6.0 The message holds {held}",))
        if self.size > self._settings.max_size:
            return too_large(self._settings)
        if self._header.too_long:
            limit = self._settings.max_header
            return Reply(552, (f"5.3.4 The header is longer than {limit} octets",))
        if self._header.hops > self._settings.max_hops:
            return Reply(554, ("5.4.6 Too many hops: the message goes in circles",))
        if self.chunks > self._settings.max_chunks:
            return Reply(
                552, (f"5.3.4 The message comes in more than {self._settings.max_chunks} chunks",)
            )
        return None

    @property
    def endless(self) -> bool:
        """Is it so far beyond the limit that nobody should wait for its end?"""
        return self.size > 2 * self._settings.max_size + SLACK
