"""An OpenSSL connection that is not asked what is known without asking.

Twisted's TLS layer reads until OpenSSL has nothing more, and looks for something to send
after each read.  Both answers are exceptions out of OpenSSL, and together they take longer
than decrypting a reply.  But what came is nearly always one whole record with data in it;
behind it there is nothing to read, and reading data leaves nothing to send.

Only that case is known here; whatever else comes, OpenSSL is asked as ever.

RFC 8446 section 5.1 (records; the same in TLS 1.2, RFC 5246 section 6.2.1).
"""

from __future__ import annotations

from typing import TypeAlias

from OpenSSL import SSL

_Octets: TypeAlias = bytes | bytearray | memoryview

# What stands before a record: its type, a version, and how many octets follow.
_HEADER = 5
_APPLICATION_DATA = 23


class FrugalConnection(SSL.Connection):
    """One that works in memory, with octets given by ``bio_write``."""

    # Octets that are still to come of a record that has begun; its header, where that is cut.
    _wanted = 0
    _cut = b""
    # OpenSSL has taken all that came, and what came were whole records.
    _emptied = False
    # What came behind that is one record with data, of so many octets.
    _record = 0
    # There is certainly nothing to send; said once, behind the reading of such a record.
    _silent = False

    def bio_write(self, buf: _Octets) -> int:
        """Give OpenSSL what came."""
        size = len(buf)
        if (
            self._emptied
            and size > _HEADER
            and buf[0] == _APPLICATION_DATA
            and size == _HEADER + (buf[3] << 8 | buf[4])
        ):
            self._record = size
        else:
            self._record = 0
            self._follow(buf)
        self._emptied = self._silent = False
        return super().bio_write(buf)

    def _follow(self, buf: _Octets) -> None:
        """Find where the last record in *buf* ends."""
        if self._cut:
            buf, self._cut = self._cut + buf, b""
        at, size = self._wanted, len(buf)
        while at + _HEADER <= size:
            at += _HEADER + (buf[at + 3] << 8 | buf[at + 4])
        if at < size:
            self._cut = bytes(buf[at:])
            at = size
        self._wanted = at - size

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """What OpenSSL has decrypted."""
        if self._emptied:
            raise SSL.WantReadError
        size = self._record
        if size and flags is None:
            self._record = 0
            data = super().recv(size)
            self._emptied = self._silent = True
            return data
        try:
            return super().recv(bufsiz, flags)
        except SSL.WantReadError:
            self._emptied = not (self._wanted or self._cut)
            raise

    def send(self, buf: _Octets, flags: int = 0) -> int:
        """Have OpenSSL encrypt."""
        self._silent = False
        return super().send(buf, flags)

    def bio_read(self, bufsiz: int) -> bytes:
        """What OpenSSL has to send."""
        if self._silent:
            self._silent = False
            raise SSL.WantReadError
        return super().bio_read(bufsiz)

    def shutdown(self) -> bool:
        """Say that nothing more will be sent."""
        self._emptied = self._silent = False
        return super().shutdown()

    def bio_shutdown(self) -> None:
        """Nothing more will come."""
        self._emptied = self._silent = False
        super().bio_shutdown()
