"""What the server cannot take, noticed while a content of unknown nature streams by.

A message whose size and octets are known beforehand is refused before MAIL
(``smtp.request``); this is the same for one that can be read only once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp import ExtensionUnavailable, MessageTooLarge

if TYPE_CHECKING:
    from twisted_sendmail.client.content_producer import Readable


class GuardedContent:
    """Passes on what *source* gives, up to what the server cannot take.

    :param limit: octets the server takes; None if it did not say.
    :param seven_bit: the server takes 7-bit octets only.
    """

    def __init__(self, source: Readable, limit: int | None, *, seven_bit: bool) -> None:
        self._source = source
        self._limit = limit
        self._seven_bit = seven_bit
        #: Octets passed on.
        self.size = 0

    async def read(self) -> bytes:
        """The next chunk.

        :raises MessageTooLarge: the server told a smaller SIZE (RFC 1870).
        :raises ExtensionUnavailable: an 8-bit octet, and no 8BITMIME (RFC 6152).
        """
        chunk = await self._source.read()
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            msg = "message too large"
            raise MessageTooLarge(
                msg, phase="content", detail=f"it has more than the {self._limit} octets allowed"
            )
        if self._seven_bit and not chunk.isascii():
            msg = "8BITMIME is needed and not offered"
            raise ExtensionUnavailable(
                msg,
                phase="content",
                detail="the message has 8-bit content",
                remedy="encode it as quoted-printable or base64",
            )
        return chunk
